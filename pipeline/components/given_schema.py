"""GivenSchema: a TFX component that puts out a schema which stands in its parameters.

A compiled pipeline carries the curated schema itself: there is no file that it could import from this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts

FILE = "schema.pbtxt"


class GivenSchemaSpec(component_spec.ComponentSpec):
    """Parameter and output of GivenSchema."""

    PARAMETERS = {"text": component_spec.ExecutionParameter(type=str)}  # noqa: RUF012 (TFX's interface)
    INPUTS: dict[str, component_spec.ChannelParameter] = {}  # noqa: RUF012
    OUTPUTS = {"schema": component_spec.ChannelParameter(type=standard_artifacts.Schema)}  # noqa: RUF012


class Executor(base_executor.BaseExecutor):
    """Writes the schema."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `schema.pbtxt`."""
        folder = Path(artifact_utils.get_single_uri(output_dict["schema"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(exec_properties["text"], encoding="utf-8")


class GivenSchema(base_component.BaseComponent):
    """The curated schema as an artifact."""

    SPEC_CLASS = GivenSchemaSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, text: str) -> None:
        """Describes the step.

        Args:
          text: the schema as protobuf text.
        """
        super().__init__(GivenSchemaSpec(text=text, schema=types.Channel(type=standard_artifacts.Schema)))
