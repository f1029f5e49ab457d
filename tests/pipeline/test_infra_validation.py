"""How TFX's InfraValidator is set up. What it then does with Docker is not seen here."""

from pathlib import Path

import pytest
from tfx.components.infra_validator.serving_bins import parse_serving_binaries
from tfx.proto import infra_validator_pb2
from tfx.types import Channel, standard_artifacts
from tfx.utils import proto_utils

from pipeline.config import ConfigError
from pipeline.infra_validation import IMAGE_TAG, infra_validator, infra_verdict, require_docker


def test_the_validator_asks_tensorflow_serving_in_docker_for_rows_of_validation() -> None:
    node = infra_validator(
        Channel(type=standard_artifacts.Model), Channel(type=standard_artifacts.Examples), 120.0
    )
    serving, validation, request = (
        infra_validator_pb2.ServingSpec(),
        infra_validator_pb2.ValidationSpec(),
        None,
    )
    request = infra_validator_pb2.RequestSpec()
    for key, message in (
        ("serving_spec", serving),
        ("validation_spec", validation),
        ("request_spec", request),
    ):
        proto_utils.json_to_proto(node.exec_properties[key], message)
    assert serving.WhichOneof("serving_platform") == "local_docker"
    [image] = [binary.image for binary in parse_serving_binaries(serving)]
    assert image == f"tensorflow/serving:{IMAGE_TAG}"
    assert validation.max_loading_time_seconds == 120
    assert list(request.tensorflow_serving.signature_names) == ["serving_default"]
    assert (request.split_name, request.num_examples) == ("validation", 16)


def test_the_image_is_of_the_version_of_the_client() -> None:
    from importlib.metadata import version

    assert version("tensorflow-serving-api") == IMAGE_TAG


def test_without_a_docker_engine_the_setting_that_wants_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("docker.constants.DEFAULT_UNIX_SOCKET", f"http+unix://{tmp_path}/no.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(ConfigError, match=r"serving_check.docker: true, and no Docker engine answers here"):
        require_docker()


@pytest.mark.parametrize(("file", "passes"), [("INFRA_BLESSED", True), ("INFRA_NOT_BLESSED", False)])
def test_a_model_that_the_validator_does_not_bless_is_refused(
    tmp_path: Path, file: str, passes: bool
) -> None:
    (tmp_path / file).touch()
    blessing = standard_artifacts.InfraBlessing()
    blessing.uri = str(tmp_path)
    verdict = infra_verdict(blessing)
    assert verdict.passed is passes
    assert verdict.name == "TensorFlow Serving"
