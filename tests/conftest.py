"""What all tests share: where the development data is, and no surprises from ultralytics."""

import os
import tempfile
from pathlib import Path

# Before ultralytics is imported: its settings must not come from, or go to, the user's folder, and
# it must not install packages.
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolo-config-"))
os.environ.setdefault("YOLO_AUTOINSTALL", "False")

import hypothesis
import pytest
import torch

# No test is timed: on a busy machine any example may take long.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=5000)
hypothesis.settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared"


THREADS = int(os.environ.get("TEST_THREADS", "1"))


@pytest.fixture(autouse=True)
def _settings_of_torch():
    """What commands and training runs set for their process does not reach the next test.

    Tiny tensors run faster on one thread, by far so on a busy machine; `TEST_THREADS` asks for
    another number.
    """
    torch.set_num_threads(THREADS)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real development data; tests that need it are skipped on other machines."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the development data folder is not on this machine")
    return folder


@pytest.fixture(scope="session")
def reference():
    """The folder of specifications and golden vectors."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip("the reference folder is not on this machine")
    return folder
