"""`headworks ablate`: what a run's network owes to each of its features, by training without them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.runs import output_folder
from cli.tables import display

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from gates.ablation import Ablation, Contribution
    from pipeline.runners.events import Progress
    from schemas.features import FeatureSet


@click.command("ablate")
@click.argument("run", default="latest")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; pipeline.yaml by default.")
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
@click.option(
    "--group", "groups", multiple=True, metavar="NAME=a,b", help="Features to leave out together; repeatable."
)
@click.option(
    "--features", metavar="a,b", help="Features to leave out one by one; without it and --group all."
)
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Trainings of each network."
)
@click.option(
    "--epochs", type=click.IntRange(1), help="Most epochs of a training; by default those of the run."
)
def ablate(
    run: str,
    config: Path | None,
    root: Path | None,
    groups: Sequence[str],
    features: str | None,
    seeds: int,
    epochs: int | None,
) -> None:
    """Train RUN's network again without each feature, or group, and show what it loses, with intervals.

    RUN is a run's id, the beginning of one, or `latest`. Judged on the validation split; the test split is not read.
    Interrupted, the same command goes on. The run's report shows the figures from its next writing on.
    """
    from cli.ablation import Plan
    from gates.ablation import Ablation
    from pipeline import explanations
    from pipeline.finished_run import find
    from pipeline.runners import fork_server
    from pipeline.runners.node_process import NodeProcess
    from pipeline.runners.records import load_run
    from pipeline.runners.root_folder import RootFolder

    folder = RootFolder(output_folder(config, root).resolve())
    record = load_run(folder.path, run)
    plan = Plan(_groups(find(folder.path, record).features, groups, features), seeds, epochs)
    fork_server.start()
    click.echo(
        f"{plan.trainings} trainings: the whole network and {len(plan.groups)} without some of its features, "
        f"{seeds} seed{'s' if seeds > 1 else ''} each, judged on validation; the test split is not read"
    )
    child = NodeProcess(folder.log_path(record.run_id, "ablate"), "ablate")
    try:
        with _watching() as observe:
            answer = child.run(
                "cli.ablation:study", str(folder.path), record.run_id, plan, on_progress=observe
            )
    except KeyboardInterrupt:
        click.echo("interrupted: what was trained is kept; give the same command to go on", err=True)
        raise
    found: Ablation = answer.value
    display(_table(found))
    click.echo(f"{found.metric} of the whole network: {found.whole:.4f} ({_seeds(found.whole_by_seed)})")
    click.echo(
        f"written: {explanations.path(folder.path, record.run_id, Ablation)}; "
        f"headworks report {record.run_id} shows it"
    )


def _groups(known: FeatureSet, groups: Sequence[str], features: str | None) -> dict[str, tuple[str, ...]]:
    """Features by name of the group; each alone where none is named.

    Raises:
      click.UsageError: for a name that is no feature, a group that holds all, or a name that is given twice.
    """
    every = [feature.name for feature in known]
    chosen = _names(features) if features is not None else () if groups else tuple(every)
    found: dict[str, tuple[str, ...]] = {feature: (feature,) for feature in chosen}
    for group in groups:
        name, is_assigned, listed = group.partition("=")
        if not (name and is_assigned and _names(listed)):
            raise click.UsageError(f"--group {group}: want NAME=feature,feature")
        if name in found:
            raise click.UsageError(f"--group {group}: there is another {name}; choose another name")
        found[name] = _names(listed)
    for name, members in found.items():
        if unknown := [member for member in members if member not in every]:
            raise click.UsageError(f"{', '.join(unknown)}: no such feature; there are {', '.join(every)}")
        if set(members) == set(every):
            raise click.UsageError(
                f"{name}: without all features there is nothing to learn from; leave one in"
            )
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


@contextmanager
def _watching() -> Iterator[Callable[[Progress], None]]:
    """Shows how far the trainings are, and after the first what all will take."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    from cli.ablation import TRAININGS

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began: list[float] = []
    with Bar(*columns, TimeRemainingColumn(), console=console) as bar:
        trainings = bar.add_task(TRAININGS, total=None)
        steps = bar.add_task("  this one", total=None)

        def observe(progress: Progress) -> None:
            if progress.unit != TRAININGS:
                began.append(time.monotonic())
                bar.update(steps, completed=progress.done, total=progress.total)
                return
            if progress.done == 1 and progress.total is not None and began:
                # One that an earlier call has trained takes no steps.
                seconds = time.monotonic() - began[0]
                console.print(
                    f"the first took {seconds:.0f} s: about {_duration(seconds * progress.total)} for all"
                )
            bar.update(trainings, completed=progress.done, total=progress.total)

        yield observe


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _table(found: Ablation) -> Table:
    from rich.table import Table

    table = Table("left out", box=None, pad_edge=False)
    heads = (f"{found.metric} without", "gain with it", f"{found.level:.0%} interval", "seeds")
    for head in heads:
        table.add_column(head, justify="right")
    table.add_column("")
    for one in found.contributions:
        table.add_row(
            _name(one),
            f"{one.without:.4f}",
            f"{one.gain:+.4f}",
            f"{one.low:+.4f} to {one.high:+.4f}",
            _seeds(one.by_seed, "+"),
            _verdict(one),
        )
    return table


def _name(one: Contribution) -> str:
    return one.name if one.features == (one.name,) else f"{one.name} ({', '.join(one.features)})"


def _seeds(values: Sequence[float], sign: str = "") -> str:
    return f"{min(values):{sign}.4f} to {max(values):{sign}.4f}"


def _verdict(one: Contribution) -> str:
    verdicts: Mapping[bool, str] = {True: "helps", False: "does harm"}
    return verdicts[one.gain > 0] if one.is_sure else "no difference seen"
