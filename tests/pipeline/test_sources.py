"""Rows through TFX's stock ExampleGens, a first run without a schema, and the Tuner: with the real components."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from cli.run import SCHEMA_FACTORY, run_spec
from pipeline.config import load
from pipeline.runners import local
from pipeline.runners.events import NodeState
from pipeline.runners.records import RunRecord, load_run

SPLITS = {"train": 1200, "validation": 300, "test": 500}
CONFIG = """
name: shop
data:
  source: {kind: csv, folder: "data/span-{SPAN:2}"}
  split: {by: folder}
  span: {last: latest, window: 1}
label: {column: sold}
features: {exclude: [id]}
model: {hidden_units: [8]}
train: {epochs: 2, batch_size: 64}
tune:
  enabled: true
  trials: 2
  epochs: 1
  search: {train.learning_rate: {min: 0.001, max: 0.01, log: true}}
evaluate:
  bounds: [{metric: auc, min: 0.6}]
model_gate: {must_beat: [majority]}
"""


def rows(count: int, first_id: int) -> list[dict[str, Any]]:
    """Rows in which a large and red thing is sold more often."""
    chance = random.Random(first_id)
    made = []
    for number in range(count):
        colour, size = chance.choice(["red", "green", "blue"]), round(chance.gauss(0, 1), 3)
        is_sold = chance.random() < 0.2 + 0.4 * (size > 0) + 0.3 * (colour == "red")
        made.append({"id": first_id + number, "colour": colour, "size": size, "sold": int(is_sold)})
    return made


def write_csv(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", *arguments])


def examples(record: RunRecord, node: str) -> dict[str, list[dict[str, Any]]]:
    """The rows that an ExampleGen wrote, by split."""
    import tensorflow as tf

    [uri] = record.nodes[node].uris("examples")
    return {
        split: [
            _row(tf.train.Example.FromString(text))
            for text in tf.data.TFRecordDataset(
                sorted(map(str, (Path(uri) / f"Split-{split}").glob("*"))), compression_type="GZIP"
            ).as_numpy_iterator()
        ]
        for split in SPLITS
    }


def _row(example) -> dict[str, Any]:
    features = example.features.feature
    return {name: getattr(f, f.WhichOneof("kind")).value[0] for name, f in features.items()}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A project of two spans of CSV files and no schema."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "pipeline.yaml").write_text(CONFIG)
    for span in (1, 2):
        for place, (split, count) in enumerate(SPLITS.items()):
            write_csv(
                folder / f"data/span-{span:02d}/{split}/a.csv", rows(count, 10_000 * span + 2000 * place)
            )
    return folder


@pytest.fixture(scope="module")
def first(shop) -> tuple[Path, Result, RunRecord]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shop)
        result = run()
    return shop, result, load_run(shop / "output/shop", "latest")


@pytest.mark.timeout(400)
def test_a_first_run_without_a_schema_infers_one_and_goes_on_to_a_pushed_model(first):
    folder, result, record = first
    assert result.exit_code == 0, result.output
    assert "schema.pbtxt was inferred by SchemaGen" in result.output
    label = load(folder / "pipeline.yaml").feature_set().label
    assert (label.name, label.classes) == ("sold", ("0", "1"))
    assert record.nodes["ImportSchemaGen"].state is NodeState.SUCCEEDED
    assert (folder / "output/shop/serving/1/saved_model.pb").exists()


def test_the_newest_span_is_read_and_its_folders_are_the_splits(first):
    _, _, record = first
    found = examples(record, "CsvExampleGen")
    assert {split: len(read) for split, read in found.items()} == SPLITS
    assert {row["id"] // 10_000 for read in found.values() for row in read} == {2}


def test_the_trainer_uses_what_the_tuner_found(first):
    folder, _, record = first
    best = json.loads((folder / "output/shop/best_hyperparameters.json").read_text())
    [model_run] = record.nodes["Trainer"].uris("model_run")
    used = json.loads((Path(model_run) / "training.json").read_text())["train"]["learning_rate"]
    assert used == pytest.approx(best["train.learning_rate"])


@pytest.mark.timeout(400)
def test_stored_hyperparameters_serve_a_run_without_a_search(first):
    folder, _, _ = first
    best = folder / "output/shop/best_hyperparameters.json"
    best.write_text(json.dumps({"train.learning_rate": 0.004}))
    result = run(
        str(folder / "pipeline.yaml"),
        *("--set", f"output={folder / 'output/shop'}", "--set", "tune.enabled=false"),
        *("--set", f"tune.best={best}", "--set", "train.checks=false"),
    )
    assert result.exit_code == 0, result.output
    record = load_run(folder / "output/shop", "latest")
    assert "Tuner" not in record.nodes
    assert record.nodes["Transform"].state is NodeState.CACHED
    [model_run] = record.nodes["Trainer"].uris("model_run")
    assert json.loads((Path(model_run) / "training.json").read_text())["train"]["learning_rate"] == 0.004


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "node"), [("parquet", "ParquetExampleGen"), ("tfrecord", "ImportExampleGen")]
)
def test_files_without_split_folders_are_split_by_the_hash_of_a_column(kind, node, tmp_path):
    records = rows(2000, 0)
    write_csv(tmp_path / "all.csv", records)
    (tmp_path / "rows").mkdir()
    if kind == "parquet":
        duckdb.sql(f"COPY (FROM '{tmp_path}/all.csv') TO '{tmp_path}/rows/a.parquet' (FORMAT parquet)")
    else:
        _write_tfrecords(tmp_path / "rows" / "a.tfrecord.gz", records)
    record = _first_part(
        tmp_path, f"{{kind: {kind}, folder: rows}}", "{by: hash, columns: [id], test_fraction: 0.25}"
    )
    found = examples(record, node)
    ids = [row["id"] for read in found.values() for row in read]
    assert sorted(ids) == [row["id"] for row in records]
    assert len(found["train"]) == pytest.approx(1300, abs=100)
    assert len(found["test"]) == pytest.approx(500, abs=80)


def _write_tfrecords(path: Path, records: list[dict[str, Any]]) -> None:
    import tensorflow as tf

    def feature(value):
        match value:
            case int():
                return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
            case float():
                return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in records:
            features = tf.train.Features(feature={name: feature(value) for name, value in record.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())


def _first_part(folder: Path, source: str, split: str) -> RunRecord:
    """Runs ExampleGen, StatisticsGen and SchemaGen."""
    file = folder / "pipeline.yaml"
    file.write_text(
        f"name: shop\noutput: out\ndata:\n  source: {source}\n  split: {split}\nlabel: {{column: sold}}\n"
    )
    spec = run_spec(load(file))
    record = local.run(local.RunSpec(**{**vars(spec), "factory": SCHEMA_FACTORY}))
    assert record.failed_nodes == ()
    return record


@pytest.mark.timeout(200)
def test_a_file_with_new_content_is_read_again_though_its_name_size_and_time_are_the_same(tmp_path):
    import os

    file = tmp_path / "rows" / "a.csv"
    write_csv(file, rows(100, 1000))
    source, split = "{kind: csv, folder: rows}", "{by: hash, columns: [id]}"
    assert _first_part(tmp_path, source, split).nodes["CsvExampleGen"].state is NodeState.SUCCEEDED
    before = file.stat()
    file.write_text(file.read_text().replace("1005", "9005"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    record = _first_part(tmp_path, source, split)
    assert record.nodes["CsvExampleGen"].state is NodeState.SUCCEEDED
    assert 9005 in {row["id"] for read in examples(record, "CsvExampleGen").values() for row in read}


def test_bigquery_gets_a_query_for_each_split_its_span_and_the_project(tmp_path):
    from pipeline import stages

    (tmp_path / "rows.sql").write_text(
        "SELECT * FROM shop.sales WHERE week BETWEEN $first_span AND $last_span"
    )
    (tmp_path / "pipeline.yaml").write_text(
        """
name: shop
data:
  source: {kind: bigquery, sql: rows.sql, project: my-project, temp_location: gs://bucket/temp}
  split: {by: hash, columns: [id]}
  span: {last: 12, window: 4}
label: {column: sold}
"""
    )
    node = stages.example_gen(load(tmp_path / "pipeline.yaml"))
    splits = json.loads(node.exec_properties["input_config"])["splits"]
    assert [part["name"] for part in splits] == ["train", "validation", "test"]
    assert all("WHERE week BETWEEN $first_span AND $last_span" in part["pattern"] for part in splits)
    assert (node.exec_properties["span"], node.exec_properties["window"]) == (12, 4)
    arguments = node.platform_config or node.executor_spec.beam_pipeline_args
    assert "--project=my-project" in arguments
    assert "--temp_location=gs://bucket/temp" in arguments
