"""What all tests share: where the development data is, and no surprises from ultralytics."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _quiet_ultralytics(tmp_path_factory):
    """Keep ultralytics from writing into the user's settings and from installing packages."""
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("ultralytics"))
    os.environ["YOLO_AUTOINSTALL"] = "false"


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
