"""RegistryPusher: a TFX component that registers what ModelPusher pushed, and deploys it if there is an endpoint.

In a rehearsal nothing is sent: the requests are written into the artifact, as they would be for a project in which
there is no such model and no such endpoint yet.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts

from cloud import endpoints, model_evaluation, model_registry
from cloud.vertex_api import Api, Rehearsal, Vertex
from cloud.vertex_pipelines import Target
from pipeline.components.gate_output import GateVerdict
from pipeline.container import REHEARSAL
from pipeline.environment import RegistrySettings
from pipeline.mounts import local_path
from pipeline.push import DESTINATION

REGISTERED = "registered_model"
"""Custom property of the artifact: the resource name of the version."""
ENDPOINT = "endpoint"
"""Custom property of the artifact: the resource name of the endpoint that it was deployed at."""
REQUESTS = "requests.json"
"""File of the artifact: the requests that changed something, or would have, in their order."""


class RegistryPusherSpec(component_spec.ComponentSpec):
    """Parameters, inputs and output of RegistryPusher."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "settings": component_spec.ExecutionParameter(type=str),
        "project": component_spec.ExecutionParameter(type=str),
        "region": component_spec.ExecutionParameter(type=str),
        "image": component_spec.ExecutionParameter(type=str),
        "kms_key": component_spec.ExecutionParameter(type=str, optional=True),
        "labels": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
        "verdict": component_spec.ChannelParameter(type=GateVerdict, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        REGISTERED: component_spec.ChannelParameter(type=standard_artifacts.PushedModel)
    }


class Executor(base_executor.BaseExecutor):
    """Registers, evaluates, moves aliases, deploys; each step is found done when it is tried again."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Registers a pushed version.

        Raises:
          RegistryError: if the service refuses; what was done before stays.
        """
        given = exec_properties
        settings = TypeAdapter(RegistrySettings).validate_json(given["settings"])
        labels = dict(json.loads(given["labels"]))
        kms_key = given.get("kms_key") or None
        api = self._api(given["project"], given["region"])
        pushed = artifact_utils.get_single_instance(input_dict["pushed_model"])
        candidate = model_registry.read(_readable(pushed.get_string_custom_property(DESTINATION)))
        evidence = [
            Path(verdict.uri)
            for verdict in input_dict.get("verdict") or ()
            if (Path(verdict.uri) / model_evaluation.EVIDENCE).exists()
        ]
        artifact = artifact_utils.get_single_instance(output_dict[REGISTERED])
        try:
            version = model_registry.register(
                api,
                candidate,
                model_registry.Upload(settings, given["image"], labels, kms_key),
                model_evaluation.read(evidence[0]) if evidence else None,
                self._tell,
            )
            artifact.set_string_custom_property(REGISTERED, version.resource)
            if settings.endpoint:
                endpoint = endpoints.find_or_create(api, settings.endpoint, labels, kms_key, self._tell)
                endpoints.deploy(api, endpoint, version, settings, settings.traffic_percent, self._tell)
                artifact.set_string_custom_property(ENDPOINT, endpoint.name)
        finally:
            _write_requests(api, Path(artifact.uri))

    def _api(self, project: str, region: str) -> Api:
        """The service; tests put their own in its place."""
        target = Target(project, region)
        return Rehearsal(target) if os.environ.get(REHEARSAL) == "1" else Vertex(target)

    def _tell(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201 (the log of the task)


def _readable(uri: str) -> str:
    """The folder where the bucket is mounted, else its URI: not every cluster mounts buckets."""
    mounted = local_path(uri)
    return mounted if Path(mounted).is_dir() else uri


def _write_requests(api: Api, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    calls = [{"method": call.method, "request": call.request} for call in api.calls]
    text = json.dumps({"sent": api.is_live, "calls": calls}, indent=1)
    (folder / REQUESTS).write_text(text + "\n", encoding="utf-8")


class RegistryPusher(base_component.BaseComponent):
    """A pushed version to the Model Registry of Vertex AI, and to an endpoint."""

    SPEC_CLASS = RegistryPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        pushed_model: types.BaseChannel,
        settings: str,
        project: str,
        region: str,
        image: str,
        labels: str,
        source_digest: str,
        kms_key: str | None = None,
        verdict: types.BaseChannel | None = None,
    ) -> None:
        """Describes the step.

        Args:
          pushed_model: what ModelPusher pushed.
          settings: the group `registry` of the environment, as JSON.
          project: Google Cloud project.
          region: of the registry and the endpoint; the bucket has to be there, too.
          image: that serves the version, by digest.
          labels: of the environment, as JSON.
          source_digest: changes with the code that registers; only there to be part of the cache key.
          kms_key: that encrypts what the service keeps.
          verdict: of the model gate, whose figures become the version's evaluation.
        """
        super().__init__(
            RegistryPusherSpec(
                pushed_model=pushed_model,
                verdict=verdict,
                settings=settings,
                project=project,
                region=region,
                image=image,
                kms_key=kms_key,
                labels=labels,
                source_digest=source_digest,
                registered_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )
