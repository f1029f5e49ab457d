"""`headworks`: sub-commands by name, loaded when called, and what a user sees of an expected error."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

# Sub-command to module; the module holds a click command of the same name.
COMMANDS: Mapping[str, str] = {
    "init": "cli.init",
    "check": "cli.check",
    "run": "cli.run",
    "runs": "cli.runs",
    "show": "cli.show",
    "report": "cli.report",
    "residuals": "cli.residuals",
    "ablate": "cli.ablate",
    "profile": "cli.profile",
    "compare": "cli.compare",
    "predict": "cli.predict",
    "table": "cli.table",
    "stream": "cli.stream",
    "tflite": "cli.tflite",
    "lineage": "cli.lineage",
    "schema": "cli.schema",
    "compile": "cli.compile",
    "rehearse": "cli.rehearse",
    "submit": "cli.submit",
    "schedule": "cli.schedule",
    "status": "cli.status",
    "registry": "cli.registry",
    "cluster": "cli.cluster",
    "doctor": "cli.doctor",
}

# Module and name of each error that the user can mend. By name, so that `--help` loads none
# of them: an error can only have been raised by a module that is loaded.
EXPECTED_ERRORS = (
    ("pipeline.config", "ConfigError"),
    ("schemas.features", "SchemaError"),
    ("ingest.errors", "DataError"),
    ("pipeline.runners.root_folder", "RootFolderError"),
    ("pipeline.runners.root_folder", "PipelineBusyError"),
    ("pipeline.first_schema", "NoSchemaError"),
    ("pipeline.runners.local", "PipelineBuildError"),
    ("pipeline.runners.pipeline_spec", "SpecError"),
    ("pipeline.runners.records", "RunRecordError"),
    ("pipeline.runners.node_process", "ChildFailedError"),
    ("pipeline.metadata_rows", "MetadataReadError"),
    ("pipeline.origins", "OriginError"),
    ("pipeline.finished_run", "FinishedRunError"),
    ("pipeline.lineage", "LineageError"),
    ("pipeline.comparison", "ComparisonError"),
    ("cloud.experiments", "ExperimentError"),
    ("schemas.curation", "CurationError"),
    ("models.cluster", "ClusterError"),
    ("cloud.api_errors", "CloudError"),
    ("beam_jobs.rows", "PredictionError"),
    ("tflite.model_file", "ModelFileError"),
)


class LazyGroup(click.Group):
    """Imports a sub-command when it is called and prints expected errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one sub-command, or None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command; an error that the user can mend becomes lines on stderr and exit code 1."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not isinstance(error, expected_errors()):
                raise
            for line in str(error).splitlines():
                click.echo(f"error: {line}", err=True)
            ctx.exit(1)


def expected_errors() -> tuple[type[Exception], ...]:
    """Return those of the expected errors whose modules are loaded."""
    return tuple(
        getattr(sys.modules[module], name) for module, name in EXPECTED_ERRORS if module in sys.modules
    )


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="headworks", prog_name="headworks")
def main() -> None:
    """Gated, explained, reversible TFX pipelines."""


if __name__ == "__main__":
    main()
