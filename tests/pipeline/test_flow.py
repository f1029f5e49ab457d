"""The taxi example, end to end, with the real components: one trained pipeline serves every test here."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from pipeline.push import damaged
from pipeline.runners.events import NodeState
from pipeline.runners.records import RunRecord, RunState, load_run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "taxi" / "pipeline.yaml"


@dataclass(frozen=True)
class Taxi:
    """A folder in which the taxi pipeline runs."""

    root: Path

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(
            main, ["run", str(EXAMPLE), "--set", f"output={self.root}", "--set", "train.epochs=6", *arguments]
        )

    @property
    def latest(self) -> RunRecord:
        return load_run(self.root, "latest")


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Taxi, Result, RunRecord]:
    taxi = Taxi(tmp_path_factory.mktemp("taxi"))
    result = taxi.run()
    return taxi, result, taxi.latest


@pytest.mark.timeout(600)
def test_the_first_run_ends_in_a_pushed_model_with_a_sound_manifest(first):
    taxi, result, record = first
    assert result.exit_code == 0, result.output
    assert record.state is RunState.SUCCEEDED
    assert damaged(taxi.root / "serving" / "1") == []
    manifest = json.loads((taxi.root / "serving" / "1" / "manifest.json").read_text())
    assert manifest["data_fingerprint"]
    assert manifest["config_hash"] == record.config_hash


def test_the_model_is_ahead_of_the_one_rule_that_says_card_payers_tip(first):
    _, result, _ = first
    [line] = [line for line in result.output.splitlines() if line.split()[:1] == ["auc"]]
    assert float(line.split()[1]) > 0.92


def test_the_report_shows_every_component_and_the_bound(first):
    taxi, _, record = first
    html = (taxi.root / "runs" / record.run_id / "report.html").read_text()
    assert all(node in html for node in record.nodes)
    assert "at least 0.92" in html


def test_the_three_signatures_answer_with_the_same_scores(first):
    import numpy as np
    import tensorflow as tf

    taxi, _, record = first
    folder = Path(record.nodes["QueryExampleGen"].uris("examples")[0]) / "Split-test"
    records = tf.data.TFRecordDataset(sorted(map(str, folder.glob("*"))), compression_type="GZIP")
    rows = tf.constant(list(records.take(200).as_numpy_iterator()))
    model = tf.saved_model.load(str(taxi.root / "serving" / "1"))
    scores = model.signatures["serving_default"](examples=rows)
    assert {"transform_features", "serving_raw"} <= set(model.signatures)
    np.testing.assert_allclose(scores["scores"].numpy().sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(scores["scores"].numpy()[:, 1], scores["probability"].numpy()[:, 0], atol=1e-6)
    raw = model.signatures["serving_raw"]
    parsed = [tf.train.Example.FromString(row) for row in rows.numpy()]
    columns = {
        name: tf.constant([_value(example, name, spec.dtype) for example in parsed], spec.dtype)
        for name, spec in raw.structured_input_signature[1].items()
    }
    np.testing.assert_allclose(raw(**columns)["scores"], scores["scores"], atol=1e-5)


def _value(example, name, dtype):
    import tensorflow as tf

    from schemas.features import MISSING_INT

    feature = example.features.feature[name]
    values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
    if values:
        return values[0]
    return {tf.string: b"", tf.int64: MISSING_INT}.get(dtype, float("nan"))


@pytest.mark.timeout(300)
def test_a_rerun_with_nothing_changed_runs_nothing_and_pushes_nothing(first):
    taxi, _, _ = first
    assert taxi.run().exit_code == 0
    states = {node.node_id: node.state for node in taxi.latest.nodes.values()}
    assert {name for name, state in states.items() if state is not NodeState.CACHED} <= {"Champion"}
    assert [path.name for path in (taxi.root / "serving").glob("[0-9]*")] == ["1"]


@pytest.mark.timeout(300)
def test_a_model_below_its_bound_is_not_pushed_and_the_refusal_names_figure_and_bound(first):
    taxi, _, _ = first
    result = taxi.run("--set", "evaluate.bounds=[{metric: auc, min: 0.999}]")
    assert result.exit_code == 1
    assert "it must be at least 0.999" in result.output
    assert [path.name for path in (taxi.root / "serving").glob("[0-9]*")] == ["1"]


@pytest.mark.timeout(300)
def test_a_model_that_loses_to_the_champion_on_the_same_rows_is_not_pushed(first):
    taxi, _, record = first
    bounds = "evaluate.bounds=[{metric: auc, min: 0.5, max_loss_to_champion: 0.005}]"
    result = taxi.run("--set", "train.epochs=1", "--set", "train.learning_rate=0.00001", "--set", bounds)
    assert result.exit_code == 1
    assert taxi.latest.nodes["Champion"].uris("model") == record.nodes["Trainer"].uris("model")
    assert "no more than 0.005 worse than the champion's" in result.output
    assert [path.name for path in (taxi.root / "serving").glob("[0-9]*")] == ["1"]


@pytest.mark.timeout(300)
def test_another_model_as_good_as_the_champion_becomes_the_next_version(first):
    taxi, _, record = first
    result = taxi.run("--set", "train.seed=2")
    assert result.exit_code == 0, result.output
    states = {node.node_id: node.state for node in taxi.latest.nodes.values()}
    assert states["Transform"] is NodeState.CACHED
    assert states["Trainer"] is NodeState.SUCCEEDED
    assert taxi.latest.nodes["Champion"].uris("model") == record.nodes["Trainer"].uris("model")
    assert "no more than 0.01 worse than the champion" in _html(taxi)
    assert damaged(taxi.root / "serving" / "2") == []


@pytest.mark.timeout(300)
def test_a_run_from_a_component_runs_it_and_what_follows_again(first):
    taxi, _, _ = first
    assert taxi.run("--from", "Evaluator").exit_code == 0
    states = {node.node_id: node.state for node in taxi.latest.nodes.values()}
    again = {name for name, state in states.items() if state is not NodeState.CACHED}
    assert again - {"Champion"} == {"Evaluator", "ModelPusher"}


def _html(taxi):
    return (taxi.root / "runs" / taxi.latest.run_id / "report.html").read_text()


@pytest.mark.timeout(300)
def test_bad_data_stops_the_run_before_it_trains(first):
    taxi, _, _ = first
    result = taxi.run("--set", "data_gate.min_rows=1000000")
    assert result.exit_code == 1
    assert taxi.latest.nodes["DataGate"].state is NodeState.FAILED
    assert "fewer than data_gate.min_rows 1,000,000" in result.output
    assert taxi.latest.nodes["Trainer"].state is NodeState.SKIPPED
