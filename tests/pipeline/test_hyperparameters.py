import json

import pytest

from pipeline.config import ConfigError, load
from pipeline.hyperparameters import keep, stored

CONFIG = """
name: shop
data: {source: {kind: csv, folder: rows}, split: {by: folder}}
label: {column: sold}
tune: {best: best.json}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(CONFIG)
    return load(tmp_path / "pipeline.yaml")


def test_what_the_tuner_found_can_be_used_by_a_later_run(project, tmp_path):
    found = {"train.learning_rate": 0.004, "model.hidden_units": "[32, 16]", "tuner/epochs": 3}
    (tmp_path / "best_hyperparameters.txt").write_text(json.dumps({"space": [], "values": found}))
    keep(str(tmp_path), tmp_path).rename(tmp_path / "best.json")
    assert stored(project) == {"train.learning_rate": 0.004, "model.hidden_units": [32, 16]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"train.lerning_rate": 1}',
            "'train.lerning_rate' is no setting; did you mean train.learning_rate?",
        ),
        ("{", "cannot be read as stored hyperparameters"),
        ("[1]", "must hold values by dotted name"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_such_outcome_is_refused(project, tmp_path, text, message):
    if text is not None:
        (tmp_path / "best.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        stored(project)
    assert message in str(caught.value)
    assert "best.json" in str(caught.value)
