"""Whether an exported model, alone in a fresh process, answers as the network did that was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gates.evidence import SignatureFigures
from gates.settings import ServingCheckSettings
from gates.verdict import Outcome, Verdict
from schemas.features import Label, LabelKind
from schemas.probe import Probe

Array = npt.NDArray[Any]

EXAMPLES, RAW, TRANSFORM = "serving_default", "serving_raw", "transform_features"
SCORING = (EXAMPLES, RAW)
SIGNATURES = (EXAMPLES, RAW, TRANSFORM)

LOAD = "load of the model"
_AGAIN = "export the model again, and see models/signatures.py if that does not help"


@dataclass(frozen=True)
class Answered:
    """What one signature gave, and how fast.

    Attributes:
      outputs: `[rows, …]` by name; text as bytes. Nothing where it failed.
      error: why it failed, or nothing.
      single_p50_milliseconds: for one row.
      single_p99_milliseconds: for one row.
      batch_rows_per_second: for all rows at once.
    """

    outputs: Mapping[str, Array]
    error: str = ""
    single_p50_milliseconds: float = 0.0
    single_p99_milliseconds: float = 0.0
    batch_rows_per_second: float = 0.0


@dataclass(frozen=True)
class Served:
    """A fresh process that loaded the model and asked the signatures it has."""

    load_seconds: float
    signatures: Mapping[str, Answered]


@dataclass(frozen=True)
class Fallen:
    """A fresh process that came to no end.

    Attributes:
      signature: that it was asking, or nothing while it loaded the model.
      words: why it ended, and what it said last.
    """

    signature: str
    words: str


def judge_serving(
    served: Served | Fallen, probe: Probe, label: Label, settings: ServingCheckSettings
) -> tuple[Verdict, ...]:
    """Holds the answers to a probe's rows against what the network in memory said of them."""
    if isinstance(served, Fallen):
        return (_fallen(served),)
    return tuple(_verdicts(served, probe, label, settings))


def signature_figures(served: Served, probe: Probe, label: Label) -> tuple[SignatureFigures, ...]:
    """What was measured of each signature that answered."""
    return tuple(
        SignatureFigures(
            name,
            _largest(_differences(scores, probe.scores, label))
            if name in SCORING and (scores := _comparable(answered, probe, label)) is not None
            else None,
            answered.single_p50_milliseconds,
            answered.single_p99_milliseconds,
            answered.batch_rows_per_second,
        )
        for name, answered in served.signatures.items()
        if not answered.error
    )


def unknown_rows(unknown: int, rows: int) -> Verdict:
    """Whether the transformed rows that training read were found again among the raw ones."""
    reason = f"all {rows} probed rows come from raw rows of the validation split"
    if unknown:
        reason = (
            f"{unknown} of {rows} transformed rows that training read are not what the Transform graph makes of any "
            "raw row of the validation split: training and graph do not belong together; run Transform and Trainer anew"
        )
    return Verdict("rows of the probe", Outcome.of(not unknown), f"{unknown} unknown", "0 unknown", reason)


def _verdicts(
    served: Served, probe: Probe, label: Label, settings: ServingCheckSettings
) -> Iterator[Verdict]:
    yield _load(served.load_seconds, settings.max_load_seconds)
    for name in SIGNATURES:
        answered = served.signatures.get(name)
        yield _presence(name, answered is not None, served)
        if answered is None:
            continue
        if name == TRANSFORM:
            yield _transformed(answered, probe, settings.max_difference)
        else:
            yield _scores(name, answered, probe, label, settings.max_difference)
        if not answered.error:
            yield _latency(name, answered, settings.max_p99_milliseconds)
    pair = [
        _comparable(served.signatures[name], probe, label) for name in SCORING if name in served.signatures
    ]
    if len(pair) == len(SCORING) and pair[0] is not None and pair[1] is not None:
        yield _agreement(pair[0], pair[1], label, settings.max_difference)


def _fallen(served: Fallen) -> Verdict:
    if served.signature:
        reason = f"the process of the exported model ended while {served.signature} was asked: {served.words}"
        return Verdict(f"answers of {served.signature}", Outcome.REFUSED, "none", "answers", reason)
    reason = f"the exported model cannot be loaded: {served.words}"
    return Verdict(LOAD, Outcome.REFUSED, "not loaded", "loaded", reason)


def _load(seconds: float, bound: float) -> Verdict:
    reason = f"the exported model loads in {seconds:.1f} s"
    if seconds > bound:
        reason += f", longer than {bound:g} s: make it smaller or raise serving_check.max_load_seconds"
    return Verdict(LOAD, Outcome.of(seconds <= bound), f"{seconds:.1f} s", f"at most {bound:g} s", reason)


def _presence(name: str, is_there: bool, served: Served) -> Verdict:
    reason = f"the exported model has the signature {name}"
    if not is_there:
        others = ", ".join(served.signatures) or "none that is known"
        reason = f"the exported model has no signature {name} (it has {others}): {_AGAIN}"
    figure = "there" if is_there else "missing"
    return Verdict(f"signature {name}", Outcome.of(is_there), figure, "there", reason)


def _latency(name: str, answered: Answered, bound: float) -> Verdict:
    p99 = answered.single_p99_milliseconds
    reason = f"{name} answers a single row within {p99:.2g} ms in 99 of 100 calls"
    if p99 > bound:
        reason = (
            f"{name} is too slow: {p99:.3g} ms for a single row at the 99th percentile, {bound:g} ms are allowed; "
            "make the network smaller or raise serving_check.max_p99_milliseconds"
        )
    figure = f"p99 {p99:.2g} ms, p50 {answered.single_p50_milliseconds:.2g} ms"
    return Verdict(
        f"latency of {name}", Outcome.of(p99 <= bound), figure, f"p99 at most {bound:g} ms", reason
    )


def _scores(name: str, answered: Answered, probe: Probe, label: Label, bound: float) -> Verdict:
    """Whether a signature answers as the network in memory did."""
    subject, limit = f"answers of {name}", f"differ by at most {bound:g}"
    fault = (
        _failure(name, answered)
        or _misshapen(name, answered, probe, label)
        or _not_finite(name, answered.outputs[_key(label)])
        or _misnamed(name, answered, label)
    )
    if fault:
        return Verdict(subject, Outcome.REFUSED, "unusable", limit, fault)
    found = answered.outputs[_key(label)]
    differences = _differences(found, probe.scores, label)
    figure = f"differ by {_largest(differences):.2g}"
    if _largest(differences) <= bound:
        reason = f"{name} answers {len(probe)} rows as the network that was trained"
        return Verdict(subject, Outcome.PASSED, figure, limit, reason)
    reason = _swapped(name, found, probe, label, bound) or _otherwise(
        name, found, probe, label, differences, bound
    )
    return Verdict(subject, Outcome.REFUSED, figure, limit, reason)


def _agreement(examples: Array, raw: Array, label: Label, bound: float) -> Verdict:
    differences = _differences(raw, examples, label)
    largest = _largest(differences)
    reason = f"{EXAMPLES} and {RAW} give the same answers to {len(raw)} rows"
    if largest > bound:
        row, column = _place(differences)
        reason = (
            f"{RAW} answers otherwise than {EXAMPLES} to the same rows: {_count(differences, bound)}, row {row} most: "
            f"{raw[row, column]:.6g} against {examples[row, column]:.6g}; {_AGAIN}"
        )
    return Verdict(
        f"agreement of {EXAMPLES} and {RAW}",
        Outcome.of(largest <= bound),
        f"differ by {largest:.2g}",
        f"differ by at most {bound:g}",
        reason,
    )


def _transformed(answered: Answered, probe: Probe, bound: float) -> Verdict:
    """Whether the exported graph prepares rows as training saw them, column by column."""
    subject, limit = f"answers of {TRANSFORM}", f"differ by at most {bound:g}"
    fault = _failure(TRANSFORM, answered)
    missing = [name for name in probe.columns if name not in answered.outputs]
    if not fault and missing:
        fault = f"{TRANSFORM} does not give {', '.join(missing)}, which the network was trained on: {_AGAIN}"
    if fault:
        return Verdict(subject, Outcome.REFUSED, "unusable", limit, fault)
    worst, largest, reason = "", 0.0, f"{TRANSFORM} prepares {len(probe)} rows as training saw them"
    for name, expected in probe.columns.items():
        found = answered.outputs[name]
        if found.shape != expected.shape:
            reason = (
                f"{TRANSFORM} gives {name} as {list(found.shape)} where training had {list(expected.shape)}"
            )
            return Verdict(subject, Outcome.REFUSED, "unusable", limit, reason)
        difference = _relative(found, expected)
        if _largest(difference) > largest:
            worst, largest = name, _largest(difference)
    if largest > bound:
        row, place = _place(_relative(answered.outputs[worst], probe.columns[worst]))
        reason = (
            f"the exported graph prepares {worst} otherwise than the one that was trained with: row {row}, "
            f"{answered.outputs[worst][row, place]:.6g} against {probe.columns[worst][row, place]:.6g}; {_AGAIN}"
        )
    figure = f"differ by {largest:.2g}"
    return Verdict(subject, Outcome.of(largest <= bound), figure, limit, reason)


def _failure(name: str, answered: Answered) -> str:
    return f"{name} fails on rows of the validation split: {answered.error}" if answered.error else ""


def _misshapen(name: str, answered: Answered, probe: Probe, label: Label) -> str:
    wanted = [_key(label)] if label.kind is LabelKind.REGRESSION else [_key(label), "classes"]
    for key in wanted:
        if key not in answered.outputs:
            given = ", ".join(sorted(answered.outputs)) or "nothing"
            return f"{name} gives {given} and no {key}: {_AGAIN}"
        shape = answered.outputs[key].shape
        if shape != probe.scores.shape:
            return f"{name} gives {key} as {list(shape)}; {list(probe.scores.shape)} was expected: {_AGAIN}"
    return ""


def _not_finite(name: str, found: Array) -> str:
    wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if not len(wrong):
        return ""
    value = "NaN" if np.isnan(found[wrong[0]]).any() else "infinity"
    return (
        f"{name} answers {value} to {len(wrong)} of {len(found)} rows, first to row {wrong[0]}: the model's weights "
        "are broken; train it again, with a lower train.learning_rate if this stays"
    )


def _misnamed(name: str, answered: Answered, label: Label) -> str:
    if label.kind is LabelKind.REGRESSION:
        return ""
    expected = np.array([text.encode() for text in label.classes])
    named = answered.outputs["classes"]
    wrong = np.flatnonzero((named != expected).any(axis=1))
    if len(wrong):
        given = ", ".join(value.decode("utf-8", "replace") for value in named[wrong[0]])
        return f"{name} names its scores {given} where the label's classes are {', '.join(label.classes)}: {_AGAIN}"
    positive = answered.outputs.get("probability")
    if positive is not None and not np.array_equal(positive, answered.outputs["scores"][:, 1:]):
        return f"{name}: probability is not the score of class {label.classes[1]}, the positive one: {_AGAIN}"
    return ""


def _swapped(name: str, found: Array, probe: Probe, label: Label, bound: float) -> str:
    """Names classes that carry each other's scores, where that is all that is wrong."""
    if label.kind is LabelKind.REGRESSION:
        return ""
    distances = np.abs(found[:, :, None] - probe.scores[:, None, :]).max(axis=0)
    source = distances.argmin(axis=1)
    moved = [place for place, origin in enumerate(source) if place != origin]
    is_permutation = sorted(source) == list(range(len(source)))
    if not moved or not is_permutation or distances.min(axis=1).max() > bound:
        return ""
    names = [label.classes[place] for place in moved]
    if len(moved) == 2:
        return f"{name}: scores of class {names[0]} and {names[1]} are swapped: {_AGAIN}"
    origins = [label.classes[source[place]] for place in moved]
    return (
        f"{name}: scores of classes are mixed up: those of {', '.join(origins)} stand in the places of "
        f"{', '.join(names)}: {_AGAIN}"
    )


def _otherwise(name: str, found: Array, probe: Probe, label: Label, differences: Array, bound: float) -> str:
    row, column = _place(differences)
    of_class = "" if label.kind is LabelKind.REGRESSION else f" for class {label.classes[column]}"
    return (
        f"the exported graph answers otherwise than the network that was trained: {name}, row {row}, "
        f"{found[row, column]:.6g} against {probe.scores[row, column]:.6g}{of_class} ({_count(differences, bound)}): "
        f"{_AGAIN}"
    )


def _comparable(answered: Answered, probe: Probe, label: Label) -> Array | None:
    """The scores of a signature, or None where they cannot be compared."""
    found = answered.outputs.get(_key(label))
    if found is None or found.shape != probe.scores.shape or not np.isfinite(found).all():
        return None
    return found


def _key(label: Label) -> str:
    return "prediction" if label.kind is LabelKind.REGRESSION else "scores"


def _differences(found: Array, expected: Array, label: Label) -> Array:
    """`[rows, outputs]`: of scores as they are, of predictions as a share of the largest, whatever their unit."""
    scale = max(1.0, float(np.abs(expected).max())) if label.kind is LabelKind.REGRESSION else 1.0
    return _known(np.abs(found.astype(np.float64) - expected) / scale)


def _relative(found: Array, expected: Array) -> Array:
    difference = np.abs(found.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return _known(difference)


def _known(differences: Array) -> Array:
    return np.asarray(np.where(np.isnan(differences), np.inf, differences))


def _largest(differences: Array) -> float:
    return float(differences.max(initial=0.0))


def _place(differences: Array) -> Sequence[int]:
    return [int(place) for place in np.unravel_index(differences.argmax(), differences.shape)]


def _count(differences: Array, bound: float) -> str:
    wrong = int((differences > bound).any(axis=1).sum())
    return f"{wrong} of {len(differences)} rows differ by more than {bound:g}"
