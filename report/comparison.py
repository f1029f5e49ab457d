"""Several runs side by side, as one self-contained HTML page from plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gates.evidence import Estimate
from report.page import Epoch
from report.wording import bytes_, figure, seconds

ABSENT = "–"
"""What stands where a run has no such setting or no such figure; a setting that is null is not set either."""

_FIRST_METRICS = ("val_auc", "val_loss")


@dataclass(frozen=True)
class Training:
    """What the Trainer wrote down.

    Attributes:
      epochs: with their metrics, the kept one marked.
      monitor: metric that chose the kept epoch.
      seconds: wall time of the fit; of the run that trained, where this one took its model from the cache.
      parameters: number of weights.
      epoch_rows: rows of one epoch.
      is_cached: whether an earlier run trained.
    """

    epochs: tuple[Epoch, ...]
    monitor: str
    seconds: float
    parameters: int
    epoch_rows: int
    is_cached: bool = False

    @property
    def kept(self) -> str:
        """Which epoch was kept and what its monitored metric was, in words."""
        chosen = next((epoch for epoch in self.epochs if epoch.is_kept), None)
        if chosen is None:
            return ABSENT
        value = figure(chosen.metrics.get(self.monitor))
        return f"{chosen.number} of {len(self.epochs)}, {self.monitor} {value}".rstrip()


@dataclass(frozen=True)
class ComparedRun:
    """One run; what it did not come to is None or empty.

    Attributes:
      run_id: of the run.
      folder: of its record, `OUTPUT/runs/ID`.
      pipeline: its name.
      started_at: UTC, ISO 8601.
      state: of the run.
      outcome: what came of it, in one sentence.
      parameters: settings that the run used, by dotted name, as far as they were kept; None where none were.
      label: column that it predicts.
      rows: by split.
      spans: first and last; None where the data has no spans.
      fingerprint: of the data.
      estimates: of the model on all rows of the test split, with intervals.
      metrics: of the Evaluator, on all rows of the test split.
      training: what the Trainer wrote down.
      model_bytes: size of the exported model.
      model: folder of the exported model; the same one in runs that took it from the cache.
      logs: folder of TensorBoard's logs.
      notes: what should be here and could not be read.
    """

    run_id: str
    folder: str
    pipeline: str
    started_at: str
    state: str
    outcome: str
    parameters: Mapping[str, Any] | None = None
    label: str | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    spans: tuple[int, int] | None = None
    fingerprint: str | None = None
    estimates: tuple[Estimate, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    training: Training | None = None
    model_bytes: int | None = None
    model: str | None = None
    logs: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """A metric after an epoch; `place` is the epoch's number, or the rows seen by its end."""

    place: int
    value: float
    is_kept: bool


@dataclass(frozen=True)
class Row:
    """One line of a table: a name, and the text of each run in the order of the runs."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
      runs: in the order in which they were asked for.
      cautions: why figures of these runs do not compare, one sentence each.
    """

    runs: tuple[ComparedRun, ...]
    cautions: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[Row, ...]:
        """Settings that differ between the runs that kept them."""
        rows = (Row(name, self._values(name)) for name in self._parameter_names())
        return tuple(row for row in rows if len(self._known(row)) > 1)

    @property
    def unchanged(self) -> int:
        """How many settings are the same in all runs."""
        return len(self._parameter_names()) - len(self.parameters)

    @property
    def outcomes(self) -> tuple[Row, ...]:
        """When the runs were, and what came of them."""
        return (
            Row("started", tuple(run.started_at[:19].replace("T", " ") for run in self.runs)),
            Row("state", tuple(run.state for run in self.runs)),
            Row("outcome", tuple(run.outcome for run in self.runs)),
        )

    @property
    def data(self) -> tuple[Row, ...]:
        """Rows of each split, spans and fingerprint."""
        splits = dict.fromkeys(split for run in self.runs for split in run.rows)
        counts = tuple(
            Row(f"rows {split}", tuple(_count(run.rows.get(split)) for run in self.runs)) for split in splits
        )
        spans = Row("spans", tuple(_spans(run.spans) for run in self.runs))
        prints = Row("fingerprint", tuple((run.fingerprint or ABSENT)[:12] for run in self.runs))
        return (*counts, *([spans] if any(run.spans for run in self.runs) else []), prints)

    @property
    def metrics(self) -> tuple[Row, ...]:
        """Metrics on the test split: with an interval where the model gate has one, else as TFMA measured it."""
        estimated = [{estimate.metric: estimate for estimate in run.estimates} for run in self.runs]
        names = dict.fromkeys(
            (*(name for of in estimated for name in of), *(name for run in self.runs for name in run.metrics))
        )
        return tuple(
            Row(
                name,
                tuple(
                    _estimate(of[name]) if name in of else figure(run.metrics.get(name)) or ABSENT
                    for of, run in zip(estimated, self.runs, strict=True)
                ),
            )
            for name in names
        )

    @property
    def training(self) -> tuple[Row, ...]:
        """How long the training took, what it kept, and how large the model is."""
        trained = [run.training for run in self.runs]
        return (
            Row("epoch kept", tuple(t.kept if t else ABSENT for t in trained)),
            Row("training", tuple(_seconds(t) if t else ABSENT for t in trained)),
            Row("weights", tuple(_count(t.parameters if t else None) for t in trained)),
            Row("model", tuple(bytes_(run.model_bytes) or ABSENT for run in self.runs)),
        )

    @property
    def trained(self) -> tuple[ComparedRun, ...]:
        """The runs that have a training to show."""
        return tuple(run for run in self.runs if run.training is not None)

    @property
    def curve_names(self) -> tuple[str, ...]:
        """Metrics by epoch: those on validation first, then each beside its twin on train."""
        names = dict.fromkeys(
            name
            for run in self.trained
            if run.training is not None
            for epoch in run.training.epochs
            for name in epoch.metrics
        )
        return tuple(
            sorted(names, key=lambda name: (name not in _FIRST_METRICS, not name.startswith("val_")))
        )

    @property
    def is_by_rows(self) -> bool:
        """Whether epochs are of different lengths, so that curves compare by rows seen only."""
        return len({run.training.epoch_rows for run in self.runs if run.training is not None}) > 1

    @property
    def short_ids(self) -> Mapping[str, str]:
        """The shortest ends of the ids that still tell the runs apart, at least four letters."""
        ids = [run.run_id for run in self.runs]
        length = next(n for n in range(4, 100) if len({i[-n:] for i in ids}) == len(set(ids)))
        return {run_id: run_id[-length:] for run_id in ids}

    @property
    def curve_axis(self) -> str:
        """What curves go by."""
        return "rows seen" if self.is_by_rows else "epoch"

    def curves(self, metric: str) -> Mapping[str, tuple[Point, ...]]:
        """A metric by the short id of each run that has it."""
        curves = {self.short_ids[run.run_id]: self._curve(run.training, metric) for run in self.runs}
        return {name: points for name, points in curves.items() if points}

    def _curve(self, training: Training | None, metric: str) -> tuple[Point, ...]:
        if training is None:
            return ()
        step = training.epoch_rows if self.is_by_rows else 1
        return tuple(
            Point(epoch.number * step, epoch.metrics[metric], epoch.is_kept)
            for epoch in training.epochs
            if metric in epoch.metrics
        )

    def _parameter_names(self) -> list[str]:
        """Dotted names of single settings; a group that is absent in one run stands for all in it."""
        names = dict.fromkeys(name for run in self.runs for name in run.parameters or ())
        groups = {name.rpartition(".")[0] for name in names}
        for group in list(groups):
            while group:
                group = group.rpartition(".")[0]
                groups.add(group)
        return [name for name in names if name not in groups]

    def _values(self, name: str) -> tuple[str, ...]:
        return tuple(_value(run.parameters or {}, name) for run in self.runs)

    def _known(self, row: Row) -> set[str]:
        """The different values in the runs that kept this part of their settings."""
        part = row.name.partition(".")[0]
        return {
            value
            for run, value in zip(self.runs, row.values, strict=True)
            if any(name.partition(".")[0] == part for name in run.parameters or ())
        }


def render(comparison: Comparison, tensorboard: str | None = None) -> str:
    """The page as HTML, with everything it needs inside it.

    Args:
      comparison: two runs or more, each once.
      tensorboard: the command that shows the same runs in TensorBoard, if there are logs.
    """
    from report.page import environment
    from report.plots import Plots

    return (
        environment()
        .get_template("comparison.html")
        .render(comparison=comparison, plots=Plots(), tensorboard=tensorboard)
    )


def _value(parameters: Mapping[str, Any], name: str) -> str:
    """A setting as text; that of the group it belongs to, such as None, where the run has no such group."""
    while name:
        if name in parameters:
            value = parameters[name]
            if value is None:
                return ABSENT
            return value if isinstance(value, str) else json.dumps(value)
        name = name.rpartition(".")[0]
    return ABSENT


def _estimate(estimate: Estimate) -> str:
    return f"{figure(estimate.value)} ({figure(estimate.low)} to {figure(estimate.high)})"


def _count(number: int | None) -> str:
    return ABSENT if number is None else f"{number:,}"


def _spans(spans: tuple[int, int] | None) -> str:
    if spans is None:
        return ABSENT
    return str(spans[0]) if spans[0] == spans[1] else f"{spans[0]} to {spans[1]}"


def _seconds(training: Training) -> str:
    return seconds(training.seconds) + (" (in an earlier run)" if training.is_cached else "")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
