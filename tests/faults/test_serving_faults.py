"""Faults in the exported taxi model, found by asking it in a fresh process.

Exports with NaN weights, swapped classes, a missing signature or another graph than the trained one are planted in
tests/pipeline/components/test_serving_check.py, on a model that is small enough to be exported for each.
"""

import json
import shutil
from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from gates.verdict import Outcome
from pipeline.components import serving_check
from pipeline.components.gate_output import REFUSED_FOLDER, GateVerdict, RefusedError, read_verdicts


@pytest.fixture
def check(first_run, taxi_project, tmp_path, monkeypatch):
    """Brings a model before the real serving check; its verdicts by name."""

    def run(model: Path, **settings):
        monkeypatch.setenv(REFUSED_FOLDER, str(tmp_path / "refused"))
        inputs = {
            "model": (standard_artifacts.Model, model),
            "model_run": (standard_artifacts.ModelRun, first_run.output("Trainer", "model_run")),
            "examples": (standard_artifacts.Examples, first_run.output("QueryExampleGen", "examples")),
            "transform_graph": (
                standard_artifacts.TransformGraph,
                first_run.output("Transform", "transform_graph"),
            ),
        }
        properties = {
            "settings": json.dumps(settings),
            "overrides": "[]",
            "features": taxi_project.feature_set().to_json(),
            "source_digest": "",
        }
        verdict = artifact(GateVerdict, tmp_path / "verdict")
        try:
            serving_check.Executor().Do(
                {name: [artifact(*given)] for name, given in inputs.items()},
                {"verdict": [verdict]},
                properties,
            )
        except RefusedError:
            return by_name(tmp_path / "refused")
        return by_name(tmp_path / "verdict")

    return run


@pytest.fixture
def model(first_run, tmp_path):
    """A copy of the trained model to spoil."""
    return Path(shutil.copytree(first_run.output("Trainer", "model"), tmp_path / "model"))


def artifact(kind, folder):
    made = kind()
    made.uri = str(folder)
    return made


def by_name(folder):
    return {verdict.name: verdict for verdict in read_verdicts(folder)}


def refused(verdicts):
    return {name: verdict.reason for name, verdict in verdicts.items() if verdict.outcome is Outcome.REFUSED}


def test_a_truncated_model_is_refused_with_the_file(check, model):
    [variables] = model.rglob("variables.data-*")
    variables.write_bytes(variables.read_bytes()[:1000])
    assert f"{variables} is cut short or damaged" in refused(check(model))["load of the model"]


def test_the_model_as_it_is_passes_and_is_refused_only_where_it_is_slower_than_the_bound(check, model):
    found = check(model, max_p99_milliseconds=0.01)
    assert set(refused(found)) == {
        "latency of serving_default",
        "latency of serving_raw",
        "latency of transform_features",
    }
    assert "is too slow" in refused(found)["latency of serving_default"]
