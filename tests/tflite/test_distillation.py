"""That a student learns from its teacher, and is no larger than it may be."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models import trainer
from models.network import Network
from models.trainer import Data
from schemas.features import LabelKind
from tests.tflite.learned_table import SETTINGS, answers, made_data
from tflite import distillation
from tflite.learning import TreatmentError
from tflite.settings import StudentSettings

STUDENT = StudentSettings(hidden_units=(8,), embedding_size=2, epochs=1, teacher_share=1.0)

LONG = replace(SETTINGS, train=replace(SETTINGS.train, epoch_rows=10_000))
"""One epoch is enough, so that none is chosen by labels the teacher knows nothing of."""


def teacher_of(data: Data) -> Network:
    """A network that says something of its own of every row: what it says cannot be learned from the labels."""
    network = trainer.untrained(data, SETTINGS)
    random = np.random.default_rng(1)
    network.set_weights([w + random.normal(0, 0.2, w.shape) for w in network.get_weights()])
    return network


def distance(network: Network, teacher: Network, data: Data) -> float:
    """Root of the mean squared difference of the answers, as a share of the spread of the teacher's."""
    wanted, got = (answers(one, data.validation) for one in (teacher, network))
    centred = [
        values - values.mean(axis=1, keepdims=True) if values.shape[1] > 1 else values
        for values in (wanted, got)
    ]
    return float(np.sqrt(np.mean(np.square(centred[1] - centred[0]))) / centred[0].std())


@pytest.mark.parametrize(
    ("kind", "memory_rows"), [*((kind, 10_000) for kind in LabelKind), (LabelKind.BINARY, 10)], ids=str
)
def test_a_student_answers_more_like_its_teacher_than_an_untrained_network(
    kind: LabelKind, memory_rows: int, tmp_path: Path
) -> None:
    data = made_data(tmp_path, kind, memory_rows)
    teacher = teacher_of(data)
    fitted = distillation.distilled(data, LONG, teacher, STUDENT)
    untrained = trainer.untrained(data, SETTINGS)
    assert distance(fitted.network, teacher, data) < 0.7 * distance(untrained, teacher, data)
    assert fitted.network.count_params() < teacher.count_params() / 2
    assert fitted.monitor in fitted.history[fitted.chosen]


def test_the_teacher_answers_every_row_once_however_many_epochs(tmp_path: Path) -> None:
    data = made_data(tmp_path)
    teacher, rows = teacher_of(data), tf.Variable(0, dtype=tf.int64)

    def counted(inputs: Mapping[str, Any]) -> Any:
        rows.assign_add(tf.shape(inputs["n0_scaled"], tf.int64)[0])
        return teacher(inputs)

    distillation.distilled(data, SETTINGS, counted, replace(STUDENT, epochs=2))
    assert rows.numpy() == data.train.rows


def test_labels_count_beside_the_teacher(tmp_path: Path) -> None:
    data = made_data(tmp_path)
    teacher = teacher_of(data)
    shares = [
        distillation.distilled(data, LONG, teacher, replace(STUDENT, teacher_share=share))
        for share in (1.0, 0.1)
    ]
    by_teacher, by_labels = (one.history[one.chosen]["val_auc"] for one in shares)
    assert by_labels > by_teacher + 0.05


def test_a_student_above_its_size_is_refused_before_it_learns(tmp_path: Path) -> None:
    data = made_data(tmp_path)

    def never(_: Mapping[str, Any]) -> Any:
        raise AssertionError("asked")

    with pytest.raises(distillation.SizeError, match=r"max_bytes 100: give it fewer hidden_units \[8\]"):
        distillation.distilled(data, SETTINGS, never, replace(STUDENT, max_bytes=100))
    distillation.check_size(replace(STUDENT, max_bytes=100), 100, "its file")
    with pytest.raises(distillation.SizeError, match="its file would take 101 bytes"):
        distillation.check_size(replace(STUDENT, max_bytes=100), 101, "its file")


def test_a_teacher_of_another_label_and_one_that_answers_no_number_are_refused(tmp_path: Path) -> None:
    data = made_data(tmp_path)
    teacher = teacher_of(data)
    with pytest.raises(TreatmentError, match=r"\[2000, 2\]"):
        distillation.distilled(data, SETTINGS, lambda inputs: tf.tile(teacher(inputs), [1, 2]), STUDENT)
    with pytest.raises(TreatmentError, match=r"answer to row 0 .* is \[nan\]"):
        distillation.distilled(data, SETTINGS, lambda inputs: teacher(inputs) * np.nan, STUDENT)


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    data = made_data(tmp_path)
    empty = replace(data, train=replace(data.train, rows=0))
    with pytest.raises(TreatmentError, match="'train' has no rows"):
        distillation.distilled(empty, SETTINGS, teacher_of(data), STUDENT)
