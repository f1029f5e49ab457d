"""One check's outcome, in figures and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What one check found.

    Attributes:
      name: of the check.
      passed: whether it lets the run go on.
      figure: what was measured, as shown to a person.
      bound: what it had to be, as shown to a person.
      reason: one plain sentence.
    """

    name: str
    passed: bool
    figure: str
    bound: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Verdict:
        """Reads what `to_json` gave."""
        return cls(**fields)
