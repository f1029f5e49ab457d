from pathlib import Path

import pytest

from pipeline.runners import fork_server


@pytest.fixture(autouse=True, scope="session")
def loaded_fork_server() -> None:
    """Load TFX once for all tests of the session."""
    fork_server.start()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """The folder through which a test tells the tiny components what to do, and they tell what they did."""
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder
