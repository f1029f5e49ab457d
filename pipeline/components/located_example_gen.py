"""LocatedExampleGen: QueryExampleGen of a compiled pipeline, which finds its files where it runs.

A local run plans first: its component is told which files to read. A compiled pipeline carries the configuration, the
SQL and the schema instead, and plans in its container, so that one specification reads every span.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs

from ingest.plan import fingerprint
from pipeline import data_plan
from pipeline.components.query_example_gen import write
from pipeline.config import ConfigError, Project, QuerySource, load
from pipeline.mounts import is_remote, require_mounted

AS_CONFIGURED = -1
"""The parameter `span` where the configuration says which spans to read."""

_EXAMPLES = standard_component_specs.EXAMPLES_KEY
_CONFIG, _SQL, _SCHEMA = "pipeline.yaml", "query.sql", "schema.pbtxt"


class LocatedExampleGenSpec(component_spec.ComponentSpec):
    """Parameters and output of LocatedExampleGen."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "source": component_spec.ExecutionParameter(type=str),
        "span": component_spec.ExecutionParameter(type=int, optional=True),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}  # noqa: RUF012
    OUTPUTS = {_EXAMPLES: component_spec.ChannelParameter(type=standard_artifacts.Examples)}  # noqa: RUF012


class Executor(base_executor.BaseExecutor):
    """Plans, and does what QueryExampleGen does."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the three splits into the output artifact.

        Raises:
          ConfigError, DataError: if the data, the SQL or the split is at fault.
          MountError: if a table lies in a bucket that is not mounted here.
        """
        span = exec_properties.get("span")
        overrides = [] if span in (None, AS_CONFIGURED) else [f"data.span.last={span}"]
        with tempfile.TemporaryDirectory(prefix="headworks-source-") as folder:
            plan = data_plan.plan(_unpacked(exec_properties["source"], Path(folder), overrides))
            examples = artifact_utils.get_single_instance(output_dict[_EXAMPLES])
            write(plan, fingerprint(plan), examples)


class LocatedExampleGen(base_component.BaseComponent):
    """SQL over files that are found at run time, to `examples` with the splits train, validation and test."""

    SPEC_CLASS = LocatedExampleGenSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, source: str, span: int | RuntimeParameter | None, source_digest: str) -> None:
        """Describes the step.

        Args:
          source: what `packed` made of the configuration.
          span: the newest span to read; AS_CONFIGURED or None: as the configuration says.
          source_digest: changes with the code that reads and writes.
        """
        super().__init__(
            LocatedExampleGenSpec(
                source=source,
                span=span,
                source_digest=source_digest,
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


def packed(project: Project) -> str:
    """All that planning needs of a project, as JSON.

    Raises:
      ConfigError: if a table is a file of this machine, which a container would not find.
    """
    source = project.config.data.source
    assert isinstance(source, QuerySource), "chosen by its kind"
    for name, location in source.tables.items():
        if not is_remote(location) and not location.startswith(("package://", "/")):
            key = f"data.source.tables.{name}"
            raise ConfigError(
                f"{key}: {location} is beside the configuration on this machine, where no container finds it: name a "
                f"gs:// location, an absolute path in the image, or package:// ({project.place(key)})"
            )
    data = project.values()["data"]
    sql, _ = data_plan.query_text(project, source)
    return json.dumps(
        {
            "name": project.config.name,
            "tables": data["source"]["tables"],
            "null_values": data["source"]["null_values"],
            "sql": sql,
            "split": data["split"],
            "span": data["span"],
            "label": project.config.label.column,
            "schema": project.schema_file.read_text(encoding="utf-8"),
        },
        sort_keys=True,
    )


def _unpacked(text: str, folder: Path, overrides: list[str]) -> Project:
    given = json.loads(text)
    (folder / _SQL).write_text(given["sql"], encoding="utf-8")
    (folder / _SCHEMA).write_text(given["schema"], encoding="utf-8")
    config = {
        "name": given["name"],
        "data": {
            "source": {
                "kind": "query",
                "sql": _SQL,
                "tables": {name: require_mounted(location) for name, location in given["tables"].items()},
                "null_values": given["null_values"],
            },
            "split": given["split"],
            **({"span": given["span"]} if given["span"] else {}),
        },
        "label": {"column": given["label"]},
        "schema": _SCHEMA,
    }
    # YAML reads JSON.
    (folder / _CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    return load(folder / _CONFIG, overrides)
