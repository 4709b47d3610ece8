"""How many CPU threads a command computes with."""

import cv2
import pytest
import torch

from rainmer import device
from rainmer.cli import add_threads_option, make_parser, parse_options, set_threads
from rainmer.device import frames_at_once, resolve_device, usable_cpus, use_threads


@pytest.fixture
def eight_cpus(monkeypatch):
    monkeypatch.setattr("rainmer.cpus.cpus_by_affinity", lambda: 8)


@pytest.fixture
def threads(monkeypatch):
    """Keep the numbers of threads of the test process."""
    monkeypatch.setattr(device, "_let_idle_threads_sleep", lambda: None)
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(content)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("300000 100000", 3), ("max 100000", 8), ("50000 100000", 1), ("9900000 100000", 8)],
)
@pytest.mark.usefixtures("eight_cpus")
def test_a_quota_of_cgroups_limits_the_cpus(tmp_path, quota, cpus):
    write(tmp_path / "fs/slice", cpu_max=f"{quota}\n")
    write(tmp_path / "fs/slice/scope", cpu_max="max 100000\n")
    (tmp_path / "own").write_text("0::/slice/scope\n")
    assert usable_cpus(tmp_path / "fs", tmp_path / "own") == cpus


@pytest.mark.usefixtures("eight_cpus")
def test_a_quota_of_cgroups_of_version_1(tmp_path):
    write(tmp_path / "fs/cpu", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    write(tmp_path / "fs/cpu/job", cpu_cfs_quota_us="250000", cpu_cfs_period_us="100000")
    (tmp_path / "own").write_text("9:memory:/job\n4:cpu,cpuacct:/job\n")
    assert usable_cpus(tmp_path / "fs", tmp_path / "own") == 2


@pytest.mark.usefixtures("eight_cpus")
def test_a_container_that_names_a_cgroup_of_its_host(tmp_path):
    write(tmp_path / "fs", cpu_max="400000 100000")
    (tmp_path / "own").write_text("0::/docker/0123\n")
    assert usable_cpus(tmp_path / "fs", tmp_path / "own") == 4


@pytest.mark.usefixtures("eight_cpus")
def test_without_cgroups_the_affinity_decides(tmp_path):
    assert usable_cpus(tmp_path, tmp_path / "own") == 8


@pytest.mark.usefixtures("threads")
def test_threads_are_at_most_those_of_torch_and_the_cpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    use_threads()
    assert torch.get_num_threads() == cv2.getNumThreads() == min(3, usable_cpus())
    monkeypatch.setattr(device, "usable_cpus", lambda: 1)
    use_threads()
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("threads")
def test_the_number_that_the_user_has_set_for_openmp_counts(monkeypatch):
    monkeypatch.setattr(device, "usable_cpus", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    torch.set_num_threads(5)  # as torch does when it is loaded
    use_threads()
    assert torch.get_num_threads() == cv2.getNumThreads() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as ultralytics does when it is imported
    use_threads()
    assert torch.get_num_threads() == cv2.getNumThreads() == 2


@pytest.mark.usefixtures("threads")
def test_the_option_sets_the_threads_and_is_not_stored():
    parser = make_parser("command", "Does something.", "  command")
    add_threads_option(parser)
    assert parse_options(parser, dict, ["--threads", "2"]) == {}
    set_threads()
    assert torch.get_num_threads() == cv2.getNumThreads() == 2
    with pytest.raises(SystemExit):
        parser.parse_args(["--threads", "0"])


def test_gpu_means_cuda(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # which would ask for a driver
    assert [str(resolve_device(name)) for name in ("gpu", "gpu:1", "1", "cpu")] == [
        *("cuda", "cuda:1", "cuda:1", "cpu")
    ]


def test_large_frames_go_alone_on_the_cpu():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert frames_at_once(8, (384, 640), cpu) == 1
    assert frames_at_once(8, (192, 320), cpu) == 8
    assert frames_at_once(8, (384, 640), gpu) == 8
    assert frames_at_once(8, (384, 640), None) == 8
