"""`headworks show`: one run, node by node."""

from __future__ import annotations

from pathlib import Path

import click

from cli.runs import output_folder


@click.command("show")
@click.argument("run", default="latest")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; pipeline.yaml by default.")
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
def show(run: str, config: Path | None, root: Path | None) -> None:
    """Show RUN: its nodes, their states, seconds, errors and outputs.

    RUN is a run's id, the beginning of one, or `latest`.
    """
    from rich.console import Console
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
    table = Table("node", "state", "seconds", "MB", "outputs", box=None, pad_edge=False)
    for node in record.nodes.values():
        memory = f"{node.peak_rss_bytes / 1e6:.0f}" if node.peak_rss_bytes else ""
        outputs = "\n".join(f"{output.key}: {output.uri}" for output in node.outputs)
        table.add_row(
            node.node_id, node.state.value.replace("_", " "), f"{node.seconds:.1f}", memory, outputs
        )
    Console(soft_wrap=True).print(table, markup=False)
    for node in record.nodes.values():
        if node.error:
            click.echo(f"{node.node_id}: {node.error}")
    if record.failed_nodes:
        click.echo(f"logs: {folder / 'runs' / record.run_id}")
