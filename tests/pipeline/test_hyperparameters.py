import json

import pytest

from pipeline.config import ConfigError, load
from pipeline.hyperparameters import check_search, keep, stored

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


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("{}", "tune.search: missing"),
        ("{train.lerning_rate: {values: [1]}}", "is no setting; did you mean train.learning_rate?"),
        ("{model.dropout: {values: [0.1, 3]}}", "model.dropout: 3: Input should be less than 1"),
        (
            "{train.batch_size: {min: 0, max: 64}}",
            "train.batch_size: 0.0: Input should be greater than or equal to 1",
        ),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_before_the_run(tmp_path, search, message):
    text = CONFIG.replace("tune: {best: best.json}", f"tune: {{enabled: true, search: {search}}}")
    (tmp_path / "pipeline.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        check_search(load(tmp_path / "pipeline.yaml"))
    assert message in str(caught.value)
    assert "pipeline.yaml:5" in str(caught.value)


def test_a_search_over_settings_and_values_that_exist_is_let_through(tmp_path):
    search = (
        "{train.learning_rate: {min: 0.001, max: 0.01}, model.hidden_units: {values: [[8], [8, 4]]}, "
        "train.batch_size: {min: 16, max: 64}}"
    )
    text = CONFIG.replace("tune: {best: best.json}", f"tune: {{enabled: true, search: {search}}}")
    (tmp_path / "pipeline.yaml").write_text(text)
    check_search(load(tmp_path / "pipeline.yaml"))
