"""`headworks runs`: the runs made so far."""

from __future__ import annotations

from pathlib import Path

import click

LATEST = 20


@click.command("runs")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
@click.option("--all", "show_all", is_flag=True, help=f"All runs, not the latest {LATEST} only.")
def runs(config: Path | None, root: Path | None, show_all: bool) -> None:
    """List the runs of CONFIG (pipeline.yaml by default), the newest first."""
    from rich.console import Console
    from rich.table import Table

    from pipeline.runners.records import load_runs

    folder = output_folder(config, root)
    found = load_runs(folder)[::-1]
    if not found:
        click.echo(f"no runs in {folder} yet; make one with: headworks run")
        return
    table = Table("run", "state", "started", "seconds", "failed in", box=None, pad_edge=False)
    for record in found if show_all else found[:LATEST]:
        failed = ", ".join(node.node_id for node in record.failed_nodes)
        table.add_row(
            record.run_id,
            record.state.value,
            record.started_at,
            _seconds(record.started_at, record.ended_at),
            failed,
        )
    Console(soft_wrap=True).print(table, markup=False)


def output_folder(config: Path | None, root: Path | None) -> Path:
    """Return the folder of a pipeline's runs: the one given, or the one that the configuration names."""
    if root is not None and config is not None:
        raise click.UsageError("give a configuration or --root, not both")
    if root is not None:
        return root
    from pipeline.config import load

    return load(config or Path("pipeline.yaml")).root


def _seconds(started_at: str, ended_at: str | None) -> str:
    from datetime import datetime

    if ended_at is None:
        return ""
    return f"{(datetime.fromisoformat(ended_at) - datetime.fromisoformat(started_at)).total_seconds():.0f}"
