import json
from datetime import UTC, datetime, timedelta

import pytest

from gates import evidence
from gates.verdict import Outcome, Verdict
from pipeline.components.gate_output import (
    REFUSED_FOLDER,
    RefusedError,
    overrides,
    read_verdicts,
    write_or_stop,
)

GOOD = Verdict("rows in train", Outcome.PASSED, "900", "at least 50", "the train split has 900 rows")
BAD = Verdict("rows in test", Outcome.REFUSED, "7", "at least 50", "the test split has 7 rows")
FOUND = evidence.DataEvidence(
    rows={"train": 900},
    previous_rows={},
    columns=(evidence.ColumnFigures("color", {"train": 0.1}, {"test": 0.02}, "L-infinity", {"test": 0.0}),),
)


def test_what_a_gate_found_is_read_back_as_it_was(tmp_path):
    write_or_stop([GOOD], FOUND, tmp_path / "verdict")
    assert read_verdicts(tmp_path / "verdict") == (GOOD,)
    assert evidence.read(evidence.DataEvidence, tmp_path / "verdict") == FOUND


def test_a_refusal_stops_the_run_and_keeps_its_figures_outside_the_artifact(tmp_path, monkeypatch):
    monkeypatch.setenv(REFUSED_FOLDER, str(tmp_path / "kept"))
    with pytest.raises(RefusedError, match=r"^the test split has 7 rows \[check: rows in test\]$"):
        write_or_stop([GOOD, BAD], FOUND, tmp_path / "verdict")
    assert not (tmp_path / "verdict").exists()
    assert read_verdicts(tmp_path / "kept") == (GOOD, BAD)
    assert evidence.read(evidence.DataEvidence, tmp_path / "kept") == FOUND


def test_without_a_folder_of_the_run_the_error_is_all_there_is(tmp_path, monkeypatch):
    monkeypatch.delenv(REFUSED_FOLDER, raising=False)
    with pytest.raises(RefusedError):
        write_or_stop([BAD], None, tmp_path / "verdict")
    assert read_verdicts(tmp_path / "verdict") == ()


def test_an_override_counts_until_the_end_of_its_last_day_whenever_the_gate_was_configured():
    today = datetime.now(UTC).date()
    days = {"past": today - timedelta(days=1), "present": today, "future": today + timedelta(days=1)}
    given: list[dict[str, str | None]] = [
        {"check": name, "owner": "ada", "reason": "known", "until": day.isoformat()}
        for name, day in days.items()
    ]
    given.append({"check": "always", "owner": "ada", "reason": "known", "until": None})
    found = overrides({"overrides": json.dumps(given)})
    assert [override.check for override in found] == ["present", "future", "always"]
    assert overrides({"overrides": "[]"}) == ()
