"""`headworks lineage` as a person and as a machine read it; what it finds is tested in tests/pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from gates.verdict import Outcome, Verdict
from pipeline import lineage as asked
from pipeline.lineage_answers import Data, DataLineage, Judgement, ModelLineage, Push, Reader, SeenBy, Step
from pipeline.origins import DataFile, DataOrigin

_FILE = DataFile("rows", "f" * 64, 12, 7, ("/data/rows-7.csv",))
_REFUSAL = Verdict("auc", Outcome.REFUSED, "0.5", "0.9", "the AUC is 0.5 [no better than a coin]")


def push(version: int, model_id: int, is_serving: bool) -> Push:
    return Push(version, f"/serving/{version}", model_id, f"run-{version}", "2024-01-02", is_serving, True)


def of_model() -> ModelLineage:
    return ModelLineage(
        model_id=8,
        uri="/artifacts/8",
        is_there=True,
        run_id="run-2",
        trained_at="2024-01-02",
        reused_by=("run-3",),
        git_revision="abc",
        config_hash="c" * 64,
        config=None,
        schemas=("/artifacts/schema",),
        data=(
            Data(
                "d" * 64,
                ("/e",),
                DataOrigin("d" * 64, "query", (_FILE,), 7, 7, "SELECT 1", "a.sql"),
                {"train": 9},
            ),
        ),
        steps=(Step("Trainer", 4, "run-2", "COMPLETE", 1.5, "abc", "e" * 64),),
        judgements=(Judgement("run-3", "ModelGate", False, 5, (_REFUSAL,)),),
        champions=(push(1, 5, False),),
        pushes=(push(2, 8, True),),
        damaged={"/serving/2": ("saved_model.pb",)},
    )


def of_data(models: int = 1) -> DataLineage:
    serving = SeenBy(1, "/m/1", "run-1", "2024-01-01", (push(1, 1, True),))
    never = tuple(SeenBy(n, f"/m/{n}", f"run-{n}", "2024-01-02", ()) for n in range(models, 1, -1))
    reader = Reader("run-1", True, ("DataGate",), (1,))
    return DataLineage(
        "file /data/rows-7.csv", "0" * 64, (_FILE,), ("a" * 64,), (reader,), (*never, serving), ()
    )


def ask(monkeypatch: pytest.MonkeyPatch, answer: object, *arguments: str) -> Result:
    monkeypatch.setattr(asked, "ask", lambda *_: answer)
    return CliRunner().invoke(main, ["lineage", "2", "--root", ".", *arguments])


def test_a_model_is_told_with_data_pushes_champion_refusals_and_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = ask(monkeypatch, of_model()).output
    for told in (
        "model 8: /artifacts/8",
        "trained 2024-01-02 by run run-2",
        "reused from the cache by run-3",
        "its values were not kept",
        "version 2 on 2024-01-02 by run run-2, serving: /serving/2",
        "/serving/2 is not as it was pushed: saved_model.pb",
        "model 5, version 1",
        "rows train 9",
        "/data/rows-7.csv",
        "ModelGate in run-3: refused, 1 checks, against model 5",
        "the AUC is 0.5 [no better than a coin]",
    ):
        assert told in output


def test_data_are_told_with_what_serves_now_first(monkeypatch: pytest.MonkeyPatch) -> None:
    output = ask(monkeypatch, of_data()).output
    assert "read by 1 run; 1 model made with it, 1 of them pushed" in output
    assert "SERVING NOW: /serving/1 (model 1) has seen it" in output
    assert "the path holds something else now" in output
    assert f"headworks lineage sha256:{'a' * 64}" in output
    assert "DataGate" in output


def test_of_many_models_the_one_that_serves_is_shown_however_old(monkeypatch: pytest.MonkeyPatch) -> None:
    output = ask(monkeypatch, of_data(models=100)).output
    assert "1 (serving)" in output
    assert "and 80 more (--all)" in output
    assert "more (--all)" not in ask(monkeypatch, of_data(models=100), "--all").output


@pytest.mark.parametrize(("answer", "kind"), [(of_model(), "model"), (of_data(), "data")])
def test_machines_get_all_of_it(monkeypatch: pytest.MonkeyPatch, answer: object, kind: str) -> None:
    told = json.loads(ask(monkeypatch, answer, "--json").output)
    assert told["kind"] == kind


def test_a_folder_without_runs_is_said_to_have_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["lineage", "1", "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert "nothing has run in this folder yet" in result.output
