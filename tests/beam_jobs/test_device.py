"""A device model scores the rows of a job as the pushed version does, and only those of its own version."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from click.testing import CliRunner

from beam_jobs.device import DeviceWay
from beam_jobs.rows import PredictionError
from cli.main import main
from schemas.features import FeatureSet
from tests.beam_jobs.pushed_model import FEATURES, chance
from tflite.analysed import Analysed, Moments
from tflite.device_model import convert
from tflite.metadata import DeviceFeature, DeviceLabel, Metadata, attach, read
from tflite.preprocessing import input_layout


def device_model(path: Path, version: int = 1, features: FeatureSet = FEATURES) -> Path:
    """The rain model as a file for devices."""
    as_they_are = Analysed(
        {name: Moments(0.0, 1.0) for name in ("humidity", "gusts")}, {}, {"place": (b"A", b"B")}
    )
    model = convert(
        lambda columns: columns["humidity_scaled"] / 100 + 0.1 * columns["gusts_scaled"],
        features,
        as_they_are,
    )
    widths = {place.name: place.width for place in input_layout(features, as_they_are)}
    said = Metadata(
        name="rain",
        version=version,
        run_id=f"run-{version}",
        source_sha256="0" * 64,
        variant="float32",
        label=DeviceLabel(features.label.name, features.label.kind.value, features.label.classes),
        features=tuple(
            DeviceFeature(f.name, f.graph_name, f.dtype.value, f.kind.value, f.is_required, widths[f.name])
            for f in features
        ),
        threshold=0.5,
    )
    path.write_bytes(attach(model, said))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return device_model(tmp_path_factory.mktemp("device") / "model.tflite")


def example(**columns) -> bytes:
    features = {}
    for name, value in columns.items():
        if isinstance(value, bytes):
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif isinstance(value, int):
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_rows_are_scored_and_one_that_the_client_refuses_takes_no_other_along(pushed, file):
    way = DeviceWay(pushed, str(file))
    rows = [example(humidity=40.0, gusts=3, place=b"A"), example(gusts=1), example(humidity=70.0)]
    answer = way.answer(rows)
    np.testing.assert_allclose(answer.scores[[0, 2], 1], [chance(40, 3), chance(70)], rtol=1e-6)
    assert math.isnan(answer.scores[1, 1])
    assert list(answer.failures) == [1]
    assert "humidity" in answer.failures[1]


def test_threads_that_share_the_way_get_their_own_answers(pushed, file):
    way, found = DeviceWay(pushed, str(file)), {}

    def ask(humidity: float) -> None:
        found[humidity] = way.answer([example(humidity=humidity)] * 200).scores[:, 1]

    threads = [threading.Thread(target=ask, args=(humidity,)) for humidity in (10.0, 50.0, 90.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for humidity, scores in found.items():
        np.testing.assert_allclose(scores, chance(humidity), rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"version": 7}, "made from version 7 of rain"),
        ({"run_id": "run-OTHER"}, r"version 1 of rain \(run run-OTHER\)"),
        ({"label": DeviceLabel("rain", "binary", ("dry", "flood"))}, "gives other classes"),
    ],
)
def test_a_file_of_another_model_is_refused(pushed, tmp_path, file, changed, says):
    other = tmp_path / "other.tflite"
    other.write_bytes(attach(file.read_bytes(), replace(read(file), **changed)))
    with pytest.raises(PredictionError, match=says):
        DeviceWay(pushed, str(other))


def test_scores_go_by_the_names_of_the_classes(pushed, tmp_path, file):
    turned = tmp_path / "turned.tflite"
    label = DeviceLabel("rain", "binary", FEATURES.label.classes[::-1])
    turned.write_bytes(attach(file.read_bytes(), replace(read(file), label=label)))
    answer = DeviceWay(pushed, str(turned)).answer([example(humidity=40.0)])
    np.testing.assert_allclose(answer.scores[0, 0], chance(40), rtol=1e-6)


def test_a_file_that_is_no_device_model_is_refused_by_the_command(serving, tmp_path):
    file, rows = tmp_path / "model.tflite", tmp_path / "days.csv"
    file.write_bytes(b"no model")
    rows.write_text("day,humidity,gusts,place\nmon,40,3,A\n")
    arguments = ("--model", str(serving), "--input", str(rows), "--output", str(tmp_path / "out"))
    result = CliRunner().invoke(main, ["predict", *arguments, "--via", "device", "--device-model", str(file)])
    assert result.exit_code == 1
    assert "model.tflite" in result.output
    assert not (tmp_path / "out").exists()


def test_the_command_scores_files_with_it(serving, file, tmp_path):
    rows = tmp_path / "days.csv"
    rows.write_text("day,humidity,gusts,place\nmon,40,3,A\ntue,80,,B\n")
    arguments = ("predict", "--model", str(serving), "--input", str(rows), "--output", str(tmp_path))
    result = CliRunner().invoke(main, [*arguments, "--via", "device", "--device-model", str(file)])
    assert result.exit_code == 0, result.output
    (job,) = (path.parent for path in tmp_path.glob("*/predictions"))
    summary = json.loads((job / "summary.json").read_text())
    assert summary["way"]["variant"] == "float32"
    scored = pq.read_table(job / "predictions").to_pandas().set_index("day")
    name = next(column for column in scored if column.startswith("probability_wet"))
    np.testing.assert_allclose(scored[name][["mon", "tue"]], [chance(40, 3), chance(80)], rtol=1e-6)
    # Whoever compares the two wants both.
    assert CliRunner().invoke(main, list(arguments)).exit_code == 0
    assert len(list(tmp_path.glob("*/predictions"))) == 2
