"""One check's outcome, in figures and in words."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


class Outcome(enum.StrEnum):
    """What follows from a check."""

    PASSED = "passed"
    WARNED = "warned"
    OVERRIDDEN = "overridden"
    REFUSED = "refused"

    @classmethod
    def of(cls, passed: bool, otherwise: str = "refused") -> Outcome:
        """PASSED where a check holds, else what its severity says."""
        return cls.PASSED if passed else cls(otherwise)


@dataclass(frozen=True)
class Verdict:
    """What one check found.

    Attributes:
      name: of the check, unique within its gate, as an override names it: what is checked, then of what, such as
        `drift of carrier in test`.
      outcome: what follows.
      figure: what was measured, as shown to a person.
      bound: what it had to be, as shown to a person.
      reason: one plain sentence.
    """

    name: str
    outcome: Outcome
    figure: str
    bound: str
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the run may go on."""
        return self.outcome is not Outcome.REFUSED

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Verdict:
        """Reads what `to_json` gave."""
        return cls(**{**fields, "outcome": Outcome(fields["outcome"])})
