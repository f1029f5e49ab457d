import io
import re

from rich.console import Console

from pipeline.runners import progress
from pipeline.runners.events import NodePlan, NodeResult, NodeState, Observer, Progress


def play(observer: Observer) -> None:
    observer.run_preparing("20260101T120000-ab12")
    observer.run_started(
        "20260101T120000-ab12", [NodePlan("Gen", "t", (), 100.0), NodePlan("Train", "t", ("Gen",))]
    )
    observer.node_started("Gen", 1)
    observer.node_progressed("Gen", Progress(1_000, 2_000, "rows"))
    observer.node_finished(NodeResult("Gen", NodeState.SUCCEEDED, 12.34, 1, peak_rss_bytes=812_000_000))
    observer.node_started("Train", 1)
    observer.node_started("Train", 2)
    observer.node_finished(NodeResult("Train", NodeState.FAILED, 1.0, 2, error="ValueError: [no] label"))


def test_outside_a_terminal_each_finished_node_is_one_plain_line() -> None:
    console = Console(file=io.StringIO(), width=40)
    with progress.watching(console) as observer:
        play(observer)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "Gen  succeeded  12.3 s  812 MB",
        "Train  failed  1.0 s  2 attempts  ValueError: [no] label",
    ]


def test_on_a_terminal_each_node_has_a_line_that_ends_with_its_state() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with progress.watching(console) as observer:
        play(observer)
    screen = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"Gen +succeeded +1,000/2,000 rows", screen)
    assert re.search(r"Train +failed +ValueError: \[no\] label", screen)


def test_time_left_comes_from_the_last_run_until_the_node_reports() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    observer = progress.LiveObserver(console)
    observer.run_started("id", [NodePlan("Gen", "t", (), 100.0)])
    observer.node_started("Gen", 1)
    with console.capture() as shown:
        console.print(observer.display.get_renderable())
    assert "~0:01:40 left" in shown.get()
