"""What a run came to, as `run` and `show` print it."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.summary_file import Summary


def figures(summary: Summary) -> Iterator[str]:
    """Yield one line a metric; counts are whole numbers."""
    for name, value in summary.metrics.items():
        is_count = float(value).is_integer() and abs(value) >= 2
        yield f"  {name:<28} {f'{value:,.0f}' if is_count else f'{value:.4f}'}"


def decisions(summary: Summary) -> Iterator[str]:
    """Yield what the gates warned of, what somebody answers for, and what they refused."""
    yield from (f"warned: {words}" for words in summary.warnings)
    yield from (f"overridden: {words}" for words in summary.overridden)
    yield from (f"refused: {words}" for words in summary.refusals)
