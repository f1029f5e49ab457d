"""Refusals that a person answers for: whose decision it was and why goes wherever the verdict goes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

from gates.settings import Override
from gates.verdict import Outcome, Verdict

LET_PASS = "; let pass by "
"""Between the reason of a refusal and whoever answers for it."""


FINAL = frozenset(
    {
        "finite answers",
        "finite answers on validation",
        "device models",
        "load of the model",
        "rows of the probe",
        "rows of train",
        "rows of validation",
        "rows of test",
    }
)
"""Checks after whose refusal nothing else can be looked at, so that nobody can answer for it."""


def apply(
    verdicts: Sequence[Verdict], overrides: Sequence[Override], today: date | None = None
) -> tuple[Verdict, ...]:
    """Turns every refusal that an override names into one that is let pass, with its owner and reason.

    The first override that names a check counts. One that ran out before `today` (UTC; the present day where it is
    absent) does not, and none counts for a check that is final.
    """
    day = (today or datetime.now(UTC).date()).isoformat()
    counting = [override for override in overrides if override.until is None or override.until >= day]
    return tuple(_decided(verdict, counting) for verdict in verdicts)


def _decided(verdict: Verdict, overrides: Sequence[Override]) -> Verdict:
    if verdict.passed or verdict.name in FINAL:
        return verdict
    for override in overrides:
        if _pattern(override.check).fullmatch(verdict.name):
            words = f"{verdict.reason}{LET_PASS}{override.owner}: {override.reason}"
            return replace(verdict, outcome=Outcome.OVERRIDDEN, reason=words)
    return verdict


def _pattern(check: str) -> re.Pattern[str]:
    """Where only * is special: a name may hold a value, and a value may hold anything."""
    return re.compile(".*".join(map(re.escape, check.split("*"))), re.DOTALL)


def refusals(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The reasons of what is refused, each with how to answer for it."""
    for verdict in verdicts:
        if not verdict.passed:
            is_final = verdict.name in FINAL
            yield verdict.reason if is_final else f"{verdict.reason} [check: {verdict.name}]"
