"""TFX's InfraValidator with TensorFlow Serving in Docker: for machines that have both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gates.verdict import Outcome, Verdict
from pipeline.config import ConfigError

if TYPE_CHECKING:
    from tfx.components import InfraValidator
    from tfx.types import Artifact, BaseChannel

IMAGE_TAG = "2.19.1"
"""Of the image tensorflow/serving; that of the client library `tensorflow-serving-api` in the lock file."""

_ROWS = 16
_TRIES = 3
_ANSWER_SECONDS = 10
"""How long Docker's engine may take to say that it is there."""

_BLESSED_FILE = "INFRA_BLESSED"


def infra_validator(model: BaseChannel, examples: BaseChannel, max_load_seconds: float) -> InfraValidator:
    """Loads the model in TensorFlow Serving and sends it rows of the validation split over gRPC."""
    from tfx.components import InfraValidator
    from tfx.proto import infra_validator_pb2

    return InfraValidator(
        model=model,
        examples=examples,
        serving_spec=infra_validator_pb2.ServingSpec(
            tensorflow_serving=infra_validator_pb2.TensorFlowServing(tags=[IMAGE_TAG]),
            local_docker=infra_validator_pb2.LocalDockerConfig(),
        ),
        validation_spec=infra_validator_pb2.ValidationSpec(
            max_loading_time_seconds=max(1, round(max_load_seconds)), num_tries=_TRIES
        ),
        request_spec=infra_validator_pb2.RequestSpec(
            tensorflow_serving=infra_validator_pb2.TensorFlowServingRequestSpec(
                signature_names=["serving_default"]
            ),
            split_name="validation",
            num_examples=_ROWS,
        ),
    )


def require_docker() -> None:
    """Asks Docker's engine whether it is there.

    Raises:
      ConfigError: if it is not, naming the setting that wants it.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(timeout=_ANSWER_SECONDS)
        try:
            client.ping()
        finally:
            client.close()
    except DockerException as error:
        raise ConfigError(
            f"serving_check.docker: true, and no Docker engine answers here ({error}): start it, or set it to false; "
            "the rest of the serving check needs none"
        ) from error


def infra_verdict(blessing: Artifact) -> Verdict:
    """What InfraValidator found: it stops nothing by itself."""
    is_blessed = (Path(blessing.uri) / _BLESSED_FILE).exists()
    reason = f"TensorFlow Serving {IMAGE_TAG} loads the model and answers rows of the validation split"
    if not is_blessed:
        reason = (
            f"TensorFlow Serving {IMAGE_TAG} does not load the model, or fails on rows of the validation split: the "
            "log of InfraValidator says which"
        )
    figure = "answers" if is_blessed else "fails"
    return Verdict("TensorFlow Serving", Outcome.of(is_blessed), figure, "answers", reason)
