"""`headworks report`: the page about a run, written again from what is stored."""

from __future__ import annotations

from pathlib import Path

import click

from cli.runs import output_folder


@click.command("report")
@click.argument("run", default="latest")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; pipeline.yaml by default.")
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; by default report.html beside the run's record.",
)
def report(run: str, config: Path | None, root: Path | None, output: Path | None) -> None:
    """Write the report of RUN, one HTML page that needs no network, and print its path.

    RUN is a run's id, the beginning of one, or `latest`.
    """
    from pipeline.runners import fork_server
    from pipeline.runners.node_process import NodeProcess
    from pipeline.runners.records import load_run
    from pipeline.runners.root_folder import RootFolder

    folder = RootFolder(output_folder(config, root).resolve())
    record = load_run(folder.path, run)
    if output is not None and not output.resolve().parent.is_dir():
        raise click.UsageError(f"--output {output}: there is no folder {output.resolve().parent}")
    fork_server.start()
    child = NodeProcess(folder.log_path(record.run_id, "report"), "report")
    target = None if output is None else str(output.resolve())
    click.echo(child.run("pipeline.summary:write_report", str(folder.path), record.run_id, target).value)
