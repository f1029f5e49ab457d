"""One self-contained HTML page about a run, from plain data: no artifact is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gates.ablation import Ablation
from gates.evidence import DataEvidence, DeviceEvidence, ModelEvidence, Residuals, ServingEvidence
from gates.verdict import Verdict
from report.tuning import Search

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Step:
    """One component of the run; `seconds` is its wall time, `peak_bytes` its largest resident memory."""

    name: str
    state: str
    seconds: float
    peak_bytes: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Gate:
    """What one gate said: a component and its verdicts."""

    name: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Histogram:
    """How numbers are spread.

    Attributes:
      edges: of the bins, ascending.
      shares: of the values in each bin, by split; one fewer than edges.
      is_open_below: whether the first bin also holds everything below it.
      is_open_above: whether the last bin also holds everything above it.
      is_whole: whether each bin holds one whole number, which lies in its middle.
    """

    edges: tuple[float, ...]
    shares: Mapping[str, tuple[float, ...]]
    is_open_below: bool = False
    is_open_above: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class TopValues:
    """The most frequent values of a column of words, and the share of each, by split."""

    values: tuple[str, ...]
    shares: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Anomaly:
    """Something that the validator found, in plain words."""

    split: str
    text: str


@dataclass(frozen=True)
class Column:
    """One column of the data.

    Attributes:
      name: of the column.
      distribution: None where it has no values, or none that can be drawn.
      missing: share of rows without a value, by split.
      figures: what else is known, such as the mean, by split.
      anomalies: what the validator found.
    """

    name: str
    distribution: Histogram | TopValues | None
    missing: Mapping[str, float]
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    anomalies: tuple[Anomaly, ...] = ()


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split: metric names to values."""

    number: int
    metrics: Mapping[str, float]
    is_kept: bool = False


@dataclass(frozen=True)
class SliceRow:
    """Metrics of one slice of the test split; `champion` holds the same metrics of the champion, if there is one."""

    name: str
    metrics: Mapping[str, float]
    champion: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactUse:
    """An artifact that the run made or reused; `place` is relative to the output folder where it lies in it."""

    node: str
    key: str
    number: int
    type_name: str
    place: str
    size_bytes: int


@dataclass(frozen=True)
class Page:
    """All that the page shows. Times are UTC, ISO 8601; what a run did not come to is empty or None.

    Attributes:
      pipeline: its name.
      run_id: of the run.
      state: of the run.
      started_at: when.
      ended_at: when; None for a run that was killed or goes on.
      steps: in the order in which they ended.
      gates: those that judged.
      rows: by split.
      columns: of the data.
      data: what the data gate measured.
      search: for hyperparameters, where there was one.
      epochs: of the training.
      began: what is known of the training besides: where it ran, with what weights it began, what was checked before.
      slices: the Evaluator's own metrics, all rows first.
      model: what the model gate measured.
      serving: what the serving check measured.
      devices: the device models of the pushed version.
      residuals: where the model is wrong on average; measured by the model gate, or later by a command.
      ablation: what the network loses when it is trained without features, where a command measured it.
      facts: where the model comes from, by name.
      artifacts: made or reused.
      pushed: folder of the pushed version.
      devices_pushed: folder of the pushed device models.
      notes: what should be here and could not be read.
    """

    pipeline: str
    run_id: str
    state: str
    started_at: str
    ended_at: str | None
    steps: tuple[Step, ...]
    gates: tuple[Gate, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    data: DataEvidence | None = None
    search: Search | None = None
    epochs: tuple[Epoch, ...] = ()
    began: tuple[str, ...] = ()
    slices: tuple[SliceRow, ...] = ()
    model: ModelEvidence | None = None
    serving: ServingEvidence | None = None
    devices: DeviceEvidence | None = None
    residuals: Residuals | None = None
    ablation: Ablation | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[ArtifactUse, ...] = ()
    pushed: str | None = None
    devices_pushed: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of all metrics, the overall slice's first."""
        return tuple(dict.fromkeys(name for row in self.slices for name in row.metrics))

    @property
    def epoch_metric_names(self) -> tuple[str, ...]:
        """Names of all metrics of the training history."""
        return tuple(dict.fromkeys(name for epoch in self.epochs for name in epoch.metrics))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that the data overview knows."""
        return tuple(dict.fromkeys(split for column in self.columns for split in column.missing))


def render(page: Page) -> str:
    """The page as HTML, with everything it needs inside it."""
    from report import selection, wording
    from report.plots import Plots

    return (
        environment()
        .get_template("page.html")
        .render(page=page, outcome=wording.outcome(page), plots=Plots(), selection=selection)
    )


def environment() -> Environment:
    """What all pages are written with: the templates of this room and the filters for figures."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from report import wording

    made = Environment(
        loader=PackageLoader("report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        figure=wording.figure,
        percent=wording.percent,
        bytes=wording.bytes_,
        seconds=wording.seconds,
        signed=wording.signed,
        setting=wording.setting,
        moment=wording.moment,
    )
    return made
