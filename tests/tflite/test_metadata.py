"""What is attached is read again, the model runs as before, and what is not there is said to be missing."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.tflite.small_device_model import rows
from tflite.metadata import (
    DESCRIPTION,
    FORMAT,
    LABELS,
    DeviceFeature,
    DeviceLabel,
    Metadata,
    NoMetadataError,
    attach,
    bare,
    read,
    source_digest_of,
)
from tflite.model_file import ModelFileError

METADATA = Metadata(
    name="shop",
    version=3,
    run_id="20260101T0000",
    source_sha256="ab" * 32,
    variant="pruned+int8",
    label=DeviceLabel("kauft", "binary", ("nein", "über 20 €")),
    features=(
        DeviceFeature("Größe (cm)", "Gr_e_cm_", "float", "numeric", False, unit="cm"),
        DeviceFeature("key", "key", "bytes", "categorical", True, width=16),
    ),
    threshold=0.25,
    created_by="headworks 1",
)
REGRESSION = replace(METADATA, label=DeviceLabel("price", "regression"), threshold=None)


@pytest.fixture
def write(tmp_path):
    def written(content):
        path = tmp_path / "m.tflite"
        path.write_bytes(content)
        return path

    return written


def with_description(model, text):
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(DESCRIPTION, text)
    return file.getvalue()


@pytest.mark.parametrize("metadata", [METADATA, REGRESSION])
def test_what_is_attached_is_read_again(float32_model, write, metadata):
    assert read(write(attach(float32_model, metadata))) == metadata


def test_the_model_answers_as_before_from_its_path_and_from_its_bytes(float32_model, write):
    described = attach(float32_model, METADATA)
    (row,) = rows(1)
    plain, path, content = (
        interpreter.get_signature_runner("serving_raw")(**row)["scores"]
        for interpreter in (
            Interpreter(model_content=float32_model),
            Interpreter(model_path=str(write(described))),
            Interpreter(model_content=described),
        )
    )
    assert np.array_equal(plain, path)
    assert np.array_equal(plain, content)


def test_any_reader_of_zip_archives_finds_labels_and_description(float32_model, write):
    with zipfile.ZipFile(write(attach(float32_model, METADATA))) as archive:
        assert archive.testzip() is None
        assert archive.read(LABELS).decode().splitlines() == ["nein", "über 20 €"]
        assert archive.getinfo(LABELS).compress_type == zipfile.ZIP_STORED
        said = json.loads(archive.read(DESCRIPTION))
    assert said["features"][1]["width"] == 16
    assert "width" not in said["features"][0]
    with zipfile.ZipFile(write(attach(float32_model, REGRESSION))) as archive:
        assert archive.namelist() == [DESCRIPTION]


def test_the_same_model_and_metadata_make_the_same_file(float32_model):
    once = attach(float32_model, METADATA)
    assert attach(float32_model, METADATA) == once
    assert attach(attach(float32_model, REGRESSION), METADATA) == once
    assert bare(once) == float32_model == bare(float32_model)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.tflite: cannot read the model: No such file"):
        read(tmp_path / "none.tflite")


@pytest.mark.parametrize("content", [b"", b"x", b"PK\5\6" + bytes(18), b"{}" * 50])
def test_what_is_no_model_is_said_to_be_none(write, content):
    with pytest.raises(ModelFileError, match="no LiteRT model"):
        read(write(content))
    with pytest.raises(ModelFileError, match="the model to describe"):
        attach(content, METADATA)


@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_a_model_without_metadata_is_said_to_have_none(float32_model, write, kept):
    with pytest.raises(NoMetadataError, match="says nothing of itself"):
        read(write(float32_model[: int(kept * len(float32_model))]))


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_metadata_that_are_cut_off_are_not_read(float32_model, write, cut):
    with pytest.raises(NoMetadataError, match="cut short"):
        read(write(attach(float32_model, METADATA)[:-cut]))


def test_metadata_with_a_wrong_byte_are_not_read(float32_model, write):
    content = bytearray(attach(float32_model, METADATA))
    content[len(content) - 250] ^= 0xFF
    with pytest.raises(ModelFileError, match="damaged"):
        read(write(bytes(content)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON"),
        ("[]", "headworks.json"),
        ('{"name": "shop"}', "headworks.json: version: field required"),
        (
            json.dumps({"format": FORMAT + 1}),
            f"has format {FORMAT + 1} and this Headworks reads up to {FORMAT}",
        ),
    ],
)
def test_a_description_that_is_not_to_be_understood_is_refused(float32_model, write, text, told):
    with pytest.raises(ModelFileError, match=told):
        read(write(with_description(float32_model, text)))


def test_an_archive_of_somebody_else_is_not_taken_for_ours(float32_model, write):
    file = io.BytesIO(float32_model)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("vocab.txt", "a")
    with pytest.raises(NoMetadataError, match=r"has no headworks\.json"):
        read(write(file.getvalue()))


def test_a_digest_tells_two_models_apart_by_any_byte_of_graph_or_variables(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    data = tmp_path / "variables" / "variables.data"
    data.write_bytes(b"weights")
    first = source_digest_of(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert source_digest_of(tmp_path) == first
    data.write_bytes(b"Weights")
    assert source_digest_of(tmp_path) != first


def test_a_folder_without_a_model_has_no_digest(tmp_path):
    with pytest.raises(ModelFileError, match=r"is no SavedModel.*saved_model\.pb"):
        source_digest_of(tmp_path)
