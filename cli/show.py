"""`headworks show`: one run, node by node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from cli.runs import output_folder
from cli.tables import display


@click.command("show")
@click.argument("run", default="latest")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; pipeline.yaml by default.")
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
def show(run: str, config: Path | None, root: Path | None) -> None:
    """Show RUN: its nodes with states, seconds and outputs, its metrics, and what the gates refused.

    RUN is a run's id, the beginning of one, or `latest`.
    """
    from rich.table import Table

    from pipeline.runners.records import load_run

    folder = output_folder(config, root)
    record = load_run(folder, run)
    click.echo(f"{record.pipeline_name} {record.run_id}: {record.state.value}")
    click.echo(f"  started {record.started_at}, ended {record.ended_at or 'not yet'}")
    click.echo(
        f"  revision {record.git_revision or 'unknown'}, "
        f"configuration {(record.config_hash or 'unknown')[:12]}"
    )
    if record.error:
        click.echo(f"  error {record.error}")
    table = Table("node", "state", "seconds", "MB", box=None, pad_edge=False)
    table.add_column("outputs", overflow="fold")
    for node in record.nodes.values():
        memory = f"{node.peak_rss_bytes / 1e6:.0f}" if node.peak_rss_bytes else ""
        outputs = "\n".join(f"{output.key}: {output.uri}" for output in node.outputs)
        table.add_row(
            node.node_id, node.state.value.replace("_", " "), f"{node.seconds:.1f}", memory, outputs
        )
    display(table)
    for line in _outcome(folder, record.run_id):
        click.echo(line)
    for node in record.nodes.values():
        if node.error:
            click.echo(f"{node.node_id}: {node.error}")
    if record.failed_nodes:
        click.echo(f"logs: {folder / 'runs' / record.run_id}")


def _outcome(folder: Path, run_id: str) -> Iterator[str]:
    """Yield metrics, refusals, and where report and model are, of a run that came to its end."""
    from cli.outcome import decisions, figures
    from pipeline.summary_file import read_summary

    summary = read_summary(folder, run_id)
    if summary is None:
        return
    yield from figures(summary)
    yield from decisions(summary)
    if summary.report:
        yield f"report: {summary.report}"
    if summary.pushed:
        yield f"pushed: {summary.pushed}"
    if summary.devices:
        yield f"device models: {summary.devices}"
