import os

import pytest

# Read once, when TensorFlow is imported: tests and the processes they start use Keras 2, as we do.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """The taxi example's first run: trained once, looked at by all who need a real model."""
    from tests.taxi import first_run

    return first_run(tmp_path_factory.mktemp("taxi"))
