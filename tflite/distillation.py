"""A small network that learns from the answers of the one that serves (Hinton et al. 2015, arXiv:1503.02531).

The teacher answers every row once. It is any function of the model's columns: a SavedModel's network, an ensemble's
too. What is true of the rows counts beside it, so that the student need not repeat every error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from models.callbacks import BestEpoch, LocalValidation, monitored
from models.inputs import Split
from models.settings import TrainSettings
from models.tasks import TASKS, Task
from models.trainer import Data, Fitted, Settings, compiled_network, untrained
from schemas.features import Label, LabelKind
from tflite import learning
from tflite.learning import TreatmentError
from tflite.settings import StudentSettings

Teacher = Callable[[Mapping[str, tf.Tensor]], tf.Tensor]
"""Model columns by name, `[batch, width]`, to logits or predictions `[batch, outputs]`."""

_Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_FLOAT_BYTES = 4

_LARGEST_EXACT = 2**24
"""Row numbers up to this are exact in float32."""


class SizeError(TreatmentError):
    """A student that is larger than it may be."""


def distilled(data: Data, settings: Settings, teacher: Teacher, student: StudentSettings) -> Fitted:
    """Trains a student on the teacher's answers and the labels.

    Args:
      data: the splits; the teacher has most likely learned from the first.
      settings: those of the teacher's training; batches, learning rate and penalties are the student's too.
      teacher: in the state in which it serves.
      student: what it is and how it learns.

    Returns:
      A network of the same inputs and outputs, of its epoch that is best by the true labels of the validation split.

    Raises:
      SizeError: before training, if its weights alone are larger than it may be.
      TreatmentError: if a split is empty, or the teacher's answers do not have the shape of the student's.
      TrainingError: if the loss is not finite.
    """
    learning.check_rows(data)
    own = _own(settings, student)
    train, label = own.train, data.features.label
    learning.seed_all(train)
    network = untrained(data, own)
    check_size(student, _FLOAT_BYTES * network.count_params(), "its weights alone")
    task = TASKS[label.kind](data.train, label, train)
    kept = BestEpoch(monitored(train, label), patience=0)
    validation = LocalValidation(
        lambda: compiled_network(data, own, 1), data.validation.batches(learning.VALIDATION_ROWS)
    )
    seconds = learning.learn(
        network,
        _taught_batches(data, train, teacher, int(network.output_shape[-1])),
        learning.epoch_steps(data.train, train),
        train,
        _loss(task, data, student),
        kept,
        [validation],
    )
    chosen = untrained(data, own)
    chosen.set_weights(kept.weights)
    return Fitted(chosen, kept.history, kept.chosen, kept.monitor, seconds)


def check_size(student: StudentSettings, size_bytes: int, what: str) -> None:
    """Refuses a student that is larger than it may be.

    Args:
      student: says how large it may be.
      size_bytes: what it takes as float32.
      what: has this size, for the message.

    Raises:
      SizeError: if it is larger.
    """
    if student.max_bytes is not None and size_bytes > student.max_bytes:
        raise SizeError(
            f"tflite.distilled: {what} would take {size_bytes:,} bytes as float32, more than max_bytes "
            f"{student.max_bytes:,}: give it fewer hidden_units {list(student.hidden_units)}, a smaller "
            f"embedding_size {student.embedding_size} or fewer cross_layers {student.cross_layers}, or raise max_bytes"
        )


def _own(settings: Settings, student: StudentSettings) -> Settings:
    network = replace(
        settings.network,
        hidden_units=student.hidden_units,
        embedding_size=student.embedding_size,
        cross_layers=student.cross_layers,
        dropout=student.dropout,
        input_dropout=0.0,
    )
    train = replace(
        settings.train,
        epochs=student.epochs,
        warmup_epochs=0.0,
        warm_start=None,
        mixed_precision="off",
        recompute=False,
    )
    return Settings(network, train)


def _taught_batches(data: Data, train: TrainSettings, teacher: Teacher, outputs: int) -> tf.data.Dataset:
    """The Trainer's batches, with float32 labels `[rows, 1 + outputs]`: what is true, then what the teacher says."""
    split = data.train
    answer = tf.function(lambda inputs: tf.cast(teacher(inputs), tf.float32), autograph=False)
    if not _can_number(split, data.features.label):
        return learning.batches(split, train).map(
            lambda inputs, label, *weight: (inputs, _joined(label, answer(inputs)), *weight)
        )
    targets = _joined(split.labels, _answers(split, answer, outputs))
    # A row's number travels in the place of its label through the shuffling, and fetches both.
    numbered = split.relabelled(tf.range(split.rows, dtype=tf.int64)[:, tf.newaxis])
    return learning.batches(numbered, train).map(
        lambda inputs, number, *weight: (inputs, tf.gather(targets, tf.cast(number[:, 0], tf.int64)), *weight)
    )


def _can_number(split: Split, label: Label) -> bool:
    """Whether the teacher can answer in advance: rows that are read anew come in no order that could be numbered."""
    is_float = label.kind is LabelKind.REGRESSION
    return split.is_in_memory and not (is_float and split.rows > _LARGEST_EXACT)


def _answers(split: Split, answer: Teacher, outputs: int) -> tf.Tensor:
    parts = [answer(inputs).numpy() for inputs, *_ in split.batches(learning.VALIDATION_ROWS)]
    answers = np.concatenate(parts)
    if answers.shape != (split.rows, outputs):
        raise TreatmentError(
            f"the teacher answers {list(answers.shape)} for the {split.rows} rows of split {split.name!r}, where the "
            f"student has [rows, {outputs}]: give the network that was trained for this label"
        )
    is_finite = np.isfinite(answers).all(axis=1)
    if not is_finite.all():
        row = int(np.argmin(is_finite))
        raise TreatmentError(
            f"the teacher's answer to row {row} of split {split.name!r} is {answers[row].tolist()}: nobody can learn "
            "from that; serve a model whose answers are numbers"
        )
    return tf.constant(answers)


def _joined(label: Any, answers: tf.Tensor) -> tf.Tensor:
    return tf.concat([tf.cast(label, tf.float32), answers], axis=1)


def _loss(task: Task, data: Data, student: StudentSettings) -> _Loss:
    """Of targets as `_taught_batches` has them and logits: `[batch]`, so that rows can be weighted."""
    # A loss that is an object would give the mean when called.
    true = task.loss.call if isinstance(task.loss, tf_keras.losses.Loss) else task.loss
    apart = _APART[data.features.label.kind](data.train, student.temperature)
    share = student.teacher_share

    def loss(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return (1.0 - share) * true(target[:, :1], logits) + share * apart(target[:, 1:], logits)

    return loss


def _binary(_: Split, temperature: float) -> _Loss:
    def apart(answers: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        soft = tf.sigmoid(answers / temperature)
        cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(soft, logits / temperature)
        return temperature**2 * tf.reduce_mean(cross_entropy, axis=1)

    return apart


def _multiclass(_: Split, temperature: float) -> _Loss:
    def apart(answers: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        soft = tf.nn.softmax(answers / temperature)
        return temperature**2 * tf.nn.softmax_cross_entropy_with_logits(soft, logits / temperature)

    return apart


def _regression(split: Split, _: float) -> _Loss:
    return lambda answers, values: tf.reduce_mean(tf.square((answers - values) / split.label_std), axis=1)


_APART: Mapping[LabelKind, Callable[[Split, float], _Loss]] = {
    LabelKind.BINARY: _binary,
    LabelKind.MULTICLASS: _multiclass,
    LabelKind.REGRESSION: _regression,
}
"""How far a student is from its teacher, row by row; the gradient of softened answers has the size of hard ones'."""
