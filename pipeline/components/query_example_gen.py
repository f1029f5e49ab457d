"""QueryExampleGen: a TFX component that turns the result of an SQL query over files into Examples.

TFX's cache key is made of a component's execution properties, so they hold only what decides the result.
Where the files lie and how the SQL is laid out do not: the plan that says so is a file, named after the
fingerprint of the content (`ingest.plan.save`), and its path is the property. Moving a table or editing a
comment therefore hits the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.example_gen import utils as example_gen
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs

from ingest.errors import DataError
from ingest.examples import write_examples
from ingest.plan import Plan, fingerprint, load
from ingest.splits import SPLITS

_PLAN = "plan"
_FINGERPRINT = "fingerprint"
_SOURCE_DIGEST = "source_digest"
_EXAMPLES = standard_component_specs.EXAMPLES_KEY


class QueryExampleGenSpec(component_spec.ComponentSpec):
    """Parameters and output of QueryExampleGen."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        _PLAN: component_spec.ExecutionParameter(type=str),
        _FINGERPRINT: component_spec.ExecutionParameter(type=str),
        _SOURCE_DIGEST: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}  # noqa: RUF012
    OUTPUTS = {_EXAMPLES: component_spec.ChannelParameter(type=standard_artifacts.Examples)}  # noqa: RUF012


class Executor(base_executor.BaseExecutor):
    """Runs a plan and describes the result as the stock ExampleGens do."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the three splits into the output artifact.

        Raises:
          DataError: if the data, the SQL or the split is at fault, or the files changed since the run was
            planned.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        plan = load(Path(exec_properties[_PLAN]))
        if fingerprint(plan) != exec_properties[_FINGERPRINT]:
            files = ", ".join(str(path) for table in plan.tables for path in table.paths)
            raise DataError(f"the data changed while the run was under way ({files}); run again")
        write(plan, exec_properties[_FINGERPRINT], artifact_utils.get_single_instance(output_dict[_EXAMPLES]))


def write(plan: Plan, fingerprint: str, examples: types.Artifact) -> None:
    """Writes the rows of a plan into an artifact, and what the stock ExampleGens say of theirs.

    Raises:
      DataError: if the data, the SQL or the split is at fault.
    """
    write_examples(plan, Path(examples.uri))
    span = 0 if plan.spans is None else plan.spans.last
    examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
    examples.span, examples.version = span, 0
    # Span resolvers and downstream components look among the custom properties.
    examples.set_int_custom_property(example_gen.SPAN_PROPERTY_NAME, span)
    examples.set_string_custom_property(example_gen.FINGERPRINT_PROPERTY_NAME, fingerprint)
    examples.set_string_custom_property(example_gen.PAYLOAD_FORMAT_PROPERTY_NAME, "FORMAT_TF_EXAMPLE")
    examples_utils.set_file_format(examples, "tfrecords_gzip")


class QueryExampleGen(base_component.BaseComponent):
    """SQL over CSV and Parquet files to `examples` with the splits train, validation and test."""

    SPEC_CLASS = QueryExampleGenSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, plan: str, fingerprint: str, source_digest: str) -> None:
        """Describes the step; reads nothing.

        Args:
          plan: path of the plan, as `ingest.plan.save` returned it.
          fingerprint: of the plan's content, as `ingest.plan.fingerprint` returned it.
          source_digest: changes with the code that reads and writes; only there to be part of the cache key.
        """
        super().__init__(
            QueryExampleGenSpec(
                plan=plan,
                fingerprint=fingerprint,
                source_digest=source_digest,
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )
