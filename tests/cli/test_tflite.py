"""`headworks tflite` as a person and as a machine read it; what it finds is tested in tests/tflite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from tflite import inspection
from tflite.inspection import Inspection, OperatorCount, Part, Port, Signature, Weight
from tflite.metadata import DeviceLabel, Metadata

FOUND = Inspection(
    path="m.tflite",
    bytes=5000,
    signatures=(
        Signature(
            "serving_raw",
            (Port("key", "uint8", (1, 16), "categorical [coded]; required"),),
            (Port("scores", "float32", (1, 2)),),
        ),
    ),
    operators=(OperatorCount("GATHER", 0, 3), OperatorCount("SUB", 2, 0)),
    weights=(
        Weight("first", "dense", "int8", (16, 9), 16, 144, 144),
        Weight("second", "dense", "int8", (8, 16), 8, 128, 128),
        Weight("table", "embedding", "int8", (40, 8), 1, 320, 320),
    ),
    parts=(Part("weights of the network", 592), Part("metadata", 4408)),
    metadata=Metadata(
        "shop", 3, "run-7", "ab" * 32, "pruned+int8", DeviceLabel("bought", "binary", ("no", "yes")), (), 0.25
    ),
)


def inspect(monkeypatch: pytest.MonkeyPatch, found: Inspection, *options: str) -> Result:
    monkeypatch.setattr(inspection, "inspect", lambda _: found)
    return CliRunner().invoke(main, ["tflite", "inspect", "m.tflite", *options])


def test_a_file_is_told_with_its_origin_ports_bytes_weights_and_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = inspect(monkeypatch, FOUND).output
    for told in (
        "m.tflite: 5,000 bytes, 592 parameters",
        "shop version 3, variant pruned+int8",
        f"run run-7, model with SHA-256 {'ab' * 32}",
        "label bought, binary: no, yes, threshold 0.25",
        "categorical [coded]; required",
        "1 × 16",
        "weights of the network",
        "12%",
        "5 operators",
    ):
        assert told in output
    assert [line.split() for line in output.splitlines() if "dense" in line] == [
        ["dense", "int8", "per", "channel", "2", "272", "272"]
    ]
    assert "first" not in output
    assert "per channel of 16" in inspect(monkeypatch, FOUND, "--all").output


def test_machines_get_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(inspect(monkeypatch, FOUND, "--json").output)
    assert told["parameters"] == 592
    assert told["metadata"]["label"]["classes"] == ["no", "yes"]
    assert told["weights"][2]["role"] == "embedding"


def test_a_file_without_metadata_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Inspection("m.tflite", 9, (), (), (), (Part("metadata", 0),), None, "m.tflite says nothing")
    output = inspect(monkeypatch, plain).output
    assert output.splitlines()[1].strip() == "says nothing"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot read the model: No such file"),
        (b"", "is empty"),
        (b"no model at all", "is no LiteRT model"),
        (b"\x1c\0\0\0TFL3 and then nothing", "cut short or damaged"),
    ],
)
def test_what_is_no_whole_model_is_refused_with_exit_code_1(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "m.tflite"
    if content is not None:
        path.write_bytes(content)
    result = CliRunner().invoke(main, ["tflite", "inspect", str(path)])
    assert result.exit_code == 1
    assert f"error: {path}" in result.stderr
    assert told in result.stderr
    assert result.stdout == ""


def test_a_look_into_a_file_does_not_wait_for_tensorflow() -> None:
    code = "import cli.tflite, tflite.inspection, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
