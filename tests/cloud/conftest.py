import socket
import uuid

import pytest


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """BigQuery, as far as bqemulator is it."""
    from tests.cloud.bigquery_emulator import running

    with running(tmp_path_factory.mktemp("buckets")) as emulator:
        yield emulator


@pytest.fixture
def dataset(emulator):
    """A new dataset: `PROJECT.NAME`."""
    name = f"{emulator.connection.project}.d{uuid.uuid4().hex[:12]}"
    emulator.connection.client().create_dataset(name)
    return name


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
