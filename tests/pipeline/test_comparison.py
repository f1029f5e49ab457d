"""Runs read for a comparison, from output folders as runs leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gates import evidence
from gates.evidence import DataEvidence, Estimate, ModelEvidence
from gates.verdict import Outcome, Verdict
from pipeline.comparison import ComparisonError, compare, link_logs
from pipeline.origins import config_path
from pipeline.runners.events import NodeResult, NodeState, Output
from pipeline.runners.records import RunRecord, RunRecordError, RunState, save
from pipeline.summary_file import summary_path

FIRST, SECOND = "20260101T000000-ab12", "20260102T000000-cd34"
REFUSED = Verdict("auc", Outcome.REFUSED, "0.5", "at least 0.6", "the AUC is too low")


class Made:
    """One run in an output folder; parts are added before `save`."""

    def __init__(self, root: Path, run_id: str, pipeline: str = "shop") -> None:
        self.root, self.run_id, self.pipeline = root, run_id, pipeline
        self.nodes: dict[str, NodeResult] = {}

    def artifact(self, node_id: str, key: str, state: NodeState = NodeState.SUCCEEDED) -> Path:
        place = self.root / "artifacts" / node_id / key / self.run_id
        place.mkdir(parents=True)
        known = self.nodes.get(node_id, NodeResult(node_id, state, 1.5))
        outputs = (*known.outputs, Output(key, 1, "Thing", str(place), 1, 10))
        self.nodes[node_id] = NodeResult(node_id, state, 1.5, outputs=outputs)
        return place

    def trained(self, epochs: int = 2, state: NodeState = NodeState.SUCCEEDED, **train) -> Path:
        history = [{"epoch": n + 1, "val_auc": 0.6 + n / 100} for n in range(epochs)]
        settings = {"epochs": epochs, "learning_rate": 0.1, **train}
        folder = self.artifact("Trainer", "model_run", state)
        record = {
            "chosen_epoch": epochs, "history": history, "monitor": "val_auc", "seconds": 3.0, "parameters": 17,
            "rows": {"train": 100, "validation": 10}, "model": {"dropout": 0.1}, "train": settings,
        }  # fmt: skip
        (folder / "training.json").write_text(json.dumps(record))
        (folder / "train").mkdir()
        (folder / "train" / "events.out.tfevents.1").touch()
        self.artifact("Trainer", "model", state)
        return folder

    def gated(self, *verdicts: Verdict, found: DataEvidence | ModelEvidence, node_id: str) -> None:
        folder = self.artifact(node_id, "verdict")
        (folder / "verdict.json").write_text(json.dumps([v.to_json() for v in verdicts]))
        evidence.write(found, folder)

    def configured(self, label: str = "bought", **train) -> None:
        path = config_path(self.root, "c" * 8 + self.run_id)
        path.parent.mkdir(exist_ok=True)
        config = {
            "name": self.pipeline,
            "label": {"column": label},
            "model": {"dropout": 0.1},
            "train": train,
        }
        path.write_text(json.dumps(config))

    def save(
        self, state: RunState = RunState.SUCCEEDED, error: str | None = None, pushed: str | None = None
    ) -> Path:
        record = RunRecord(
            self.run_id, self.pipeline, "2026-01-01T00:00:00+00:00", state,
            config_hash="c" * 8 + self.run_id, error=error, nodes=self.nodes,
        )  # fmt: skip
        save(record, self.root / "runs" / self.run_id)
        metrics = {"metrics": {"recall": 0.4}, "pushed": pushed}
        summary_path(self.root, self.run_id).write_text(json.dumps(metrics))
        return self.root / "runs" / self.run_id


@pytest.fixture
def root(tmp_path) -> Path:
    """Two runs that differ in the learning rate; the second is refused."""
    for run_id, rate in ((FIRST, 0.1), (SECOND, 0.2)):
        made = Made(tmp_path, run_id)
        made.configured(epochs=2, learning_rate=0.1)
        rows = DataEvidence({"train": 100, "test": 50}, {}, ())
        made.gated(found=rows, node_id="DataGate")
        made.trained(learning_rate=rate)
        estimates = (
            Estimate("model", "auc", 0.7, 0.6, 0.8, 50),
            Estimate("model", "auc", 0.9, 0.8, 1.0, 20, slice="age = old"),
            Estimate("champion", "auc", 0.6, 0.5, 0.7, 50),
        )
        verdicts = (REFUSED,) if run_id == SECOND else ()
        made.gated(*verdicts, found=ModelEvidence("binary", ("0", "1"), 50, estimates), node_id="ModelGate")
        (tmp_path / "serving" / "3").mkdir(parents=True, exist_ok=True)
        made.save(pushed=str(tmp_path / "serving" / "3") if run_id == FIRST else None)
    return tmp_path


def test_what_the_trainer_really_used_counts_not_what_was_configured(root):
    """A search, or stored hyperparameters, replace what the configuration says."""
    comparison = compare(root, [FIRST, SECOND])
    assert [(row.name, row.values) for row in comparison.parameters] == [
        ("train.learning_rate", ("0.1", "0.2"))
    ]
    assert comparison.unchanged == 4


def test_a_run_is_read_with_data_estimates_training_and_what_came_of_it(root):
    first, second = compare(root, [FIRST, SECOND]).runs
    assert first.outcome == "pushed as version 3"
    assert second.outcome == "refused by ModelGate: the AUC is too low"
    assert first.rows == {"train": 100, "test": 50}
    assert [(e.metric, e.low) for e in first.estimates] == [("auc", 0.6)]
    assert first.metrics == {"recall": 0.4}
    assert first.label == "bought"
    assert first.training is not None
    assert first.training.kept == "2 of 2, val_auc 0.6100"
    assert first.model_bytes == 10
    assert second.notes == (
        f"Could not read the fingerprint of the data: MetadataReadError: {root}/metadata.sqlite: no such file; "
        "nothing has run in this folder yet.",
    )


def test_champion_is_the_run_that_pushed_the_highest_version_that_is_there(root):
    assert compare(root, ["latest", "champion"]).runs[1].run_id == FIRST
    (root / "serving" / "3").rmdir()
    with pytest.raises(RunRecordError, match=r"champion: no run in .* pushed a version that is still there"):
        compare(root, ["latest", "champion"])


def test_a_run_that_is_not_there_and_one_named_twice_are_refused(root):
    with pytest.raises(RunRecordError, match="2031: no such run"):
        compare(root, ["latest", "2031"])
    with pytest.raises(ComparisonError, match=f"latest and 20260102 are the same run, {SECOND}"):
        compare(root, ["latest", "20260102"])


def test_a_run_that_failed_before_training_is_told_and_the_others_are_compared(root):
    made = Made(root, "20260103T000000-ef56")
    made.configured(epochs=2, learning_rate=0.3)
    made.nodes["Transform"] = NodeResult(
        "Transform", NodeState.FAILED, error="Transform: ValueError: no rows"
    )
    made.save(RunState.FAILED)
    comparison = compare(root, [FIRST, "latest"])
    assert (
        f"{made.run_id} has no training to compare: failed in Transform: ValueError: no rows."
        in comparison.cautions
    )
    assert [row.values for row in comparison.parameters] == [("0.1", "0.3")]
    assert list(comparison.curves("val_auc")) == ["ab12"]


def test_runs_of_other_pipelines_go_by_their_folders_and_their_labels_are_told_apart(root, tmp_path_factory):
    elsewhere = Made(tmp_path_factory.mktemp("other"), FIRST, "taxi")
    elsewhere.configured(label="tip", epochs=2)
    elsewhere.trained()
    folder = elsewhere.save()
    comparison = compare(None, [str(root / "runs" / FIRST), str(folder)])
    assert "These are runs of different pipelines, shop and taxi." in comparison.cautions
    assert (
        "They predict different columns, bought and tip: their metrics do not compare." in comparison.cautions
    )
    with pytest.raises(RunRecordError, match="2031: not the folder of a run"):
        compare(None, [str(folder), "2031"])


def test_a_model_from_the_cache_is_said_to_be_the_same(root):
    again = Made(root, "20260103T000000-ef56")
    again.configured(epochs=2, learning_rate=0.1)
    first = compare(root, [FIRST, SECOND]).runs[0]
    outputs = (
        Output("model_run", 1, "T", str(first.logs), 1, 1),
        Output("model", 2, "T", str(first.model), 1, 1),
    )
    again.nodes["Trainer"] = NodeResult("Trainer", NodeState.CACHED, outputs=outputs)
    again.save()
    comparison = compare(root, [FIRST, "latest"])
    assert f"{FIRST} and {again.run_id} have the same model, from the cache." in comparison.cautions
    assert comparison.training[1].values == ("3.0 s", "3.0 s (in an earlier run)")
    assert link_logs(comparison.runs, root / "x.logs") == root / "x.logs"
    assert [link.name for link in (root / "x.logs").iterdir()] == [FIRST]


def test_links_to_logs_are_those_of_the_runs_compared_last(root):
    runs = compare(root, [FIRST, SECOND]).runs
    folder = root / "compare.logs"
    assert link_logs(runs, folder) == folder
    assert sorted(link.name for link in folder.iterdir()) == [FIRST, SECOND]
    assert (folder / SECOND / "train").is_dir()
    link_logs(runs[:1], folder)
    assert [link.name for link in folder.iterdir()] == [FIRST]


def test_damaged_artifacts_are_named_and_spoil_no_other_part(root):
    (root / "artifacts" / "Trainer" / "model_run" / FIRST / "training.json").write_text("{")
    (root / "artifacts" / "ModelGate" / "verdict" / FIRST / evidence.FILE).write_text("[]")
    first = compare(root, [FIRST, SECOND]).runs[0]
    told = " ".join(first.notes)
    assert "Could not read the record of the training" in told
    assert "Could not read the figures of ModelGate" in told
    assert first.rows == {"train": 100, "test": 50}
    assert first.parameters is not None
    assert first.parameters["train.learning_rate"] == 0.1


def test_a_record_says_where_a_training_ran_and_with_what_it_began():
    from pipeline.run_artifacts import beginnings

    plain = {"history": [], "chosen_epoch": 1, "train": {"strategy": "multi_worker"}}
    assert beginnings(plain) == ()
    cold = {**plain, "train": {"warm_start": {"source": "champion"}}, "warm_start": None}
    assert beginnings(cold) == (
        "It began with random weights: no model that learned from other rows was pushed before.",
    )
    rich = {
        **plain,
        "replicas": 2,
        "resumed_after_epochs": 3,
        "warm_start": {"base_model": "old", "layers": [{"rows_new": 1}, {"rows_new": 2}]},
        "refit": {"rows": 1200, "seconds": 2.0},
        "checks": [{"name": "gradients", "sentence": "all are finite"}],
    }
    assert beginnings(rich) == (
        "2 replicas shared every batch (multi_worker).",
        "It went on after epoch 3, where an earlier process had ended.",
        "2 layers began with the weights of old; 3 ids were new.",
        "Validation chose the epoch; then the model was trained anew, for as many, on all 1,200 rows of train and "
        "validation: its figures on validation are of rows it has seen.",
        "Checked before: gradients: all are finite.",
    )
