"""What is left of a run, read back: whole, refused, old, and damaged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gates import evidence
from gates.verdict import Outcome, Verdict
from pipeline.components.gate_output import write as write_gate
from pipeline.runners.events import NodeResult, NodeState, Output
from pipeline.runners.records import RunRecord, RunState, save
from pipeline.summary import read_page, summarize, write_report
from pipeline.summary_file import Summary, read_summary, summary_path
from tests.pipeline.test_distributions import numbers
from tests.pipeline.test_distributions import write as write_statistics
from tests.report import pages

RUN = "20260101T000000-ab12"
PASSED = Verdict("rows in train", Outcome.PASSED, "100", "at least 50", "train has 100 rows")
WARNED = Verdict(
    "drift of age in test", Outcome.WARNED, "0.3", "at most 0.1", "age in test is far from train"
)
REFUSED = Verdict("missing in age", Outcome.REFUSED, "0.9", "at most 0.2", "age is mostly missing")
SLOW = Verdict("latency", Outcome.REFUSED, "120 ms", "at most 100 ms", "one row takes 120 ms")
BETTER = Verdict("against majority", Outcome.PASSED, "0.7", "better than 0.5", "it is better")


class Folder:
    """An output folder with one run, to which nodes are added."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: dict[str, NodeResult] = {}

    def artifact(self, node_id: str, key: str) -> Path:
        place = self.root / "artifacts" / node_id / key / "1"
        place.mkdir(parents=True)
        known = self.nodes.get(node_id, NodeResult(node_id, NodeState.SUCCEEDED, 1.5))
        output = Output(key, len(self.nodes) + 1, "Thing", str(place), 1, 10)
        self.nodes[node_id] = NodeResult(node_id, NodeState.SUCCEEDED, 1.5, outputs=(*known.outputs, output))
        return place

    def statistics(self) -> None:
        write_statistics(self.artifact("StatisticsGen", "statistics"), "train", numbers("age", [(0, 9, 100)]))

    def gate(self, node_id: str, found, *verdicts: Verdict) -> None:
        write_gate(verdicts, found, self.artifact(node_id, "verdict"))

    def refusal(self, node_id: str, found, *verdicts: Verdict) -> None:
        write_gate(verdicts, found, self.root / "runs" / RUN / "refused" / node_id)
        self.nodes[node_id] = NodeResult(
            node_id, NodeState.FAILED, 0.1, error=f"RefusedError: {verdicts[0].reason}"
        )

    def trained(self) -> None:
        history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.4}]
        text = json.dumps({"chosen_epoch": 2, "history": history})
        (self.artifact("Trainer", "model_run") / "training.json").write_text(text)

    def pushed(self) -> None:
        place = self.artifact("ModelPusher", "pushed_model")
        (place / "folder").write_text(str(self.root / "serving" / "4"))
        (place / "manifest.json").write_text(json.dumps({"data_fingerprint": "f00d", "files": {}}))

    def record(self, state: RunState = RunState.SUCCEEDED) -> RunRecord:
        record = RunRecord(
            RUN, "shop", "2026-01-01T00:00:00+00:00", state, config_hash="c0de", nodes=self.nodes
        )
        save(record, self.root / "runs" / RUN)
        return record


def page_of(summary: Summary) -> str:
    assert summary.report
    return Path(summary.report).read_text()


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path.resolve())


@pytest.fixture
def whole(folder) -> Folder:
    told = pages.binary()
    folder.statistics()
    folder.gate("DataGate", told.data, PASSED, WARNED)
    folder.trained()
    folder.gate("ServingCheck", told.serving, SLOW)
    folder.gate(
        "ModelGate",
        told.model,
        BETTER,
        replace(SLOW, outcome=Outcome.OVERRIDDEN, reason="slow; let pass by ann: known"),
    )
    folder.pushed()
    return folder


def test_a_whole_run_is_read_back_as_it_was_written(whole):
    told = pages.binary()
    page = read_page(whole.root, whole.record())
    assert page.notes == ()
    assert (page.data, page.model, page.serving) == (told.data, told.model, told.serving)
    assert [gate.name for gate in page.gates] == ["DataGate", "ServingCheck", "ModelGate"]
    assert [column.name for column in page.columns] == ["age"]
    assert [epoch.is_kept for epoch in page.epochs] == [False, True]
    assert page.facts["Data fingerprint"] == "f00d"
    assert page.facts["Pushed to"] == "serving/4"
    assert {use.place for use in page.artifacts} >= {"artifacts/ModelGate/verdict/1"}


def test_a_check_that_the_model_gate_takes_over_is_told_once_and_as_it_decided(whole):
    _, serving, model = read_page(whole.root, whole.record()).gates
    assert [(v.name, v.outcome) for v in serving.verdicts] == [("latency", Outcome.OVERRIDDEN)]
    assert [v.name for v in model.verdicts] == ["against majority"]


def test_the_summary_holds_what_the_command_line_shows(whole):
    whole.record()
    summary = summarize(str(whole.root), RUN)
    assert summary == read_summary(whole.root, RUN)
    assert summary.warnings == ("drift of age in test: 0.3 (at most 0.1)",)
    assert summary.overridden == ("latency: 120 ms (at most 100 ms); let pass by ann: known",)
    assert summary.refusals == ()
    assert summary.pushed == str(whole.root / "serving" / "4")
    assert "The model was pushed as version 4." in page_of(summary)


def test_what_a_gate_found_that_stopped_the_run_is_in_summary_and_report(folder):
    folder.statistics()
    folder.refusal("DataGate", pages.binary().data, REFUSED, WARNED)
    folder.record(RunState.FAILED)
    summary = summarize(str(folder.root), RUN)
    assert summary.refusals == ("age is mostly missing [check: missing in age]",)
    html = page_of(summary)
    assert "because DataGate refused: age is mostly missing." in html
    assert "Drift, new values and single columns" in html


def test_a_run_that_did_nothing_still_has_a_report(folder):
    folder.record(RunState.INTERRUPTED)
    assert "the run is interrupted" in page_of(summarize(str(folder.root), RUN))


def test_gates_without_evidence_are_no_fault(folder):
    folder.gate("DataGate", None, PASSED)
    page = read_page(folder.root, folder.record())
    assert page.data is None
    assert page.gates[0].verdicts == (PASSED,)
    assert not any("DataGate" in note for note in page.notes)


@pytest.mark.parametrize(
    ("node_id", "key", "note"),
    [
        (
            "StatisticsGen",
            "statistics",
            "What StatisticsGen put out is gone: artifacts/StatisticsGen/statistics/1.",
        ),
        ("ModelGate", "verdict", "What ModelGate put out is gone: artifacts/ModelGate/verdict/1."),
        ("Trainer", "model_run", "What Trainer put out is gone: artifacts/Trainer/model_run/1."),
    ],
)
def test_a_deleted_artifact_is_named_and_spoils_no_other_part(whole, node_id, key, note):
    shutil.rmtree(whole.root / "artifacts" / node_id / key)
    page = read_page(whole.root, whole.record())
    assert page.notes == (note,)
    assert page.pushed


def test_verdicts_of_an_older_version_and_broken_figures_are_named(whole):
    artifacts = whole.root / "artifacts"
    (artifacts / "DataGate" / "verdict" / "1" / "verdict.json").write_text('[{"name": "x", "passed": true}]')
    (artifacts / "ModelGate" / "verdict" / "1" / evidence.FILE).write_text('{"kind": 3')
    (artifacts / "StatisticsGen" / "statistics" / "1" / "Split-train" / "FeatureStats.pb").write_bytes(
        b"\xff\xff"
    )
    page = read_page(whole.root, whole.record())
    named = " ".join(page.notes)
    assert "the verdicts of DataGate" in named
    assert "the figures of ModelGate" in named
    assert "the statistics of the data" in named
    assert page.serving == pages.binary().serving


def test_the_report_is_written_again_where_it_is_wanted_and_nothing_else_changes(whole):
    whole.record()
    summarize(str(whole.root), RUN)
    before = summary_path(whole.root, RUN).read_text()
    wanted = whole.root / "page.html"
    assert write_report(str(whole.root), "latest", str(wanted)) == str(wanted)
    assert wanted.read_text() == (whole.root / "runs" / RUN / "report.html").read_text()
    assert summary_path(whole.root, RUN).read_text() == before


def test_a_summary_of_an_older_version_is_still_read(tmp_path):
    path = summary_path(tmp_path, RUN)
    path.parent.mkdir(parents=True)
    path.write_text(
        '{"metrics": {"auc": 0.7}, "refusals": ["no"], "pushed": null, "report": "r", "tuned": null}'
    )
    assert read_summary(tmp_path, RUN) == Summary(metrics={"auc": 0.7}, refusals=("no",), report="r")


def test_what_quarantine_refuses_is_told(folder):
    """It stopped the run, so its verdict lies in the folder of refusals."""
    verdict = Verdict("rows set aside in train", Outcome.REFUSED, "4 %", "at most 1 %", "4 % of train is bad")
    place = folder.root / "runs" / RUN / "refused" / "Quarantine"
    place.mkdir(parents=True)
    (place / "verdict.json").write_text(json.dumps([verdict.to_json()]))
    folder.record(RunState.FAILED)
    summary = summarize(str(folder.root), RUN)
    assert summary.refusals == ("4 % of train is bad [check: rows set aside in train]",)
    assert "4 % of train is bad" in page_of(summary)
