import os
import re
import socket
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Read once, when TensorFlow is imported: tests and the processes they start use Keras 2, as we do.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# Started again and again by tests, TensorFlow and TFX would otherwise be compiled anew by each process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

FIRST = ("tests/pipeline/test_interrupted.py", "taxi", "tests/pipeline/test_sources.py")
"""The slowest groups of tests: begun first, so that neither of two workers is left with one at the end."""


def group_of(nodeid):
    """What one worker takes together: the tests of a file, and all that look at the taxi example's run."""
    file = nodeid.partition("::")[0]
    return "taxi" if _needs_first_run(file) else file


@cache
def _needs_first_run(file):
    path = ROOT / file
    shared = path.with_name("conftest.py")
    sources = [path] if shared == Path(__file__) else [path, shared]
    return any(source.exists() and re.search(r"\bfirst_run\b", source.read_text()) for source in sources)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _rank(group_of(item.nodeid)))


def _rank(group):
    return FIRST.index(group) if group in FIRST else len(FIRST)


# xdist's own groups go by a suffix of a test's name, which this pytest does not hand on.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """The taxi example's first run: trained once, looked at by all who need a real model."""
    from tests.taxi import first_run

    return first_run(tmp_path_factory.mktemp("taxi"))


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """From a kind of label to the small analysed table with it, made once for all workers; only to be read."""
    from tests.models.conftest import shared_table

    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return cache(lambda kind: shared_table(folder / f"table-{kind}", kind))


@pytest.fixture
def storage(monkeypatch):
    """Cloud Storage, as far as gcp-storage-emulator is it, with the bucket `my-bucket`; a client of it."""
    from gcp_storage_emulator import server as emulator
    from google.cloud.storage import Client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="my-bucket"):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        # Beam looks for credentials, for half a minute, also where it is told to do without.
        monkeypatch.setattr("apache_beam.internal.gcp.auth._Credentials._credentials_init", True)
        yield Client()
