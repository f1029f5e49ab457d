import fcntl
import os
import re
import socket
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Read once, when TensorFlow is imported: tests and the processes they start use Keras 2, as we do.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# Started again and again by tests, TensorFlow and TFX would otherwise be compiled anew by each process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

FIRST = (
    "tests/pipeline/test_interrupted.py",
    "taxi",
    "tests/pipeline/test_sources.py",
    "tests/models/test_distribution.py",
    "tests/models/test_trainer.py",
    "tests/models/test_tuner.py",
    "tests/models/test_ensemble.py",
    "tests/models/test_parallel_search.py",
    "tests/beam_jobs/test_streaming.py",
    "tests/tflite/test_compression.py",
    "tests/tflite/test_preprocessing.py",
    "tests/pipeline/components/test_device_models.py",
    "tests/pipeline/components/test_tuner.py",
)
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
def made_once(tmp_path_factory):
    """From a name and a function that fills a folder to that folder, which the first worker that asks fills for all.

    It is moved after it was filled, so nothing in it may know where it lies, and is only to be read.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def folder_of(name, fill):
        place = shared / f"once-{name}"
        with place.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                attempt = Path(tempfile.mkdtemp(dir=shared))
                fill(attempt)
                attempt.rename(place)
        return place

    return folder_of


@pytest.fixture(scope="session")
def tables(made_once):
    """From a kind of label to the small analysed table that has it."""
    from schemas.features import FeatureSet
    from tests.models.conftest import FEATURES, LABELS, made_table, table_in

    def table(kind):
        folder = made_once(f"table-{kind}", lambda folder: made_table(folder, kind))
        return table_in(folder, FeatureSet(FEATURES, LABELS[kind]))

    return cache(table)


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
