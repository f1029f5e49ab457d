import os

import pytest

# Read once, when TensorFlow is imported: tests and the processes they start use Keras 2, as we do.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


SLOWEST = ("tests/pipeline/test_interrupted.py", "taxi", "tests/pipeline/test_sources.py")
"""Groups of tests that are begun first, so that neither of two workers is left with one at the end."""


def pytest_collection_modifyitems(items):
    """Says which tests one worker takes together: those of a file, and those that look at the taxi example's run."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        group = "taxi" if "first_run" in item.fixturenames else file
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_rank)


def _rank(item):
    [group] = item.get_closest_marker("xdist_group").args
    return SLOWEST.index(group) if group in SLOWEST else len(SLOWEST)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """The taxi example's first run: trained once, looked at by all who need a real model."""
    from tests.taxi import first_run

    return first_run(tmp_path_factory.mktemp("taxi"))
