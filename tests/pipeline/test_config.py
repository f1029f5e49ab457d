import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, ConfigError, TimeSplit, load
from pipeline.layers import member_types

GOOD = """\
name: shop
data:
  source: {kind: query, tables: {sales: sales.csv}}
  split:
    by: time
    column: sold_at
    validation_from: 2013-09-01
    test_from: 2013-10-01
label: {column: churned}
train:
  epochs: 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(GOOD)
    return path


def refused(file: Path, text: str, *overrides: str) -> str:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, overrides)
    return str(caught.value)


def test_a_good_file_becomes_frozen_dataclasses(file):
    config = load(file).config
    assert isinstance(config.data.split, TimeSplit)
    assert config.train.epochs == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "other"  # type: ignore[misc]


def test_an_override_on_the_command_line_wins(file):
    assert load(file, ["train.epochs=3", "features.exclude=[a, b]"]).config.train.epochs == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  epochs: 2", "  epoch: 2", "train.epoch: unknown key; did you mean epochs? ({file}:11)"),
        (
            "    column: sold_at",
            "    colum: sold_at",
            "data.split.colum: unknown key; did you mean column? ({file}:6)",
        ),
        (
            "  epochs: 2",
            "  epochs: many",
            "train.epochs: 'many': input should be a valid integer ({file}:11)",
        ),
        (
            "  epochs: 2",
            "  epochs: 0",
            "train.epochs: 0: input should be greater than or equal to 1 ({file}:11)",
        ),
        ("  epochs: 2", "  epochs: true", "train.epochs: True: input should be a valid integer ({file}:11)"),
        (
            "by: time",
            "by: tim",
            "data.split.by: 'tim' is not one of 'time', 'column', 'hash', 'folder' ({file}:5)",
        ),
        (
            "label: {column: churned}",
            "label: churned",
            "label: 'churned' is a str; it must be a group of keys ({file}:9)",
        ),
        ("label: {column: churned}\n", "", "label: missing; this key is required ({file}:1)"),
        ("test_from: 2013-10-01", "test_from: 2013-08-01", "must be before test_from 2013-08-01 ({file}:4)"),
        ("test_from: 2013-10-01", "test_from: October", "'October' is not a date or time"),
        ("  epochs: 2", "  epochs: 2\n  epochs: 3", "train.epochs: given twice ({file}:12)"),
        ("  epochs: 2", "  epochs: [2", "not valid YAML"),
        (
            "train:",
            "evaluate:\n  bounds: [{metric: auc, min: 1.5}]\ntrain:",
            "evaluate.bounds.0: min 1.5 is out of the range of auc, 0 to 1 ({file}:11)",
        ),
        (
            "train:",
            "evaluate:\n  bounds: [{metric: log_loss, min: 2.0, max: 1.0}]\ntrain:",
            "log_loss: min 2.0 must not be above max 1.0 ({file}:11)",
        ),
    ],
)
def test_a_fault_names_key_value_file_and_line(file, old, new, message):
    assert message.format(file=file) in refused(file, GOOD.replace(old, new))


def test_all_faults_are_told_at_once(file):
    text = refused(file, GOOD.replace("epochs: 2", "epochs: 0").replace("name: shop", "name: My Shop"))
    assert len(text.splitlines()) == 2


def test_a_fault_in_an_override_names_the_override(file):
    assert "(--set train.epochs=-1)" in refused(file, GOOD, "train.epochs=-1")
    assert "did you mean learning_rate" in refused(file, GOOD, "train.lerning_rate=1")
    assert "write it as key.key=value" in refused(file, GOOD, "train.epochs")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="no such file; make one with: headworks init"):
        load(tmp_path / "pipeline.yaml")


def test_the_digest_ignores_comments_order_and_place_but_no_value(file, tmp_path):
    moved = tmp_path / "elsewhere.yaml"
    moved.write_text(
        "# a comment\nlabel: {column: churned}\n" + GOOD.replace("label: {column: churned}\n", "")
    )
    assert load(moved).digest() == load(file).digest()
    assert load(file, ["train.epochs=5"]).digest() != load(file).digest()


@pytest.mark.parametrize("name", ["hidden_units", "cross_layers", "cross_rank", "wide", "embedding_size"])
def test_a_search_over_shapes_is_refused_where_old_weights_have_to_fit(file, name):
    tune = f"tune: {{enabled: true, search: {{model.{name}: {{values: [1, 2]}}}}}}\n"
    text = refused(file, GOOD + "  warm_start: {}\n" + tune)
    assert text.startswith(
        f"tune: search has model.{name}, but with train.warm_start the network keeps the shapes"
    )
    assert text.endswith(f"({file}:13)")
    file.write_text(GOOD + tune)
    load(file)
    load(file, ["train.warm_start={}", "tune.enabled=false"])
    load(file, ["train.warm_start={}", "tune.search={model.dropout: {values: [0.1, 0.2]}}"])


def test_an_ensemble_and_a_warm_start_are_refused_together(file):
    text = refused(file, GOOD + "  warm_start: {}\n", "tune.ensemble=2")
    assert text.startswith("tune: ensemble is 2, but train.warm_start takes the weights of one network")
    load(file, ["tune.ensemble=1"])
    file.write_text(GOOD)
    load(file, ["tune.ensemble=2"])


def test_a_warm_start_with_a_fault_of_its_own_is_told_as_such(file):
    text = refused(file, GOOD + "  warm_start: {layer: x}\n", "tune.ensemble=2")
    assert text.startswith("train.warm_start.layer: unknown key; did you mean layers?")


def test_device_models_refuse_what_they_could_not_be_made_of_before_anything_is_trained(file):
    (file.parent / "schema.pbtxt").write_text(
        'feature { name: "remark" type: BYTES } feature { name: "churned" type: INT bool_domain {} }'
    )
    (file.parent / "encoder").write_text("weights")
    encoded = "features.overrides.remark={kind: encoded, encoder: encoder}"
    lower = "train.mixed_precision=bfloat16"

    def told(*overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(file, ["tflite.enabled=true", *overrides]).feature_set()
        return str(caught.value)

    assert "encoder of 'remark'" in told(encoded)
    assert "features.exclude: [remark]" in told(encoded)
    assert told(lower).startswith("train.mixed_precision: bfloat16: ")
    assert f"(--set {lower}): set train.mixed_precision: off" in told(lower)
    assert load(file, ["tflite.enabled=true"]).feature_set().features
    assert load(file, [encoded, lower]).feature_set().features, "without device models both are allowed"


def test_an_encoder_is_read_once_and_again_when_it_has_changed(file, monkeypatch):
    (file.parent / "schema.pbtxt").write_text(
        'feature { name: "remark" type: BYTES } feature { name: "churned" type: INT bool_domain {} }'
    )
    encoder = file.parent / "encoder"
    encoder.mkdir()
    (encoder / "weights").write_text("old")
    reads = []
    digest = hashlib.file_digest

    def read(*given: Any) -> Any:
        reads.append(given)
        return digest(*given)

    monkeypatch.setattr(hashlib, "file_digest", read)
    project = load(file, ["features.overrides.remark={kind: encoded, encoder: encoder}"])

    def told() -> str:
        return next(feature.encoder_digest for feature in project.feature_set())

    before = told()
    assert told() == before
    assert len(reads) == 1
    (encoder / "weights").write_text("newer")
    assert told() != before
    assert len(reads) == 2


def test_every_key_is_described():
    undescribed = []
    waiting: list[Any] = [Config]
    seen = set()
    while waiting:
        owner = waiting.pop()
        if owner in seen:
            continue
        seen.add(owner)
        for name, field in owner.__pydantic_fields__.items():
            if not field.description and name not in ("kind", "by"):
                undescribed.append(f"{owner.__name__}.{name}")
            waiting.extend(member_types(owner, name))
    assert len(seen) > 10
    assert undescribed == []


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("tflite.variants=[int7]", "'int7' is no number format"),
        ("tflite.variants=[int8, int8]", "a variant is named twice"),
        ("tflite.variants=[trainable+float32]", "name one, such as float32"),
        ("tflite.variants=[]", "tflite.variants"),
        ("tflite.budget.max_bytes=0", "tflite.budget.max_bytes: 0"),
        ("tflite.budget.max_p99_milliseconds=0", "tflite.budget.max_p99_milliseconds: 0"),
    ],
)
def test_device_models_that_make_no_sense_are_refused_by_their_key(file, override, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(file, [override])
