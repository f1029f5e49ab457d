"""What came of a run in plain sentences, and numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from gates.overrides import FINAL
from gates.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from report.page import Gate, Page, Step

_DEVICE_JUDGE = "DeviceModels"
_MODEL_JUDGES = ("Evaluator", "ModelGate", "ServingCheck")
_CHAMPION = "champion"
_WITHOUT_OVERRIDES = "Evaluator"
"""Its bounds are numbers in the configuration: who wants another one writes another one."""


@dataclass(frozen=True)
class Told:
    """What came of a run.

    Attributes:
      sentence: the outcome.
      is_good: whether a model was pushed, and nothing after it failed or was refused.
      advice: what to do next, one sentence each.
    """

    sentence: str
    is_good: bool
    advice: tuple[str, ...]


def outcome(page: Page) -> Told:
    """The outcome of a run and what to do next."""
    refused = [(gate, verdict) for gate in page.gates for verdict in gate.verdicts if not verdict.passed]
    failed = next((step for step in page.steps if step.state in ("failed", "timed out")), None)
    if page.pushed:
        version = PurePath(page.pushed).name
        words = f"The model was pushed as version {version}"
        if later := [(gate, verdict) for gate, verdict in refused if gate.name == _DEVICE_JUDGE]:
            gate, verdict = later[0]
            told = f"{words}; then {gate.name} refused: {_sentence(verdict.reason)}"
            return Told(told, False, tuple(_after_refusal(later)))
        if failed:
            advice = ("The pushed version serves.", *_after_failure(failed))
            return Told(f"{words}; then {_failure(failed)}", False, advice)
        return Told(f"{words}.", True, tuple(_after_push(page, version)))
    if refused:
        gate, verdict = refused[0]
        more = "" if len(refused) == 1 else f" And {len(refused) - 1} more; they stand below."
        sentence = f"Nothing was pushed, because {gate.name} refused: {_sentence(verdict.reason)}{more}"
        return Told(sentence, False, tuple(_after_refusal(refused)))
    if failed:
        words = f"Nothing was pushed, because {_failure(failed)}"
        return Told(words, False, tuple(_after_failure(failed)))
    if page.state == "running":
        return Told(
            "The run is under way, or was killed.",
            False,
            ("Wait for it, or give the same command again: what had finished comes from the cache.",),
        )
    return Told(
        f"Nothing was pushed: the run is {page.state}.",
        False,
        ("Give the same command again: what had finished comes from the cache.",),
    )


def _after_push(page: Page, version: str) -> Iterator[str]:
    warned = sum(v.outcome is Outcome.WARNED for gate in page.gates for v in gate.verdicts)
    answered = sum(v.outcome is Outcome.OVERRIDDEN for gate in page.gates for v in gate.verdicts)
    if warned or answered:
        said = " and ".join(
            f"{_count(number, thing)}"
            for number, thing in ((warned, "warning"), (answered, "override"))
            if number
        )
        yield f"Read {said} below: nothing stopped for them, and somebody should know."
    else:
        yield "Nothing has to be done."
    yield f"headworks lineage {version} tells what made it."


def _failure(step: Step) -> str:
    words = (step.error or "no reason was recorded").removeprefix(f"{step.name}: ")
    return f"{step.name} failed: {_sentence(words)}"


def _after_failure(step: Step) -> Iterator[str]:
    yield "Mend it and give the same command again; what is done comes from the cache."
    yield f"The log is logs/{step.name}.log in the folder of the run."


def _after_refusal(refused: list[tuple[Gate, Verdict]]) -> Iterator[str]:
    if refused[0][0].name == _DEVICE_JUDGE:
        yield "The pushed version serves; what earlier runs made for devices is as it was."
    elif refused[0][0].name in _MODEL_JUDGES:
        yield "The version that serves goes on serving. A refusal stands until data, model or bound has changed."
        if any(_CHAMPION in verdict.name for _, verdict in refused):
            yield "To replace the champion knowingly: headworks run --rebaseline --owner NAME --reason TEXT."
    else:
        yield "Mend the data and run again; what had finished comes from the cache."
        yield "What is meant to be new goes into the schema: headworks schema diff shows it."
    names = [
        verdict.name
        for gate, verdict in refused
        if gate.name != _WITHOUT_OVERRIDES and verdict.name not in FINAL
    ]
    if names:
        yield f"To answer for it, name the check under overrides, with owner and reason: {names[0]}."


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def figure(value: float | None) -> str:
    """A number with as many digits as tell something; empty for None and for what is no number."""
    if value is None or math.isnan(value):
        return ""
    if float(value).is_integer() and abs(value) >= 2:
        return f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.2f}"
    return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"


def setting(value: str | float) -> str:
    """A value of a setting: numbers in four digits."""
    return value if isinstance(value, str) else f"{value:.4g}"


def signed(value: float) -> str:
    """A change, with its sign."""
    return ("+" if value >= 0 else "−") + figure(abs(value))


def percent(share: float | None) -> str:
    """A share of 1 as a percentage; empty for None."""
    if share is None:
        return ""
    digits = 0 if share in (0.0, 1.0) else 2 if share < 0.01 else 1
    return f"{share:.{digits}%}"


def bytes_(count: int | None) -> str:
    """A size; empty for None."""
    if count is None:
        return ""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def seconds(count: float) -> str:
    """A duration: seconds, beyond two minutes minutes too."""
    if count < 120:
        return f"{count:.1f} s"
    minutes, rest = divmod(round(count), 60)
    return f"{minutes} min {rest} s"


def moment(time: str) -> str:
    """A time in ISO 8601 to the second, without its zone."""
    return time[:19].replace("T", " ")
