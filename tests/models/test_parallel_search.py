"""Trials in several processes of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from models import child_environment, trial_workers
from models.trial_workers import TrialWorkersError
from schemas.features import LabelKind
from tests.models.conftest import only
from tests.models.test_tuner import SCRIPT, arguments, searched


def ours(folder: Path, name: str = "") -> list[int]:
    """Processes of a search whose files are in a folder; all, or the one that is called so."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            is_ours = b"models.trial_workers" in command and str(folder).encode() in command
            if is_ours and f"KERASTUNER_TUNER_ID={name}".encode() in environment:
                found.append(int(entry.name))
    return found


def waited_for(is_so) -> bool:
    deadline = time.monotonic() + 60
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(is_so())


@only(LabelKind.BINARY)
@pytest.mark.timeout(600)
def test_two_workers_share_the_trials_of_one_search(table: SimpleNamespace, tmp_path: Path) -> None:
    found = searched(arguments(table, tmp_path, trials=4, epochs=1, workers=2, method="bayesian"))
    trials = found.trials()
    assert [trial["state"] for trial in trials] == ["completed"] * 4
    assert found.oracle.get_best_trials()[0].score == max(trial["score"] for trial in trials)
    assert len({json.dumps(trial["values"]) for trial in trials}) > 1
    logs = {log.stem: log.read_text() for log in tmp_path.glob("training/search-*/processes/*.log")}
    assert sum(text.count("Running Trial") for text in logs.values()) == 4
    assert ours(tmp_path) == []


@only(LabelKind.BINARY)
def test_what_a_worker_cannot_do_is_said_and_nobody_is_left(table: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(TrialWorkersError, match="val_rmse is no metric of this label"):
        searched(arguments(table, tmp_path, workers=2, objective="val_rmse"))
    assert ours(tmp_path) == []


@only(LabelKind.BINARY)
def test_nobody_outlives_a_search_that_is_killed(table: SimpleNamespace, tmp_path: Path) -> None:
    given = arguments(table, tmp_path, trials=50, workers=2)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(given)])
    try:
        assert waited_for(lambda: len(ours(tmp_path)) == 3)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert waited_for(lambda: not ours(tmp_path))


def test_a_process_that_is_killed_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Stands in for the module: a program that goes on for ever, so that the signal is what ends it.
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    (tmp_path / "models" / "trial_workers.py").write_text(
        "print('waiting', flush=True)\nimport time\ntime.sleep(600)"
    )
    monkeypatch.setattr(child_environment, "_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)

    def kill_one() -> None:
        if (tmp_path / "out" / "worker-1.log").read_text():
            [process] = ours(tmp_path / "out", "worker 1")
            os.kill(process, signal.SIGKILL)

    with pytest.raises(TrialWorkersError, match=r"worker 1 of the search was killed by SIGKILL.*\nwaiting"):
        trial_workers.run({}, 2, tmp_path / "out", kill_one)
    assert ours(tmp_path) == []
