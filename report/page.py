"""One self-contained HTML page about a run, from plain data: no artifact is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gates.verdict import Verdict


@dataclass(frozen=True)
class Step:
    """One component of the run; `seconds` is its wall time, `peak_bytes` its largest resident memory."""

    name: str
    state: str
    seconds: float
    peak_bytes: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class SliceRow:
    """Metrics of one slice of the test split; `champion` holds the same metrics of the champion, if there is one."""

    name: str
    metrics: Mapping[str, float]
    champion: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split: metric names to values."""

    number: int
    metrics: Mapping[str, float]
    is_kept: bool = False


@dataclass(frozen=True)
class Page:
    """All that the page shows. Times are UTC, ISO 8601."""

    pipeline: str
    run_id: str
    state: str
    started_at: str
    ended_at: str | None
    steps: tuple[Step, ...]
    verdicts: tuple[Verdict, ...] = ()
    slices: tuple[SliceRow, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    pushed: str | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of all metrics, the overall slice's first."""
        return tuple(dict.fromkeys(name for row in self.slices for name in row.metrics))

    @property
    def epoch_metric_names(self) -> tuple[str, ...]:
        """Names of all metrics of the training history."""
        return tuple(dict.fromkeys(name for epoch in self.epochs for name in epoch.metrics))


def render(page: Page) -> str:
    """The page as HTML, with everything it needs inside it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment.get_template("page.html").render(page=page)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 2 else f"{value:.4f}"
