"""`headworks compile`: the pipeline as a job for Vertex AI or Kubeflow, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cloud.compiled_pipeline import Runner
    from pipeline.environment import Place

_SUFFIXES = {"vertex": "json", "kubeflow": "yaml"}
_GIVEN: Mapping[str, tuple[str, ...]] = {"trigger": ("span", "snapshot_time"), "schedule": ("snapshot_time",)}
"""The parameters that each way of starting a job gives a value for."""


@click.command(name="compile")
@click.argument("config_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--env", "environment", default="base", show_default=True, help="Environment to compile for.")
@click.option(
    "--runner",
    type=click.Choice(["vertex", "kubeflow"]),
    default="vertex",
    show_default=True,
    help="Who is to run it: a JSON job for Vertex AI, or YAML for Kubeflow Pipelines.",
)
@click.option("--image", help="Image of all components, by digest, instead of the environment's.")
@click.option(
    "--beam-image", help="Image of Beam's workers, by digest, where the environment has the group beam."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one key of the configuration."
)
@click.option(
    "--started-by",
    type=click.Choice(list(_GIVEN)),
    help="Refuse a job that this could not start: a trigger gives the span, a schedule nothing.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.  [default: NAME.ENV.json|yaml]",
)
def compile(  # noqa: A001 (the name of the command)
    config_file: Path,
    environment: str,
    runner: Runner,
    image: str | None,
    beam_image: str | None,
    overrides: tuple[str, ...],
    started_by: str | None,
    output: Path | None,
) -> None:
    """Compile the pipeline in CONFIG_FILE into one file, offline.

    The file holds everything but the code and the data: schema, SQL, settings, machines, retries. Try it here with
    `headworks rehearse`; submit it with `headworks submit`.
    """
    from cli.library_logs import dropped
    from cloud.compiled_pipeline import as_file, compile_pipeline
    from pipeline import environment as environments
    from pipeline.runners.fork_server import set_environment
    from report.whole_file import write_whole

    set_environment()
    images = (f"image={image}",) if image else ()
    place = environments.load(config_file, environment, images)
    if beam_image and place.settings.beam is not None:
        place = environments.load(config_file, environment, (*images, f"beam.image={beam_image}"))
    with dropped():
        job = compile_pipeline(config_file, place, runner, overrides)
    if started_by is not None:
        _check_start(job, place, started_by)
    path = output or Path(f"{job['displayName']}.{environment}.{_SUFFIXES[runner]}")
    write_whole(path, as_file(job, runner))
    tasks = job["pipelineSpec"]["root"]["dag"]["tasks"]
    click.echo(f"{path}: {len(tasks)} components for {runner}, environment {environment}")
    parameters = job["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
    for name, given in sorted(parameters.items()):
        default = given.get("defaultValue")
        click.echo(f"  parameter {name}: {'required' if default is None else default}")
    needed = [
        name for name, given in sorted(parameters.items()) if "defaultValue" not in given and name != "home"
    ]
    values = "".join(f" --parameter {name}=VALUE" for name in needed)
    click.echo(f"next: headworks rehearse {path} --root FOLDER{values}")


def _check_start(job: Mapping[str, Any], place: Place, started_by: str) -> None:
    """Makes sure that a job needs what it is given, and no more.

    Raises:
      ConfigError: one line a parameter.
    """
    from pipeline.layers import ConfigError

    place.require("root")  # without it a run would have to name its home
    declared = job["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
    has_value = job.get("runtimeConfig", {}).get("parameterValues", {}).keys()
    faults = [
        f"parameter {name}: has no default, and a {started_by} does not give it"
        for name, one in sorted(declared.items())
        if "defaultValue" not in one and name not in has_value and name not in _GIVEN[started_by]
    ]
    if started_by == "trigger" and "span" not in declared:
        faults.append(
            "parameter span: a trigger gives it, and this job does not take it: set data.span in the configuration, or "
            f"below config in {place.layers[-1].path}"
        )
    if faults:
        raise ConfigError("\n".join(faults))
