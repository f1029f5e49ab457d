import pytest


@pytest.fixture(scope="session")
def float32_model(tmp_path_factory):
    """A small device model's float32 file."""
    from tests.tflite.small_device_model import convert

    return convert(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def every_kind_graph(made_once):
    """The transform graph of a feature of every kind."""
    from tests.tflite.every_kind import analyse

    return str(made_once("every-kind", analyse) / "graph")
