"""Which device models may ship: those that answer as the server model does, inside a budget."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gates.comparison import Difference, compare
from gates.evidence import DeviceEvidence, DeviceFigures
from gates.intervals import Bootstrap
from gates.metrics import METRICS_OF, Floats, Metric
from gates.settings import DeviceBudget
from gates.verdict import Outcome, Verdict
from schemas.features import Label, LabelKind

UNTREATED = "float32"
"""The variant that says the same as the server model, up to the rounding of float32: it vouches for the preparation."""


LEARNING = "trainable+"
"""How names of files begin that learn on the device: their signatures are others, so they stand in for none."""


@dataclass(frozen=True)
class Ran:
    """A device model that answered every row, in a fresh process.

    Attributes:
      name: of the variant.
      answers: `[rows, classes]` probabilities, or `[rows]` predictions.
      bytes: of the file.
      compressed_bytes: of the file, deflated.
      cold_start_milliseconds: from opening the file to the first answer.
      p50_milliseconds: for one row on one thread.
      p99_milliseconds: the same.
      memory_bytes: by which the process grew.
    """

    name: str
    answers: Floats
    bytes: int
    compressed_bytes: int
    cold_start_milliseconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Failed:
    """A device model that could not be made, or gave no answers."""

    name: str
    reason: str


@dataclass(frozen=True)
class Served:
    """The pushed model, and the rows of test on which the device models are compared with it.

    Attributes:
      label: what is predicted.
      truth: `[rows]`: index of the class, or the target.
      answers: the server model's, `[rows, classes]` probabilities, or `[rows]` predictions.
      bytes: of the SavedModel.
      threshold: from which probability on a row counts as the positive class; None for other than binary labels.
    """

    label: Label
    truth: Floats
    answers: Floats
    bytes: int
    threshold: float | None

    @property
    def metric(self) -> Metric:
        """The one that decides."""
        return METRICS_OF[self.label.kind][0]


@dataclass(frozen=True)
class Judged:
    """The verdicts on the device models of one version, and their figures."""

    verdicts: tuple[Verdict, ...]
    evidence: DeviceEvidence


def judge_devices(
    served: Served,
    found: Sequence[Ran | Failed],
    asked: Collection[str],
    budget: DeviceBudget,
    max_difference: float,
    bootstrap: Bootstrap,
) -> Judged:
    """Judges every variant against the budget; the stage is refused where none is inside, or preprocessing differs.

    Args:
      served: the server model.
      found: the variants in the order of the configuration, and `UNTREATED` whether it is asked for or not.
      asked: names of those that may ship.
      budget: the bounds.
      max_difference: largest difference of a score of `UNTREATED`; of a prediction, as a share of the largest.
      bootstrap: of the rows.
    """
    judged = [_figures(one, served, budget, bootstrap) if isinstance(one, Ran) else one for one in found]
    untreated = next((one for one in judged if one.name == UNTREATED), Failed(UNTREATED, "it was not made"))
    wanted = [one for one in judged if one.name in asked]
    ran = tuple(one for one in wanted if isinstance(one, DeviceFigures))
    failed = {one.name: one.reason for one in wanted if isinstance(one, Failed)}
    best, reason = _recommended(ran, served.metric)
    value = served.metric.prepare(served.truth, served.answers).value
    verdicts = (
        _agreement(untreated, served, max_difference),
        *(_within(one, served.metric, budget) for one in ran),
        *(
            Verdict(
                f"device model {name}",
                Outcome.WARNED,
                "no answer",
                "answers",
                f"{name} is not blessed: {why}",
            )
            for name, why in failed.items()
        ),
        _any_blessed(ran, failed),
    )
    return Judged(
        verdicts,
        DeviceEvidence(
            served.metric.name,
            value,
            served.bytes,
            len(served.truth),
            bootstrap.level,
            ran,
            failed,
            best.name if best else None,
            reason,
        ),
    )


def _figures(ran: Ran, served: Served, budget: DeviceBudget, bootstrap: Bootstrap) -> DeviceFigures | Failed:
    if ran.answers.shape != served.answers.shape:
        return Failed(
            ran.name,
            f"it gives answers of shape {ran.answers.shape}, the server model {served.answers.shape}",
        )
    if broken := int((~np.isfinite(ran.answers)).sum()):
        return Failed(ran.name, f"it answers {broken:,} times with NaN or infinity")
    found = compare(served.metric, served.truth, ran.answers, served.answers, bootstrap)
    drop, low, high = _drop(found, served.metric)
    differences = _differences(ran.answers, served)
    faults = tuple(_faults(ran, drop, budget, served.metric))
    return DeviceFigures(
        name=ran.name,
        bytes=ran.bytes,
        compressed_bytes=ran.compressed_bytes,
        value=found.ours,
        drop=drop,
        low=low,
        high=high,
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        flips=_flips(ran.answers, served),
        cold_start_milliseconds=ran.cold_start_milliseconds,
        p50_milliseconds=ran.p50_milliseconds,
        p99_milliseconds=ran.p99_milliseconds,
        memory_bytes=ran.memory_bytes,
        is_blessed=not faults,
        fault=", ".join(faults),
    )


def _drop(found: Difference, metric: Metric) -> tuple[float, float, float]:
    """How much worse than the server model, with the interval; of a loss, as a share of it."""
    if metric.is_higher_better:
        return found.theirs - found.ours, -found.high, -found.low
    scale = max(abs(found.theirs), np.finfo(np.float64).tiny)
    return (found.ours - found.theirs) / scale, -found.high / scale, -found.low / scale


def _differences(answers: Floats, served: Served) -> Floats:
    """`[rows]`: the largest difference of each row's scores."""
    found = np.abs(answers - served.answers)
    if served.label.kind is LabelKind.REGRESSION:
        return found / max(float(np.abs(served.answers).max()), np.finfo(np.float64).tiny)
    return np.asarray(found.max(axis=1))


def _flips(answers: Floats, served: Served) -> int | None:
    match served.label.kind:
        case LabelKind.REGRESSION:
            return None
        case LabelKind.MULTICLASS:
            return int((answers.argmax(axis=1) != served.answers.argmax(axis=1)).sum())
        case LabelKind.BINARY:
            threshold = 0.5 if served.threshold is None else served.threshold
            return int(((answers[:, 1] >= threshold) != (served.answers[:, 1] >= threshold)).sum())


def _faults(ran: Ran, drop: float, budget: DeviceBudget, metric: Metric) -> Iterator[str]:
    if budget.max_bytes is not None and ran.bytes > budget.max_bytes:
        yield f"its {ran.bytes:,} bytes are more than {budget.max_bytes:,} (tflite.budget.max_bytes)"
    if budget.max_auc_drop is not None and not drop <= budget.max_auc_drop:  # NaN is no small drop
        yield (
            f"its {metric.name} is {drop:.2g} worse than the server model's, more than {budget.max_auc_drop:g} "
            "(tflite.budget.max_auc_drop)"
        )
    if budget.max_p99_milliseconds is not None and ran.p99_milliseconds > budget.max_p99_milliseconds:
        yield (
            f"its 99th percentile of {ran.p99_milliseconds:.3g} ms is more than {budget.max_p99_milliseconds:g} ms "
            "(tflite.budget.max_p99_milliseconds)"
        )


def _within(figures: DeviceFigures, metric: Metric, budget: DeviceBudget) -> Verdict:
    words = (
        f"{figures.name}: {figures.bytes:,} bytes, {metric.name} {figures.value:.4g} ({figures.drop:.5f} lost against "
        f"the server model), 99 of 100 rows within {figures.p99_milliseconds:.3g} ms"
    )
    if figures.fault:
        words += f"; not blessed: {figures.fault}"
    bounds = [
        f"{budget.max_bytes:,} bytes" if budget.max_bytes is not None else "",
        f"{budget.max_auc_drop:g} {metric.name} lost" if budget.max_auc_drop is not None else "",
        f"{budget.max_p99_milliseconds:g} ms" if budget.max_p99_milliseconds is not None else "",
    ]
    return Verdict(
        f"device model {figures.name}",
        Outcome.of(figures.is_blessed, "warned"),
        f"{figures.bytes:,} bytes, {figures.drop:.5f} {metric.name} lost, {figures.p99_milliseconds:.3g} ms",
        "at most " + ", ".join(bound for bound in bounds if bound) if any(bounds) else "none",
        words,
    )


def _agreement(untreated: DeviceFigures | Failed, served: Served, bound: float) -> Verdict:
    """One preparation, on the server and on the device: rounding is all that may differ."""
    name = "same answers on the device"
    if isinstance(untreated, Failed):
        words = f"the model in float32 gives no answers: {untreated.reason}"
        return Verdict(name, Outcome.REFUSED, "no answer", f"at most {bound:g}", words)
    is_same = untreated.max_difference <= bound
    words = (
        f"on {len(served.truth):,} test rows the largest difference between the device's float32 model and the "
        f"server's is {untreated.max_difference:.2g}, the mean {untreated.mean_difference:.2g}"
    )
    if not is_same:
        words += (
            ": more than rounding explains, so the device prepares some feature otherwise; compare the features of "
            "the rows that differ, or leave the feature out of the model"
        )
    figure = f"{untreated.max_difference:.2g}"
    return Verdict(name, Outcome.of(is_same), figure, f"at most {bound:g}", words)


def judge_rows(rows: int, refused: int, first_reason: str, bound: float) -> Verdict:
    """Refuses where the client that ships with the files does not take rows of test that the server's model answers.

    Args:
      rows: of test that were tried.
      refused: how many of them.
      first_reason: what it said of the first.
      bound: share of the rows that it may refuse.
    """
    share = refused / rows if rows else 1.0
    passed = bool(rows) and share <= bound and refused < rows
    words = f"the device takes {rows - refused:,} of {rows:,} test rows"
    if refused:
        words += (
            f"; the first that it does not: {first_reason}. Correct the schema's presence, shorten or exclude the "
            "column, or raise tflite.max_refused_rows"
        )
    outcome = Outcome.of(passed)
    if passed and refused:
        outcome = Outcome.WARNED
    return Verdict("rows the device takes", outcome, f"{share:.2%} refused", f"at most {bound:.2%}", words)


def _any_blessed(ran: Sequence[DeviceFigures], failed: dict[str, str]) -> Verdict:
    answering = [one for one in ran if not one.name.startswith(LEARNING)]
    blessed = [one.name for one in answering if one.is_blessed]
    count = len(ran) + len(failed)
    words = f"{len(blessed)} of {count} device models are inside the budget: {', '.join(blessed)}"
    if not blessed:
        reasons = [f"{one.name}: {one.fault}" for one in ran] + [f"{n}: {why}" for n, why in failed.items()]
        words = (
            f"none of the device models ({count}) is inside the budget: {'; '.join(reasons)}. Raise the bound that is "
            "named, or name other variants in tflite.variants: smaller ones such as dynamic_int8 for bytes, float16 or "
            "float32 for quality"
        )
    return Verdict(
        "device models", Outcome.of(bool(blessed)), f"{len(blessed)} of {count}", "at least 1", words
    )


def _recommended(ran: Sequence[DeviceFigures], metric: Metric) -> tuple[DeviceFigures | None, str]:
    """The smallest blessed file, of files of one size the better one; one that learns is for callers who ask for it."""
    blessed = [one for one in ran if one.is_blessed and not one.name.startswith(LEARNING)]
    if not blessed:
        return None, "none is inside the budget"
    best = min(blessed, key=lambda one: (one.bytes, one.drop))
    return best, (
        f"the smallest of the {len(blessed)} inside the budget: {best.bytes:,} bytes, {metric.name} lost "
        f"{best.drop:.5f} ({best.low:.5f} to {best.high:.5f})"
    )
