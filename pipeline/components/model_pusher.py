"""ModelPusher: a TFX component that pushes a blessed model atomically, and fails loudly on one that is not.

TFX's own Pusher copies file by file into the served folder, names versions by the second, and skips silently.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.example_gen import utils as example_gen
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import path_utils

from gates import evidence
from gates.overrides import refusals
from pipeline.components.champion import LABEL, MODEL_ID
from pipeline.components.gate_output import GateVerdict, read_verdicts
from pipeline.container import RUN_ID
from pipeline.git import git_revision
from pipeline.mounts import uri_of
from pipeline.push import DESTINATION, MANIFEST, last_noted, note, push


class NotBlessedError(Exception):
    """The model gate refused the model."""


class ModelPusherSpec(component_spec.ComponentSpec):
    """Parameters, inputs and output of ModelPusher."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "facts": component_spec.ExecutionParameter(type=str),
        "label": component_spec.ExecutionParameter(type=str),
        "folder": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
        "verdict": component_spec.ChannelParameter(type=GateVerdict, optional=True),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel)
    }


class Executor(base_executor.BaseExecutor):
    """Pushes, and leaves the manifest of the pushed version in the artifact."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes a blessed model.

        Raises:
          NotBlessedError: if the model gate refused the model.
          PushError: if it could not be copied; the serving folder is as it was.
        """
        blessing = artifact_utils.get_single_instance(input_dict["model_blessing"])
        if not model_utils.is_model_blessed(blessing):
            raise _refusal(input_dict.get("verdict") or ())
        model = artifact_utils.get_single_instance(input_dict["model"])
        facts = {
            **_facts(exec_properties["facts"]),
            **_data_read(input_dict.get("examples") or ()),
            "run_id": (self._context.pipeline_run_id if self._context else None) or os.environ.get(RUN_ID),
            "threshold": _threshold(input_dict.get("verdict") or ()),
            "git_revision": git_revision(Path(__file__).parent),
            "model": uri_of(model.uri),
        }
        source = Path(path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)))
        artifact = artifact_utils.get_single_instance(output_dict["pushed_model"])
        version, destination = self.push(source, exec_properties, facts, Path(artifact.uri))
        artifact.set_int_custom_property("pushed", 1)
        artifact.set_int_custom_property(MODEL_ID, model.id)
        artifact.set_string_custom_property(LABEL, exec_properties["label"])
        artifact.set_string_custom_property(DESTINATION, destination)
        artifact.set_string_custom_property("pushed_version", str(version))

    def push(
        self, model: Path, exec_properties: Mapping[str, Any], facts: Mapping[str, Any], artifact: Path
    ) -> tuple[int, str]:
        """Pushes to a folder of this machine, with the manifest into the artifact; returns version and place."""
        folder = Path(exec_properties["folder"])
        pushed = push(model, folder, facts, last_noted(artifact.parent, folder))
        note(artifact, pushed)
        shutil.copyfile(pushed.folder / MANIFEST, artifact / MANIFEST)
        return pushed.version, str(pushed.folder)


def _facts(given: str) -> dict[str, Any]:
    """From the file that a local run wrote, or from what a compiled pipeline carries."""
    text = given if given.startswith("{") else Path(given).read_text(encoding="utf-8")
    return dict(json.loads(text))


def _data_read(examples: Sequence[types.Artifact]) -> dict[str, str]:
    """The fingerprint of the rows, where only the run itself knows which it read."""
    if not examples:
        return {}
    return {"data_fingerprint": examples[0].get_string_custom_property(example_gen.FINGERPRINT_PROPERTY_NAME)}


def _refusal(verdicts: Sequence[types.Artifact]) -> NotBlessedError:
    """With what the model gate said as notes, which a log shows: there is no other output where containers run."""
    error = NotBlessedError("ModelGate refused the model, so nothing was pushed")
    for one in verdicts:
        for reason in refusals(read_verdicts(Path(one.uri))):
            error.add_note(reason)
    return error


def _threshold(verdicts: Sequence[types.Artifact]) -> float | None:
    """From which probability on a row counts as the positive class, as the model gate chose it."""
    for verdict in verdicts:
        folder = Path(verdict.uri)
        if (folder / evidence.FILE).exists():
            return evidence.read(evidence.ModelEvidence, folder).threshold
    return None


class ModelPusher(base_component.BaseComponent):
    """A blessed model to the next version of a serving folder."""

    SPEC_CLASS = ModelPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        facts: str,
        label: str,
        folder: str,
        source_digest: str,
        verdict: types.BaseChannel | None = None,
        examples: types.BaseChannel | None = None,
        **more: str | RuntimeParameter,
    ) -> None:
        """Describes the step.

        Args:
          model: the candidate.
          model_blessing: of the last gate.
          facts: path of a JSON file for the version's manifest, whose content is no reason to push again; or the JSON.
          label: what the model predicts, as `pipeline.components.champion` compares it.
          folder: where versions go.
          source_digest: changes with the code that pushes; only there to be part of the cache key.
          verdict: of the model gate, whose threshold the manifest says.
          examples: that were read, where `facts` cannot know them.
          more: parameters of another way to push.
        """
        super().__init__(
            self.SPEC_CLASS(
                model=model,
                model_blessing=model_blessing,
                verdict=verdict,
                examples=examples,
                facts=facts,
                label=label,
                folder=folder,
                source_digest=source_digest,
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
                **more,
            )
        )
