"""Faults in a model of the taxi example, each a small change to its training or its answers."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from gates.asking import Asked
from gates.baselines import Rows, fit_baselines
from gates.behaviour import judge_behaviour
from gates.examination import Subject, Validation, examine
from gates.intervals import Bootstrap
from gates.model import Contest, judge_model
from gates.settings import FairnessSettings, Invariance, ModelGateSettings, SliceSettings
from gates.verdict import Outcome
from models import trainer
from models.callbacks import TrainingError
from models.settings import NetworkSettings, TrainSettings
from pipeline.changed_examples import AskedExamples
from pipeline.example_rows import ModelError, SavedModel, champion_answers, column_types, read_rows, records

SETTINGS = ModelGateSettings(resamples=100)
LEARNING = TrainSettings(epochs=2, batch_size=256, learning_rate=0.01)


@dataclass(frozen=True)
class Judged:
    """The trained model, and what it is compared with."""

    subject: Subject
    features: object
    asked: Asked

    @property
    def contest(self) -> Contest:
        return self.subject.contest

    def refused(self, ours=None, champion=None, settings=SETTINGS, fault="") -> dict[str, str]:
        """What is refused of other answers, or against a champion; reasons by name."""
        ours = self.contest.ours if ours is None else ours
        contest = replace(self.contest, ours=ours, champion=champion, champion_fault=fault)
        verdicts = judge_model(
            contest, settings, Bootstrap.draw(len(ours), settings.resamples, settings.level)
        )
        return {v.name: v.reason for v in verdicts if v.outcome is Outcome.REFUSED}

    def examined(self, settings, slices=(), ours=None) -> dict[str, str]:
        """What is refused by everything that the gate looks at."""
        contest = self.contest if ours is None else replace(self.contest, ours=ours)
        subject = replace(self.subject, contest=contest)
        bootstrap = Bootstrap.draw(len(contest.truth), settings.resamples, settings.level)
        found = examine(subject, settings, slices, bootstrap)
        return {v.name: v.reason for v in found.verdicts if v.outcome is Outcome.REFUSED}


@pytest.fixture(scope="module")
def model(first_run, taxi_project) -> Judged:
    features = taxi_project.feature_set()
    label = features.label
    examples = first_run.output("QueryExampleGen", "examples")
    train, validation, test = (
        records(examples / f"Split-{split}", 100_000).taken for split in ("train", "validation", "test")
    )
    answer = SavedModel(first_run.output("Trainer", "model") / "Format-Serving", label.kind)
    types = column_types(test)
    rows = read_rows(test, features, also=types)
    names = [feature.name for feature in features]
    contest = Contest(
        label=label,
        truth=rows.truth,
        ours=answer(test),
        baselines=fit_baselines(
            label.kind, 2, read_rows(train, features), Rows(rows.columns[names], rows.truth)
        ),
    )
    asked = AskedExamples(answer, test[:1000], rows.columns[:1000], types, label.name)
    subject = Subject(
        contest=contest,
        columns=rows.columns,
        validation=Validation(read_rows(validation, features).truth, answer(validation)),
        asked=asked,
        asked_truth=rows.truth[:1000],
        features=features,
    )
    return Judged(subject, features, asked)


@pytest.fixture(scope="module")
def training(first_run, taxi_project) -> SimpleNamespace:
    """The splits that the Trainer learns from, to be learned from again with a fault; and the test rows."""
    examples = first_run.output("QueryExampleGen", "examples")
    arguments = SimpleNamespace(
        custom_config={"features": taxi_project.feature_set().to_json()},
        transform_graph_path=str(first_run.output("Transform", "transform_graph")),
        train_files=[f"{examples}/Split-train/*"],
        eval_files=[f"{examples}/Split-validation/*"],
    )
    data = trainer.load_data(arguments, LEARNING)
    kept = np.asarray(data.train.labels)
    [test] = tf.data.TFRecordDataset(sorted(map(str, (examples / "Split-test").glob("*"))), "GZIP").batch(
        10_000
    )
    inputs, _ = data.train.reader.decode(test)

    def scores(labels, train=LEARNING):
        """Answers to the test rows of a network that learned from these labels."""
        faulty = replace(data, train=data.train.relabelled(tf.constant(labels)))
        network = trainer.fit(faulty, trainer.Settings(NetworkSettings(hidden_units=(16,)), train)).network
        positive = tf.sigmoid(network(inputs, training=False))[:, 0].numpy().astype(np.float64)
        return np.stack([1 - positive, positive], axis=1)

    return SimpleNamespace(data=data, labels=kept, scores=scores)


def with_noise(scores, height):
    """The same answers, with noise on the logit."""
    logit = np.log(scores[:, 1] / scores[:, 0]) + np.random.default_rng(1).normal(0, height, len(scores))
    positive = 1 / (1 + np.exp(-logit))
    return np.stack([1 - positive, positive], axis=1)


def test_the_trained_model_itself_is_refused_nowhere(model):
    assert model.examined(SETTINGS, [["payment_type"], ["trip_start_hour"]]) == {}


def test_a_constant_predictor_is_refused(model):
    found = model.refused(np.full_like(model.contest.ours, 0.5))
    assert "the same answer: a constant has learned nothing" in found["answers differ between rows"]


def test_a_majority_predictor_is_refused(model):
    """It is right about most rows, and worth nothing."""
    [majority] = [one.scores for one in model.contest.baselines if one.name == "majority"]
    found = model.refused(majority)
    assert "it is not worth serving" in found["against majority"]
    assert "it is not worth serving" in found["against one_rule"]


def test_the_one_rule_that_card_payers_tip_is_refused(model):
    [rule] = [one for one in model.contest.baselines if one.name == "one_rule"]
    assert rule.told == "the one column payment_type"
    assert "it is not worth serving" in model.refused(rule.scores)["against one_rule"]


def test_swapped_classes_are_refused(model):
    found = model.refused(model.contest.ours[:, ::-1])
    assert "the scores of the two classes are swapped" in found["order of the classes"]


def test_answers_that_are_no_numbers_are_refused(model):
    broken = model.contest.ours.copy()
    broken[7] = np.nan
    assert "answers 2 times with NaN or infinity" in model.examined(SETTINGS, ours=broken)["finite answers"]


def test_a_model_that_learned_from_shuffled_labels_is_refused(model, training):
    shuffled = np.random.default_rng(1).permutation(training.labels)
    found = model.refused(training.scores(shuffled))
    assert "the model must be better beyond the interval" in found["against one_rule"]


def test_a_model_that_learned_from_noisy_labels_loses_to_the_champion(model, training):
    is_noise = np.random.default_rng(1).random(training.labels.shape) < 0.4
    noisy = np.where(is_noise, 1 - training.labels, training.labels)
    found = model.refused(training.scores(noisy), champion=model.contest.ours)
    assert "the model is worse than the one that serves" in found["against the champion"]


def test_an_exploded_loss_stops_the_training(training):
    with pytest.raises(TrainingError, match="training diverged"):
        training.scores(training.labels, replace(LEARNING, weight_decay=1e30))


def test_a_model_that_is_worse_within_noise_passes(model):
    worse = with_noise(model.contest.ours, 0.05)
    assert model.refused(worse, champion=model.contest.ours) == {}


def test_a_model_that_is_worse_beyond_noise_is_refused(model):
    worse = with_noise(model.contest.ours, 1.0)
    found = model.refused(worse, champion=model.contest.ours)
    assert "the model is worse than the one that serves" in found["against the champion"]


def test_a_model_that_is_bad_on_one_slice_is_refused_and_the_slice_is_named(model):
    is_night = model.subject.columns["trip_start_hour"].isin([18, 19, 20]).to_numpy()
    ours = model.contest.ours.copy()
    ours[is_night] = np.random.default_rng(1).permutation(ours[is_night])
    settings = replace(SETTINGS, slices=SliceSettings(min_rows=100))
    found = model.examined(settings, [["trip_start_hour"]], ours)
    assert {"slice trip_start_hour = 18", "slice trip_start_hour = 19"} <= set(found)
    assert "slice trip_start_hour = 12" not in found


def test_an_uncalibrated_model_is_refused(model):
    positive = model.contest.ours[:, 1] ** 0.3
    found = model.examined(
        replace(SETTINGS, max_calibration_error=0.05), ours=np.stack([1 - positive, positive], axis=1)
    )
    assert "calibration" in found["calibration error"]
    assert model.examined(replace(SETTINGS, max_calibration_error=0.05)) == {}


def test_a_model_that_is_too_good_is_refused(model):
    truth = model.contest.truth
    perfect = with_noise(np.clip(np.stack([1 - truth, truth], axis=1), 0.01, 0.99), 0.1)
    found = model.refused(perfect, settings=replace(SETTINGS, too_good=0.99))
    assert "too good to be true" in found["too good to be true"]


def test_a_model_that_heeds_what_must_not_matter_is_refused_and_rows_are_shown(model):
    test = Invariance(kind="invariance", name="how one pays does not matter", column="payment_type")
    found = judge_behaviour(test, model.contest.label, model.asked)
    assert found.verdict.outcome is Outcome.REFUSED
    assert "payment_type" in found.verdict.reason
    assert found.result.failing


def test_a_gap_between_groups_is_refused(model):
    fairness = (FairnessSettings(column="payment_type", max_gap=0.1, metric="selection_rate"),)
    found = model.examined(replace(SETTINGS, fairness=fairness))
    [reason] = [words for name, words in found.items() if "payment_type" in name]
    assert "selection_rate" in reason or "selection rate" in reason


def test_a_champion_whose_files_are_gone_is_a_refusal_and_no_crash(model, tmp_path):
    with pytest.raises(ModelError) as error:
        champion_answers(tmp_path / "gone", [b""], model.features)
    found = model.refused(fault=str(error.value))
    assert "the champion cannot answer these rows" in found["against the champion"]
    assert "--rebaseline" in found["against the champion"]


def test_a_champion_of_another_schema_is_a_refusal_and_no_crash(model, first_run):
    """It reads the fare as a number; the rows have come to hold text."""
    as_text = tf.train.Example()
    as_text.features.feature["fare"].bytes_list.value.append(b"cheap")
    champion = first_run.output("Trainer", "model") / "Format-Serving"
    with pytest.raises(ModelError) as error:
        champion_answers(champion, [as_text.SerializeToString()], model.features)
    found = model.refused(fault=str(error.value))
    assert "the champion cannot answer these rows" in found["against the champion"]


def test_redrawn_rows_raise_no_false_alarm_against_a_champion_as_good(model):
    """Of twenty draws of the test rows at most one may refuse a model that differs by noise only."""
    champion, ours = model.contest.ours, with_noise(model.contest.ours, 0.02)
    alarms = 0
    for seed in range(20):
        drawn = np.random.default_rng(seed).choice(len(ours), int(0.7 * len(ours)), replace=False)
        contest = replace(
            model.contest,
            truth=model.contest.truth[drawn],
            ours=ours[drawn],
            champion=champion[drawn],
            baselines=[replace(one, scores=one.scores[drawn]) for one in model.contest.baselines],
        )
        bootstrap = Bootstrap.draw(len(drawn), 100, 0.95)
        alarms += not all(verdict.passed for verdict in judge_model(contest, SETTINGS, bootstrap))
    assert alarms <= 1
