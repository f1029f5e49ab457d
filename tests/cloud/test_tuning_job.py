"""The real client library against Vizier on the loopback: the study, its suggestions, and what came of them."""

from __future__ import annotations

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.types import StudySpec

from cloud.tuning_job import StudyError, open_study
from tests.cloud.job_service import serving

PLACE = "projects/my-project/locations/europe-west1"
STUDY = f"{PLACE}/studies/1"
SPACE = [
    {"name": "train.learning_rate", "kind": "number", "low": 0.001, "high": 0.1, "is_log": True},
    {"name": "model.cross_layers", "kind": "integer", "low": 0, "high": 3, "is_log": False},
    {"name": "model.embedding_size", "kind": "choice", "values": [2, 4, 8]},
    {"name": "model.hidden_units", "kind": "choice", "values": ["[4]", "[8, 4]"]},
]
SUGGESTED = {
    "train.learning_rate": 0.02,
    "model.cross_layers": 2,
    "model.embedding_size": 4,
    "model.hidden_units": "[8, 4]",
}


@pytest.fixture
def server():
    with serving() as served:
        yield served


def opened(server, name="headworks-search-f00d", **changes):
    connection = {"credentials": AnonymousCredentials(), "client_options": {"api_endpoint": server.endpoint}}
    told = {"method": "bayesian", "space": SPACE, "objective": "val_auc", "is_larger_better": True, **changes}
    return open_study(PLACE, name, connection=connection, **told)


def made(server):
    return [call for call in server.asked if call.path.partition("?")[0] == f"/v1/{PLACE}/studies"]


def test_a_study_is_made_of_the_search_space(server):
    opened(server)
    [post] = made(server)
    scale, goal = StudySpec.ParameterSpec.ScaleType, StudySpec.MetricSpec.GoalType
    assert post.body == {
        "displayName": "headworks-search-f00d",
        "studySpec": {
            "metrics": [{"metricId": "val_auc", "goal": goal.MAXIMIZE.value}],
            "parameters": [
                {
                    "parameterId": "train.learning_rate",
                    "scaleType": scale.UNIT_LOG_SCALE.value,
                    "doubleValueSpec": {"minValue": 0.001, "maxValue": 0.1},
                },
                {
                    "parameterId": "model.cross_layers",
                    "scaleType": scale.UNIT_LINEAR_SCALE.value,
                    "integerValueSpec": {"maxValue": "3"},
                },
                {"parameterId": "model.embedding_size", "discreteValueSpec": {"values": [2.0, 4.0, 8.0]}},
                {"parameterId": "model.hidden_units", "categoricalValueSpec": {"values": ["[4]", "[8, 4]"]}},
            ],
        },
    }


def test_a_random_search_stays_one_and_a_loss_is_made_small(server):
    opened(server, method="random", objective="val_loss", is_larger_better=False)
    spec = made(server)[0].body["studySpec"]
    assert spec["algorithm"] == StudySpec.Algorithm.RANDOM_SEARCH.value
    assert spec["metrics"] == [{"metricId": "val_loss", "goal": StudySpec.MetricSpec.GoalType.MINIMIZE.value}]


def test_a_search_that_is_started_again_goes_on_with_its_study(server):
    assert opened(server).name == opened(server).name == STUDY
    assert opened(server, name="another").name == f"{PLACE}/studies/2"
    assert len(made(server)) == 2


def test_suggestions_come_as_values_of_the_space(server):
    server.suggestions = [SUGGESTED]
    study = opened(server)
    values = study.suggest("03")
    assert values == SUGGESTED
    assert [type(value) for value in values.values()] == [float, int, int, str]
    [call] = [call for call in server.asked if ":suggest" in call.path]
    assert call.body == {"suggestionCount": 1, "clientId": "03"}
    assert study.suggest("03") == values, "a trial that is run again gets the same"
    assert study.suggest("04") is None, "there is no more to try"


def test_what_came_of_a_trial_is_told_once(server):
    server.suggestions = [SUGGESTED, {**SUGGESTED, "model.cross_layers": 1}]
    study = opened(server)
    for trial, score in (("0", 0.75), ("1", None)):
        study.suggest(trial)
        study.complete(trial, score)
        study.complete(trial, score)
    told = [call for call in server.asked if ":complete" in call.path]
    assert [call.body for call in told] == [
        {"finalMeasurement": {"metrics": [{"metricId": "val_auc", "value": 0.75}]}},
        {"trialInfeasible": True, "infeasibleReason": "the trial failed"},
    ]


def test_a_study_of_another_space_is_named(server):
    server.suggestions = [{"train.learning_rate": 0.1}]
    with pytest.raises(
        StudyError, match=r"studies/1/trials/1: suggests train\.learning_rate, but the search is over"
    ):
        opened(server).suggest("0")


def test_a_refusal_says_what_to_do(server):
    server.refusals["POST"] = [(403, "PERMISSION_DENIED", "Permission 'aiplatform.studies.create' denied")]
    with pytest.raises(StudyError, match=r"studies\.create.*roles/aiplatform\.user") as raised:
        opened(server)
    assert str(raised.value).startswith(f"{PLACE}: study headworks-search-f00d: ")


def test_what_the_service_cannot_choose_is_refused(server):
    with pytest.raises(StudyError, match="want bayesian or random"):
        opened(server, method="hyperband")
    assert not server.studies
