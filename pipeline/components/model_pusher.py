"""ModelPusher: a TFX component that pushes a blessed model atomically, and fails loudly on one that is not.

TFX's own Pusher copies file by file into the served folder, names versions by the second, and skips silently.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import path_utils

from pipeline.push import MANIFEST, push
from pipeline.runners.records import git_revision

_FOLDER = "folder"
"""The file of the artifact that holds the path of the pushed version."""


class NotBlessedError(Exception):
    """The model gate refused the model."""


class ModelPusherSpec(component_spec.ComponentSpec):
    """Parameters, inputs and output of ModelPusher."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "manifest": component_spec.ExecutionParameter(type=str),
        "folder": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
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
            raise NotBlessedError("the model was refused, so nothing was pushed")
        model = artifact_utils.get_single_instance(input_dict["model"])
        facts = {
            **json.loads(exec_properties["manifest"]),
            "git_revision": git_revision(Path(__file__).parent),
            "model": model.uri,
        }
        source = Path(path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)))
        folder = Path(exec_properties["folder"])
        artifact = artifact_utils.get_single_instance(output_dict["pushed_model"])
        pushed = push(source, folder, facts, _last_pushed(Path(artifact.uri).parent, folder))
        artifact.set_int_custom_property("pushed", 1)
        artifact.set_string_custom_property("pushed_destination", str(pushed.folder))
        artifact.set_string_custom_property("pushed_version", str(pushed.version))
        Path(artifact.uri).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pushed.folder / MANIFEST, Path(artifact.uri) / MANIFEST)
        (Path(artifact.uri) / _FOLDER).write_text(str(pushed.folder), encoding="utf-8")


def _last_pushed(artifacts: Path, folder: Path) -> int:
    """The last version that this pipeline pushed into a folder, even if all of the folder was deleted since."""
    pushed = (Path(path.read_text(encoding="utf-8")) for path in artifacts.glob(f"*/{_FOLDER}"))
    return max((int(version.name) for version in pushed if version.parent == folder), default=0)


class ModelPusher(base_component.BaseComponent):
    """A blessed model to the next version of a serving folder."""

    SPEC_CLASS = ModelPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        manifest: str,
        folder: str,
        source_digest: str,
    ) -> None:
        """Describes the step; `manifest` holds facts for the version's manifest, as JSON."""
        super().__init__(
            ModelPusherSpec(
                model=model,
                model_blessing=model_blessing,
                manifest=manifest,
                folder=folder,
                source_digest=source_digest,
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )
