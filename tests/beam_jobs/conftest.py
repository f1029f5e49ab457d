"""A pushed model for the whole session."""

import pytest

from beam_jobs.pushed import PushedModel
from tests.beam_jobs.pushed_model import push


@pytest.fixture(scope="session")
def serving(tmp_path_factory):
    """A serving folder with one version."""
    folder = tmp_path_factory.mktemp("serving")
    push(folder)
    return folder


@pytest.fixture(scope="session")
def pushed(serving):
    """The version."""
    return PushedModel.read(str(serving))


@pytest.fixture(scope="session")
def pubsub():
    """Google's Pub/Sub emulator, for the session."""
    from tests.beam_jobs.pubsub_emulator import running

    with running() as emulator:
        yield emulator
