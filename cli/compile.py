"""`headworks compile`: the pipeline as a job for Vertex AI or Kubeflow, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloud.compiled_pipeline import Runner

_SUFFIXES = {"vertex": "json", "kubeflow": "yaml"}


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
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one key of the configuration."
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
    overrides: tuple[str, ...],
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
    place = environments.load(config_file, environment, (f"image={image}",) if image else ())
    with dropped():
        job = compile_pipeline(config_file, place, runner, overrides)
    path = output or Path(f"{job['displayName']}.{environment}.{_SUFFIXES[runner]}")
    write_whole(path, as_file(job, runner))
    tasks = job["pipelineSpec"]["root"]["dag"]["tasks"]
    click.echo(f"{path}: {len(tasks)} components for {runner}, environment {environment}")
    parameters = job["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
    for name, given in sorted(parameters.items()):
        default = given.get("defaultValue")
        click.echo(f"  parameter {name}: {'required' if default is None else default}")
    click.echo(f"next: headworks rehearse {path} --root FOLDER")
