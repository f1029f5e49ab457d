"""Calls of Vertex AI's models and endpoints: to the service, or, in a rehearsal, to nobody.

A request is a message of the API. What changes something is kept beside, as it is sent, so that a run can show it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from cloud.api_errors import CloudError, Remedies, explained, meaning, retrying

if TYPE_CHECKING:
    from cloud.vertex_pipelines import Target

_MODEL_METHODS = frozenset(
    {
        "upload_model",
        "list_model_versions",
        "get_model",
        "merge_version_aliases",
        "import_model_evaluation",
        "batch_import_model_evaluation_slices",
        "list_model_evaluations",
    }
)
"""Methods of the service for models; all others are of the one for endpoints."""
_READING = ("get_", "list_")
_CALL_SECONDS = 120.0
_LONGEST_POLL_SECONDS = 20.0
_REMEDIES = Remedies(
    forbidden="the account that calls needs roles/aiplatform.user, roles/iam.serviceAccountUser on the service "
    "account, and the service agent of Vertex AI has to read the bucket, the image and the key",
    not_found="look at project, region and name, and whether the Vertex AI API is enabled",
    conflict="it is there already, or was changed at the same time; run the same again",
    quota="ask for more, take fewer or other machines, or run the same again later",
    connection="look at the region and the network",
)


class RegistryError(CloudError):
    """The Model Registry or an endpoint did not do what was asked; one line a fault, which says what to change."""


class NotThereError(RegistryError):
    """There is no such resource."""


@dataclass(frozen=True)
class Call:
    """A request that changes something.

    Attributes:
      method: such as `upload_model`.
      request: the message of the API, as JSON; what its path says is in it, too.
    """

    method: str
    request: Mapping[str, Any]


class Api(Protocol):
    """Where requests go.

    Attributes:
      parent: resource that models and endpoints are in.
      calls: that changed something.
      is_live: whether the service gets them.
    """

    parent: str
    calls: list[Call]
    is_live: bool

    def call(self, method: str, request: Any, what: str) -> Any:
        """The answer to a request; of a long-running operation its result, of a list its entries.

        Args:
          method: as the client library calls it.
          request: the message of that method.
          what: the request is about, for errors.

        Raises:
          NotThereError: if the resource is not there.
          RegistryError: if the request fails otherwise.
        """
        ...


class Vertex:
    """The service."""

    is_live = True

    def __init__(
        self,
        target: Target,
        *,
        wait_seconds: float = 3600.0,
        poll_seconds: float = 2.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects to nothing yet.

        Args:
          target: project and region.
          wait_seconds: for a long-running operation: machines for an endpoint take many minutes.
          poll_seconds: between the first two looks at an operation.
          sleep: waits for some seconds before another try.
        """
        self.parent = target.parent
        self.calls: list[Call] = []
        self._target = target
        self._wait_seconds = wait_seconds
        self._poll_seconds = poll_seconds
        self._sleep = sleep

    def call(self, method: str, request: Any, what: str) -> Any:
        """As `Api.call`. Reading is tried several times, all else once: whether it was done is not known then."""
        from google.api_core.exceptions import NotFound

        is_reading = method.startswith(_READING)
        if not is_reading:
            self.calls.append(_call(method, request))
        with explained(what, RegistryError, _REMEDIES):
            try:
                send = getattr(self._models if method in _MODEL_METHODS else self._endpoints, method)
                ask = retrying(self._sleep) if is_reading else _once
                return self._result(ask(send, request=request, timeout=_CALL_SECONDS), method, what)
            except NotFound as error:
                raise NotThereError(f"{what}: {meaning(error, _REMEDIES)}") from error

    def _result(self, answer: Any, method: str, what: str) -> Any:
        from google.api_core.future.polling import DEFAULT_POLLING
        from google.api_core.operation import Operation

        if isinstance(answer, Operation):
            polling = DEFAULT_POLLING.with_delay(initial=self._poll_seconds, maximum=_LONGEST_POLL_SECONDS)
            try:
                return answer.result(polling=polling.with_timeout(self._wait_seconds))
            except TimeoutError as error:
                raise RegistryError(
                    f"{what}: not done after {self._wait_seconds:g} s; {answer.operation.name} goes on: look at it, "
                    "and run the same again when it has ended"
                ) from error
        return list(answer) if method.startswith("list_") else answer

    @cached_property
    def _models(self) -> Any:
        return self._client("ModelServiceClient")

    @cached_property
    def _endpoints(self) -> Any:
        return self._client("EndpointServiceClient")

    def _client(self, name: str) -> Any:
        # By REST the client library asks for long-running operations under /ui/, which is documented nowhere: so the
        # real service is spoken to by gRPC.
        if self._target.endpoint is None:
            from google.cloud import aiplatform_v1

            address = f"{self._target.region}-aiplatform.googleapis.com"
            return getattr(aiplatform_v1, name)(client_options={"api_endpoint": address})
        return self._target.client(name.removesuffix("Client"))


class Rehearsal:
    """A service in which there is nothing yet, and that only notes what it is asked."""

    is_live = False

    def __init__(self, target: Target) -> None:
        self.parent = target.parent
        self.calls: list[Call] = []

    def call(self, method: str, request: Any, what: str) -> Any:
        """As `Api.call`."""
        from google.cloud import aiplatform_v1 as api

        if method.startswith("list_"):
            return []
        if method.startswith("get_"):
            raise NotThereError(f"{what}: not there, for this is a rehearsal")
        self.calls.append(_call(method, request))
        if method == "upload_model":
            return api.UploadModelResponse(
                model=f"{self.parent}/models/{request.model_id}", model_version_id="1"
            )
        if method == "import_model_evaluation":
            return api.ModelEvaluation(name=f"{request.parent.partition('@')[0]}/evaluations/1")
        if method == "create_endpoint":
            return api.Endpoint(name=f"{self.parent}/endpoints/{request.endpoint_id}")
        if method == "deploy_model":
            return api.DeployModelResponse(deployed_model={"id": "1"})
        return None


def _call(method: str, request: Any) -> Call:
    text = type(request).to_json(
        request, including_default_value_fields=False, use_integers_for_enums=False, indent=None
    )
    return Call(method, json.loads(text))


def _once(send: Callable[..., Any], **arguments: Any) -> Any:
    return send(**arguments)
