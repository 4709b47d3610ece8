"""Times on pages: what stands beside them."""

import pytest

from eval.report.timing import TimedOn

ENVIRONMENT = {"device": "cpu", "cpu": "Xeon", "cpu_threads": 1}


@pytest.mark.parametrize(
    ("environment", "precisions", "sizes", "text"),
    [
        ({}, ["fp32", "fp32"], [(384, 640)] * 9, "CPU (Xeon), 1 thread, fp32, 640x384"),
        (
            {"device": "H100", "cpu_threads": 16},
            ["fp32", "bf16", ""],
            [(20, 10), (9, 9), (9, 9)],
            "H100, 16 threads of CPU (Xeon), bf16, fp32, 2 sizes from 9x9 to 10x20",
        ),
        ({}, [], [], "CPU (Xeon), 1 thread"),
    ],
)
def test_a_time_has_its_device_threads_precision_and_size(environment, precisions, sizes, text):
    assert TimedOn.of(ENVIRONMENT | environment, precisions, sizes).text == text
