import io
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.tflite.toy_model import FEATURES, described, toy_model
from tflite import client
from tflite.client import DeviceModel, ModelFileError, Prediction, RowError
from tflite.metadata import DeviceLabel

ROOT = Path(__file__).resolve().parents[2]
MISSING = -(2**63)

ROW = {"age": 41.5, "visits last year": 3, "city": "Köln", "device": "x-200", "remark": "Sehr GUT"}
ROWS = [
    ROW,
    {"age": 18},
    {"age": 70.25, "visits last year": None, "city": "Oslo", "remark": ""},
    {
        "age": -3,
        "visits last year": 2**40,
        "device": "12345678",
        "remark": "a text that is longer than twelve",
    },
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("device") / "float32.tflite"
    file.write_bytes(described(toy_model()))
    return file


@pytest.fixture(scope="module")
def model(path):
    return DeviceModel(path)


def text(content, width):
    return np.frombuffer(content.ljust(width, b"\0"), np.uint8)[np.newaxis]


# --- rows to tensors ---


def test_a_row_becomes_the_tensors_of_the_layout(model):
    expected = {
        "age": np.array([41.5], np.float32),
        "visits_last_year": np.array([3], np.int64),
        "city": text("Köln".encode(), 6),
        "device": text(b"x-200", 8),
        "remark": text(b"sehr gut", 12),
    }
    given = model.tensors(ROW)
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(given[name], tensor, name, strict=True)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, MISSING])
def test_what_is_missing_on_the_server_is_the_missing_integer(model, value):
    assert model.tensors({**ROW, "visits last year": value})["visits_last_year"].tolist() == [MISSING]


def test_an_absent_column_and_an_empty_text_are_missing(model):
    given = model.tensors({"age": 1, "city": ""})
    assert given["visits_last_year"].tolist() == [MISSING]
    assert not any(given[name].any() for name in ("city", "device", "remark"))


def test_numbers_of_numpy_and_whole_floats_are_numbers(model):
    given = model.tensors({"age": np.float32(2.5), "visits last year": 12.0})
    assert given["age"].tolist() == [2.5]
    assert given["visits_last_year"].tolist() == [12]
    assert model.tensors({"age": 1, "visits last year": np.int32(7)})["visits_last_year"].tolist() == [7]


def test_a_category_longer_than_any_is_cut_and_text_is_lower_cased_in_every_script(model):
    given = model.tensors({"age": 1, "city": "Llanfairpwll", "remark": "ΠΟΛΎ ab"})
    assert given["city"].tobytes() == b"Llanfa"
    assert given["remark"].tobytes().rstrip(b"\0").decode() == "πολύ ab"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "column 'age' is missing, and the model requires it"),
        ({"age": math.nan}, "column 'age' is missing"),
        ({"age": 1e40}, "column 'age' is missing, and the model requires it"),
        ({"age": np.float64(-3.5e38)}, "column 'age' is missing, and the model requires it"),
        ({"age": 1, "citty": "x"}, "no column 'citty'; did you mean 'city'?"),
        ({"age": "41"}, "column 'age' has to be a number or None, not '41'"),
        ({"age": True}, "column 'age' has to be a number or None, not True"),
        ({"age": [41.0]}, "not [41.0]; a row has one value a column"),
        ({"age": 10**400}, "column 'age' has to be a number"),
        (
            {"age": 1, "visits last year": 2.5},
            "'visits last year' has to be a whole number of 64 bits or None",
        ),
        ({"age": 1, "visits last year": 2**63}, "a whole number of 64 bits or None, not 9223372036854775808"),
        ({"age": 1, "city": 5}, "column 'city' has to be text or None, not 5"),
        ({"age": 1, "city": b"\xff"}, "column 'city' has to be text"),
        ({"age": 1, "city": "\ud800"}, "column 'city' has to be text"),
        ({"age": 1, "city": "a\0b"}, "column 'city' holds a NUL character"),
        (
            {"age": 1, "device": "123456789"},
            "column 'device' is 9 bytes long, and the model hashes 8 at most",
        ),
    ],
)
def test_a_row_that_the_model_cannot_take_is_named(model, row, message):
    with pytest.raises(RowError) as caught:
        model.predict(row)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": np.zeros([1])}, "the tensor 'age' has to be float32 [1], not float64 [1]"),
        ({"age": np.zeros([2], np.float32)}, "the tensor 'age' has to be float32 [1], not float32 [2]"),
        ({"city": np.zeros([1, 7], np.uint8)}, "the tensor 'city' has to be uint8 [1, 6], not uint8 [1, 7]"),
        ({"agee": np.zeros([1], np.float32)}, "no tensor 'agee'; did you mean 'age'?"),
    ],
)
def test_tensors_of_another_type_or_shape_are_named_and_harm_nothing(model, change, message):
    before = model.predict(ROW)
    with pytest.raises(RowError) as caught:
        model.predict_tensors({**model.tensors(ROW), **change})
    assert message in str(caught.value)
    assert model.predict(ROW) == before


def test_the_largest_number_of_float32_is_one_and_a_larger_is_missing_without_a_warning(model):
    largest = float(np.finfo(np.float32).max)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.tensors({"age": largest})["age"].tolist() == [largest]
        with pytest.raises(RowError, match="'age' is missing"):
            model.tensors({"age": largest * 1.001})


# --- answers ---


def interpreted(path, row_tensors):
    return Interpreter(model_path=str(path)).get_signature_runner("serving_raw")(**row_tensors)


def test_the_answer_is_the_interpreters_by_class(model, path):
    [no, yes] = interpreted(path, model.tensors(ROW))["scores"][0].tolist()
    assert model.predict(ROW) == Prediction({"no": no, "yes": yes}, "yes" if yes >= 0.6 else "no")
    assert model.predict_tensors(model.tensors(ROW)) == model.predict(ROW)


def test_the_label_follows_the_files_threshold(tmp_path):
    for threshold, label in ((0.0, "yes"), (1.0, "no")):
        file = tmp_path / f"{threshold}.tflite"
        file.write_bytes(described(toy_model(), threshold=threshold))
        assert DeviceModel(file).predict(ROW).label == label


def test_of_several_classes_the_most_probable_is_the_label_and_a_number_is_a_value(tmp_path):
    several, number = tmp_path / "several.tflite", tmp_path / "number.tflite"
    several.write_bytes(described(toy_model(3), DeviceLabel("plan", "multiclass", ("s", "m", "l"))))
    number.write_bytes(described(toy_model(0), DeviceLabel("spend", "regression")))
    answer = DeviceModel(several).predict(ROW)
    assert answer.label == max(answer.probability, key=answer.probability.__getitem__)
    assert math.fsum(answer.probability.values()) == pytest.approx(1)
    tensors = DeviceModel(number).tensors(ROW)
    [[value]] = interpreted(number, tensors)["prediction"].tolist()
    assert DeviceModel(number).predict(ROW) == Prediction({}, None, value)


# --- an environment with nothing but the runtime ---


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """The interpreter of an environment that holds ai-edge-litert and numpy alone, at the versions of the lock."""
    folder = tmp_path_factory.mktemp("edge") / "venv"
    uv = shutil.which("uv", path=str(ROOT / ".tools/bin")) or shutil.which("uv")
    if uv is None:
        pytest.skip(
            "NOT CHECKED in an environment of its own: no uv here; scripts/set_up brings it to .tools"
        )
    base = str(sys._base_executable)  # type: ignore[attr-defined]
    python = folder / "bin" / "python"
    # As scripts/set_up does: trust what this machine trusts.
    trust = {"UV_SYSTEM_CERTS": "true"} if Path("/etc/ssl/certs/ca-certificates.crt").exists() else {}
    packages = ["-c", str(ROOT / "requirements.lock"), "ai-edge-litert", "numpy"]
    for command in (
        [uv, "venv", "--no-project", "--no-python-downloads", "--python", base, str(folder)],
        [uv, "pip", "install", "--python", str(python), *packages],
    ):
        environment = {**trust, **os.environ}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            pytest.skip(
                f"NOT CHECKED in an environment of its own: {' '.join(command[:3])}: {made.stderr[-500:]}"
            )
    return python


def run_alone(python, folder, model_file, lines):
    """The client, copied beside the model to where nothing of ours is, run as a script."""
    script = shutil.copy(client.__file__, folder)
    return subprocess.run(
        [str(python), "-I", script, str(model_file)],
        input=lines,
        cwd=folder,
        env={},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


def test_an_empty_environment_says_what_this_one_says(bare_python, path, model, tmp_path):
    absent = (
        "import importlib.util as i; print([n for n in ('tensorflow', 'tf_keras', 'tfx') if i.find_spec(n)])"
    )
    assert subprocess.check_output([str(bare_python), "-I", "-c", absent], text=True).strip() == "[]"
    answer = run_alone(bare_python, tmp_path, path, "".join(f"{json.dumps(row)}\n" for row in ROWS))
    assert answer.returncode == 0, answer.stderr
    said = [json.loads(line) for line in answer.stdout.splitlines()]
    expected = [model.predict(row) for row in ROWS]
    assert said == [{"label": one.label, "probability": one.probability} for one in expected]
    assert len({one.probability["yes"] for one in expected}) == len(ROWS)
    assert all(0 < one.probability["yes"] < 1 for one in expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"age": "x"}', "column 'age' has to be a number"),
        ('{"age": 1e40}', "column 'age' is missing"),
        ("[1]", "a row is an object of columns, not [1]"),
        ("{", "no JSON: Expecting property name"),
        ("", "the line is empty"),
        ("nul", "no JSON: Expecting value at character 1"),
        ("[" * 100_000, "no JSON: "),
        ('{"city": "\udcff"}', "no JSON: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_line_that_cannot_be_scored_has_its_error_in_its_place(path, model, tmp_path, line, message):
    answer = run_alone(sys.executable, tmp_path, path, f'{{"age": 1}}\n{line}\n{{"age": 2}}\n')
    assert answer.returncode == 1
    first, error, last = (json.loads(said) for said in answer.stdout.splitlines())
    assert error == {"error": error["error"], "line": 2}
    assert error["error"].startswith(message)
    for said, age in ((first, 1), (last, 2)):
        assert said["probability"] == model.predict({"age": age}).probability
    assert "Traceback" not in answer.stderr
    assert "Warning" not in answer.stderr


def test_the_script_ends_quietly_when_nobody_reads_on(path, tmp_path):
    script = shutil.copy(client.__file__, tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"age": 1}\n' * 5000)
    with rows.open() as given, (tmp_path / "stderr").open("wb") as errors:
        command = [sys.executable, "-I", script, str(path)]
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
    said = (tmp_path / "stderr").read_text()
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


# --- files ---


def zipped(fields):
    def change(content):
        file = content[: content.index(b"PK\x03\x04")]
        return file + _archive(fields)

    return change


def _archive(fields):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("headworks.json", fields if isinstance(fields, str) else json.dumps(fields))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[: len(content) // 2], "cut off, damaged or no model of Headworks"),
        (lambda content: content[:-10], "cut off, damaged or no model of Headworks"),
        (lambda content: b"", "cut off, damaged or no model of Headworks"),
        (lambda content: toy_model(), "no metadata at its end"),
        (lambda content: b"\0" * 1000 + content[1000:], "LiteRT cannot load it"),
        (zipped({"format": 2}), "has format 2, and this client reads up to 1"),
        (zipped({"name": "shop"}), "headworks.json lacks 'version'"),
        (zipped([]), "headworks.json cannot be understood"),
        (zipped("{"), "headworks.json is damaged"),
        (lambda content: described(toy_model(), features=FEATURES[1:]), "disagree on the input 'age'"),
    ],
)
def test_a_file_that_is_no_whole_model_is_refused_by_what_is_wrong(tmp_path, path, change, message):
    file = tmp_path / "changed.tflite"
    file.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelFileError) as caught:
        DeviceModel(file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"nowhere\.tflite: cannot be read: No such file"):
        DeviceModel(tmp_path / "nowhere.tflite")
