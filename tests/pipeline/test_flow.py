"""The taxi example, end to end, with the real components: one trained pipeline serves every test here."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from models.settings import NetworkSettings, TrainSettings
from pipeline.config import load
from pipeline.push import damaged
from pipeline.runners.events import NodeState
from pipeline.runners.records import RunRecord, RunState
from tests.taxi import EXAMPLE, Taxi

RESOLVERS = {"Champion", "PreviousData"}
"""Nodes that ask ML Metadata, and are never cached."""


@pytest.fixture(scope="module")
def first(first_run) -> tuple[Taxi, Result, RunRecord]:
    return first_run.taxi, first_run.result, first_run.record


@pytest.mark.timeout(600)
def test_the_first_run_ends_in_a_pushed_model_with_a_sound_manifest(first):
    taxi, result, record = first
    assert result.exit_code == 0, result.output
    assert record.state is RunState.SUCCEEDED
    assert damaged(taxi.root / "serving" / "1") == []
    manifest = json.loads((taxi.root / "serving" / "1" / "manifest.json").read_text())
    assert manifest["data_fingerprint"]
    assert manifest["config_hash"] == record.config_hash
    assert manifest["run_id"] == record.run_id


@pytest.mark.timeout(300)
def test_the_pushed_version_alone_says_what_prediction_needs_and_answers_its_warm_up(first):
    from beam_jobs.pushed import PushedModel

    pushed = PushedModel.read(str(first[0].root / "serving"))
    assert pushed.features == load(EXAMPLE).feature_set()
    assert pushed.key == ("trip_id",)
    assert pushed.columns["trip_id"] == "bytes"
    assert pushed.threshold is not None
    assert 0 < pushed.threshold < 1
    assert "assets.extra/tf_serving_warmup_requests" in pushed.digests
    pushed.load()


@pytest.mark.timeout(300)
def test_the_rows_of_the_query_are_scored_by_the_pushed_version(first, tmp_path):
    import pyarrow.parquet as pq
    from sklearn.metrics import roc_auc_score

    arguments = (
        "--query",
        "--model",
        str(first[0].root / "serving"),
        "--output",
        str(tmp_path),
        "--job",
        "all",
    )
    result = CliRunner().invoke(
        main, ["predict", str(EXAMPLE), *arguments, "--carry", "is_big_tipper,trip_start"]
    )
    assert result.exit_code == 0, result.output
    assert "rows: 15,000 read, 15,000 predicted, 0 dead letters" in result.output
    scored = pq.read_table(tmp_path / "all" / "predictions").to_pandas()
    test = scored.nlargest(5_001, "trip_start")
    assert roc_auc_score(test["is_big_tipper"], test["probability_1"]) > 0.92


def test_the_model_is_ahead_of_the_one_rule_that_says_card_payers_tip(first):
    _, result, _ = first
    [line] = [line for line in result.output.splitlines() if line.split()[:1] == ["auc"]]
    assert float(line.split()[1]) > 0.92


def test_the_report_shows_every_component_and_the_bound(first):
    taxi, _, record = first
    html = (taxi.root / "runs" / record.run_id / "report.html").read_text()
    assert all(node in html for node in record.nodes)
    assert "at least 0.92" in html
    assert "the one column payment_type" in html


@pytest.mark.timeout(300)
def test_every_signature_agrees_with_the_network_in_memory_on_real_test_rows(first, tmp_path):
    import numpy as np
    import tensorflow as tf
    from tensorflow_transform import TFTransformOutput

    from models import signatures, trainer
    from models.inputs import Reader

    _, _, record = first
    features = load(EXAMPLE).feature_set()
    [examples] = record.nodes["QueryExampleGen"].uris("examples")
    [graph] = record.nodes["Transform"].uris("transform_graph")
    arguments = SimpleNamespace(
        custom_config={"features": features.to_json()},
        transform_graph_path=graph,
        train_files=[f"{examples}/Split-train/*"],
        eval_files=[f"{examples}/Split-validation/*"],
    )
    train = TrainSettings(epochs=2, batch_size=256, learning_rate=0.01)
    data = trainer.load_data(arguments, train)
    network = trainer.fit(data, trainer.Settings(NetworkSettings(), train)).network
    signatures.export(network, features, TFTransformOutput(graph), str(tmp_path / "model"))

    files = sorted(map(str, Path(examples).glob("Split-test/*")))
    rows = tf.constant(list(tf.data.TFRecordDataset(files, "GZIP").take(2000).as_numpy_iterator()))
    inputs, _ = Reader(features, TFTransformOutput(graph)).decode(rows)
    positive = tf.sigmoid(network(inputs, training=False))[:, 0].numpy()

    served = tf.saved_model.load(str(tmp_path / "model")).signatures
    assert len(positive) == 2000
    assert positive.std() > 0.05
    for answer in (served["serving_default"](examples=rows), _answer_raw(served["serving_raw"], rows)):
        np.testing.assert_allclose(answer["scores"][:, 1], positive, atol=1e-5)
        np.testing.assert_allclose(answer["scores"][:, 0], 1 - positive, atol=1e-5)
        np.testing.assert_allclose(answer["probability"][:, 0], positive, atol=1e-5)
        assert set(map(tuple, answer["classes"].numpy())) == {(b"0", b"1")}
    transformed = served["transform_features"](examples=rows)
    for name, column in inputs.items():
        np.testing.assert_allclose(transformed[name], column, atol=1e-5)


def test_the_pushed_model_gives_each_class_its_own_score(first):
    import numpy as np
    import tensorflow as tf

    taxi, result, record = first
    [examples] = record.nodes["QueryExampleGen"].uris("examples")
    files = sorted(map(str, Path(examples).glob("Split-test/*")))
    rows = list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())
    labels = [
        tf.train.Example.FromString(row).features.feature["is_big_tipper"].int64_list.value[0] for row in rows
    ]
    model = tf.saved_model.load(str(taxi.root / "serving" / "1"))
    scores = model.signatures["serving_default"](examples=tf.constant(rows))["scores"].numpy()
    auc = tf.keras.metrics.AUC(1000)
    auc.update_state(np.array(labels), scores[:, 1])
    told = next(float(line.split()[1]) for line in result.output.splitlines() if line.split()[:1] == ["auc"])
    assert auc.result().numpy() == pytest.approx(told, abs=0.002)


def _answer_raw(signature, rows):
    import tensorflow as tf

    parsed = [tf.train.Example.FromString(row) for row in rows.numpy()]
    return signature(
        **{
            name: tf.constant([_value(example, name, spec.dtype) for example in parsed], spec.dtype)
            for name, spec in signature.structured_input_signature[1].items()
        }
    )


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
    assert {name for name, state in states.items() if state is not NodeState.CACHED} <= RESOLVERS
    assert [path.name for path in (taxi.root / "serving").glob("[0-9]*")] == ["1"]


@pytest.mark.timeout(300)
def test_device_models_of_the_pushed_version_are_made_from_the_cache_and_beside_it(first):
    taxi, _, _ = first
    asked = ("tflite.enabled=true", "tflite.variants=[float32,int8]", "tflite.budget.max_auc_drop=0.005")
    result = taxi.run(*(part for one in asked for part in ("--set", one)))
    assert result.exit_code == 0, result.output
    states = {node.node_id: node.state for node in taxi.latest.nodes.values()}
    again = {name for name, state in states.items() if state is not NodeState.CACHED}
    assert again - RESOLVERS == {"DeviceModels"}
    assert f"device models: {taxi.root / 'device' / '1'}" in result.output
    assert damaged(taxi.root / "device" / "1") == []
    server = sum(path.stat().st_size for path in (taxi.root / "serving" / "1").rglob("*") if path.is_file())
    assert (taxi.root / "device" / "1" / "int8.tflite").stat().st_size < server / 8
    assert "On the device" in _html(taxi)


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
    assert "the model is worse than the one that serves, beyond the interval" in result.output
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
    result = taxi.run("--set", "train.seed=2", "--from", "Evaluator")
    assert result.exit_code == 0, result.output
    states = {node.node_id: node.state for node in taxi.latest.nodes.values()}
    again = {name for name, state in states.items() if state is not NodeState.CACHED}
    assert again - RESOLVERS == {"Evaluator", "ModelGate", "ModelPusher"}


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
