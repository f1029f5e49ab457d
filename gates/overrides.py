"""Refusals that a person answers for: whose decision it was and why goes wherever the verdict goes."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gates.settings import Override
from gates.verdict import Outcome, Verdict

LET_PASS = "; let pass by "
"""Between the reason of a refusal and whoever answers for it."""


def apply(verdicts: Sequence[Verdict], overrides: Sequence[Override]) -> tuple[Verdict, ...]:
    """Turns every refusal that an override names into one that is let pass, with its owner and reason.

    The first override that names a check counts.
    """
    return tuple(_decided(verdict, overrides) for verdict in verdicts)


def _decided(verdict: Verdict, overrides: Sequence[Override]) -> Verdict:
    if verdict.passed:
        return verdict
    for override in overrides:
        if fnmatch.fnmatchcase(verdict.name, override.check):
            words = f"{verdict.reason}{LET_PASS}{override.owner}: {override.reason}"
            return replace(verdict, outcome=Outcome.OVERRIDDEN, reason=words)
    return verdict


def refusals(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The reasons of what is refused, each with how to answer for it."""
    for verdict in verdicts:
        if not verdict.passed:
            yield f"{verdict.reason} [check: {verdict.name}]"
