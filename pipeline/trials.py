"""The trials of a search, as the Tuner leaves them for the report."""

from __future__ import annotations

import json
from pathlib import Path

from report.tuning import Search, Trial

FILE = "trials.json"


def read(folder: Path) -> Search | None:
    """The search whose results lie in a folder; None where an older version wrote them.

    Raises:
      OSError, ValueError, KeyError: if the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Search(
        objective=found["objective"],
        is_larger_better=found["is_larger_better"],
        method=found["method"],
        trials=tuple(
            Trial(
                name=trial["name"],
                values={name: _text_or_number(value) for name, value in trial["values"].items()},
                score=trial["score"] if trial["state"] == "completed" else None,
                epochs=trial["epochs"],
                seconds=trial["seconds"],
                cause=trial["cause"],
            )
            for trial in found["trials"]
        ),
    )


def _text_or_number(value: object) -> str | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return value if isinstance(value, str) else json.dumps(value)
