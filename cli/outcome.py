"""What a run came to, as `run` and `show` print it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gates.settings import Override
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


def idle(overrides: Sequence[Override], summary: Summary) -> Iterator[str]:
    """Yield the overrides that let nothing pass: they have run out, or name no check that refused."""
    today = datetime.now(UTC).date().isoformat()
    for override in overrides:
        whose = f"override of {override.check!r} by {override.owner}"
        if override.until is not None and override.until < today:
            yield f"note: the {whose} ran out on {override.until}"
        elif not any(
            f"let pass by {override.owner}: {override.reason}" in words for words in summary.overridden
        ):
            yield f"note: the {whose} was not needed: no check of that name refused; take it out of the configuration"
