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
