import pytest


@pytest.fixture(scope="session")
def float32_model(tmp_path_factory):
    """A small device model's float32 file."""
    from tests.tflite.small_device_model import convert

    return convert(tmp_path_factory.mktemp("small"))
