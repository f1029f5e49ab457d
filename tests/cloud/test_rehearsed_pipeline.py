"""The compiled taxi example, run from its specification: the proof that what Vertex AI gets is what ran here."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main
from gates.verdict import Verdict
from pipeline.evaluation import read_metrics
from tests.taxi import EXAMPLE

pytestmark = pytest.mark.timeout(1200)

IMAGE = "europe-docker.pkg.dev/a-project/headworks/headworks@sha256:" + "0" * 64
GATES = ("DataGate", "ServingCheck", "ModelGate")


class Rehearsed:
    """The outputs of a rehearsal."""

    def __init__(self, root, job):
        self.root = root
        self.job = job

    def output(self, task, key):
        return self.job / task / key

    @property
    def tasks(self):
        return {folder.name: json.loads((folder / "task.json").read_text()) for folder in self.job.iterdir()}


@pytest.fixture(scope="module")
def rehearse(tmp_path_factory):
    """From a number of epochs to a rehearsal of the one compiled job, always below the same folder."""
    folder = tmp_path_factory.mktemp("rehearsed")
    spec, root = folder / "taxi.json", folder / "root"
    settings = ["--image", IMAGE, "--set", "train.checks=false", "--output", str(spec)]
    compiled = CliRunner().invoke(main, ["compile", str(EXAMPLE), *settings])
    assert compiled.exit_code == 0, compiled.output

    def run(epochs):
        before = set((root / "rehearsal").glob("*"))
        command = ["rehearse", str(spec), "--root", str(root), "--parameter", f"epochs={epochs}"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        [job] = set((root / "rehearsal").glob("*")) - before
        return Rehearsed(root, job)

    return run


@pytest.fixture(scope="module")
def rehearsed(rehearse):
    return rehearse(6)


def verdicts(folder):
    entries = json.loads((Path(folder) / "verdict.json").read_text())
    return [Verdict.from_json(entry) for entry in entries]


def test_every_component_of_the_local_run_ends_well(rehearsed, first_run):
    local = {name.partition(".")[0] for name in first_run.record.nodes}
    assert set(rehearsed.tasks) == local


@pytest.mark.parametrize("gate", GATES)
def test_the_same_gates_judge_alike(rehearsed, first_run, gate):
    ours = verdicts(rehearsed.output(gate, "verdict"))
    theirs = verdicts(first_run.output(gate, "verdict"))
    assert [(one.name, one.outcome) for one in ours] == [(one.name, one.outcome) for one in theirs]


def test_the_metrics_are_those_of_the_local_run(rehearsed, first_run):
    ours = read_metrics(str(rehearsed.output("Evaluator", "evaluation")))
    theirs = read_metrics(str(first_run.output("Evaluator", "evaluation")))
    assert [row.name for row in ours] == [row.name for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.metrics == pytest.approx(other.metrics, abs=1e-6, nan_ok=True), mine.name


def test_the_pushed_version_is_the_local_one_and_says_who_made_it(rehearsed, first_run):
    ours = json.loads((rehearsed.root / "serving" / "1" / "manifest.json").read_text())
    theirs = json.loads((first_run.taxi.root / "serving" / "1" / "manifest.json").read_text())
    for fact in ("pipeline", "data_fingerprint", "rows"):
        assert ours[fact] == theirs[fact], fact
    assert math.isclose(ours["threshold"], theirs["threshold"], abs_tol=1e-6)
    assert ours["run_id"] == rehearsed.job.name


def test_the_next_run_meets_the_champion_and_takes_what_did_not_change_from_the_cache(rehearse, rehearsed):
    again = rehearse(7)
    states = {name: task["state"] for name, task in again.tasks.items()}
    assert {name for name, state in states.items() if state == "cached"} == {
        "ImportSchemaGen",
        "QueryExampleGen",
        "StatisticsGen",
        "ExampleValidator",
        "Transform",
    }
    ours = {row.name: row for row in read_metrics(str(again.output("Evaluator", "evaluation")))}
    before = {row.name: row for row in read_metrics(str(rehearsed.output("Evaluator", "evaluation")))}
    for name, row in ours.items():
        assert row.champion["auc"] == pytest.approx(before[name].metrics["auc"], abs=1e-6, nan_ok=True)
    assert any("champion" in verdict.name for verdict in verdicts(again.output("ModelGate", "verdict")))
    manifest = json.loads((rehearsed.root / "serving" / "2" / "manifest.json").read_text())
    assert manifest["run_id"] == again.job.name
