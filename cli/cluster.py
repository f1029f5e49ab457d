"""`headworks cluster`: a command as every task of a TensorFlow cluster on this machine."""

from __future__ import annotations

import click


@click.command("cluster", context_settings={"ignore_unknown_options": True})
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option(
    "--ps",
    type=click.IntRange(0, 64),
    default=0,
    show_default=True,
    help="Parameter servers; with one or more there is also a chief, which coordinates.",
)
@click.option(
    "--restarts",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="How often tasks that were killed are started again.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def cluster(workers: int, ps: int, restarts: int, command: tuple[str, ...]) -> None:
    """Run COMMAND once for each task, each with its own TF_CONFIG.

    For example: headworks cluster --workers 2 --ps 1 -- python train.py

    Every line that a task prints is shown with the task's name. The end of one is the end of all: when the work is
    done, when a task fails, and on Ctrl-C.
    """
    from rich.console import Console

    from models.cluster import Shape, run

    console = Console(highlight=False, soft_wrap=True)
    colours = ("cyan", "green", "magenta", "yellow", "blue")
    names: dict[str, str] = {}

    def show(task: str, line: str) -> None:
        colour = names.setdefault(task, colours[len(names) % len(colours)])
        console.print(f"[{colour}]{task}[/]", end=" | ")
        console.print(line, markup=False)

    used = run(command, Shape(workers, ps), show, restarts=restarts)
    tasks = len(Shape(workers, ps).tasks)
    click.echo(f"done: {tasks} tasks, {used} restarts")
