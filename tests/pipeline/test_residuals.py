"""Residuals of an exported model on a run's rows: read, scored, kept beside the run's record."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gates.evidence import Residuals
from gates.residuals import changed_columns, most_changed
from pipeline import explanations, residuals
from pipeline.finished_run import FinishedRun, FinishedRunError, find
from pipeline.metadata_rows import MetadataReadError
from pipeline.runners.records import RunRecord, RunState, save
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

RUN = "20260101T000000-ab12"
RECORD = RunRecord(RUN, "shop", "2026-01-01T00:00:00+00:00", RunState.SUCCEEDED)
ROWS = 1500
FEATURES = FeatureSet(
    (Feature("size", DType.FLOAT, Kind.NUMERIC), Feature("city", DType.BYTES, Kind.CATEGORICAL)),
    Label("sold", DType.INT, LabelKind.BINARY, ("0", "1")),
)


def write_split(folder: Path, seed: int, turned: str | None) -> None:
    """Rows whose label follows the size; the other way round where the city is `turned`."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    with tf.io.TFRecordWriter(str(folder / "rows.gz"), "GZIP") as writer:
        for number in range(ROWS):
            size, city = random.normal() + 1, random.choice(["Rome", "Oslo", "Bonn"])
            sold = int(random.random() < 1 / (1 + np.exp(-2 * size)))
            row = {
                "size": tf.train.Feature(float_list=tf.train.FloatList(value=[size])),
                "city": tf.train.Feature(bytes_list=tf.train.BytesList(value=[city.encode()])),
                "sold": tf.train.Feature(int64_list=tf.train.Int64List(value=[sold ^ (city == turned)])),
                "day": tf.train.Feature(int64_list=tf.train.Int64List(value=[1_700_000_000 + 3600 * number])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=row)).SerializeToString())


def write_model(folder: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        size = tf.io.parse_example(examples, {"size": tf.io.FixedLenFeature([1], tf.float32)})["size"]
        positive = tf.sigmoid(2.0 * size)
        return {"scores": tf.concat([1.0 - positive, positive], axis=1)}

    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": serve})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run after which the label turned in one city."""
    for seed, (split, turned) in enumerate({"validation": None, "test": "Oslo"}.items()):
        write_split(tmp_path / "examples" / f"Split-{split}", seed, turned)
    write_model(tmp_path / "model")
    run = FinishedRun(
        features=FEATURES,
        examples=tmp_path / "examples",
        training_examples=tmp_path / "examples",
        transform_graph=tmp_path,
        model=tmp_path / "model",
        time="day",
        learning={},
        hyperparameters={},
    )
    monkeypatch.setattr(residuals, "find", lambda *_: run)
    save(RECORD, tmp_path / "runs" / RUN)
    return tmp_path


def test_the_column_whose_relation_to_the_label_changed_is_named_first(root: Path) -> None:
    found = residuals.measure(str(root), RUN, "test")
    changed = changed_columns(found)[0]
    assert (changed.column, most_changed(changed).name) == ("city", "Oslo")
    [told] = found.answers
    assert {one.split for one in told.over_time} == {"validation", "test"}
    assert told.over_time[0].name.startswith("2023-11-14")
    assert explanations.read(root, RUN, Residuals) == found


def test_a_split_without_rows_is_named(root: Path) -> None:
    (root / "examples" / "Split-test" / "rows.gz").unlink()
    with pytest.raises(FinishedRunError, match=r"Split-test: there are no rows"):
        residuals.measure(str(root), RUN, "test")


def test_a_folder_without_a_store_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(MetadataReadError, match="nothing has run in this folder"):
        find(tmp_path, RECORD)


@pytest.mark.timeout(600)
def test_a_real_run_is_found_with_all_that_made_its_model(first_run) -> None:
    run = find(first_run.taxi.root, first_run.record)
    assert run.examples == first_run.output("QueryExampleGen", "examples")
    assert run.transform_graph == first_run.output("Transform", "transform_graph")
    assert (run.model / "saved_model.pb").is_file()
    assert run.learning["train"]["epochs"] == 6
    assert run.time == "trip_start"
    assert run.hyperparameters == {}
    with pytest.raises(FinishedRunError, match="no finished Trainer"):
        find(first_run.taxi.root, RECORD)
