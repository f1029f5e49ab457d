"""Before the long run: sane tables pass, whatever they hold; each planted fault stops the run under its name."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models import preflight as checks
from models import trainer
from models.callbacks import TrainingError
from models.network import Column, build_network
from models.preflight import Finding, PreflightError
from models.settings import NetworkSettings, TrainSettings
from models.tasks import TASKS
from schemas.features import DType, Form, Label, LabelKind

CLASSES = {LabelKind.BINARY: ("0", "1"), LabelKind.MULTICLASS: ("a", "b", "c"), LabelKind.REGRESSION: ()}
COLUMNS = (
    Column("number", Form.DENSE, 1, 0),
    Column("city", Form.ID, 1, 7),
    Column("words", Form.BAG, 3, 9),
)


@dataclass(frozen=True)
class Settings:
    """What `models.trainer.Settings` holds."""

    network: NetworkSettings = field(default_factory=lambda: NetworkSettings(hidden_units=(16, 8)))
    train: TrainSettings = field(default_factory=lambda: TrainSettings(batch_size=128))


@dataclass(frozen=True)
class Rows:
    """What `models.inputs.Split` tells of rows held in memory."""

    columns: dict[str, tf.Tensor]
    labels: tf.Tensor
    label_counts: tuple[int, ...] = ()
    label_mean: float = 0.0
    label_std: float = 1.0
    is_sorted_by_label: bool = False

    @property
    def rows(self) -> int:
        return len(self.labels)

    def steps(self, batch_size: int) -> int:
        return -(-self.rows // batch_size)

    def batches(self, batch_size: int) -> tf.data.Dataset:
        return self._in_order(np.arange(self.rows)).batch(batch_size)

    def shuffled_batches(self, batch_size: int, *, seed: int, buffer_rows: int) -> tf.data.Dataset:
        if self.is_sorted_by_label:
            order = np.argsort(self.labels.numpy().ravel(), kind="stable")
        else:
            order = np.random.default_rng(seed).permutation(self.rows)
        return self._in_order(order).batch(batch_size).repeat()

    def _in_order(self, order: Any) -> tf.data.Dataset:
        columns = {name: tf.gather(values, order) for name, values in self.columns.items()}
        return tf.data.Dataset.from_tensor_slices((columns, tf.gather(self.labels, order)))


def made_split(kind: LabelKind, rows: int = 4000, *, signal: float = 1.5, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    number, city = random.normal(size=(rows, 1)), random.integers(0, 7, (rows, 1))
    score = signal * (number + (city == 3)) + random.normal(size=(rows, 1)) - 1
    if kind is LabelKind.REGRESSION:
        labels = (1000 + 200 * score).astype(np.float32)
        figures: dict[str, Any] = {"label_mean": float(labels.mean()), "label_std": float(labels.std())}
    else:
        labels = (score > 0).astype(np.int64) + (score > 1) * (kind is LabelKind.MULTICLASS)
        figures = {"label_counts": tuple(np.bincount(labels.ravel(), minlength=len(CLASSES[kind])).tolist())}
    columns = {
        "number": tf.constant(number, tf.float32),
        "city": tf.constant(city, tf.int64),
        "words": tf.constant(random.integers(0, 9, (rows, 3)), tf.int64),
    }
    return Rows(columns, tf.constant(labels), **figures)


def made_data(kind: LabelKind = LabelKind.BINARY, **given: Any) -> SimpleNamespace:
    label = Label("label", DType.FLOAT, kind, CLASSES[kind])
    return SimpleNamespace(
        train=made_split(kind, **given),
        validation=made_split(kind, **{"rows": 1000} | given | {"seed": 1}),
        features=SimpleNamespace(label=label),
    )


def bias_of(split: Any) -> tuple[float, ...]:
    kinds = {0: LabelKind.REGRESSION, 2: LabelKind.BINARY, 3: LabelKind.MULTICLASS}
    kind = kinds[len(split.label_counts)]
    label = Label("label", DType.FLOAT, kind, CLASSES[kind])
    return TASKS[kind](split, label, TrainSettings()).initial_bias


def loss_for(split: Rows, smoothing: float) -> Any:
    if not split.label_counts:
        return lambda truth, said: tf.square(truth / split.label_std - said)
    if len(split.label_counts) == 2:
        return tf_keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    classes = tf_keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction="none"
    )
    return lambda truth, said: classes(tf.one_hot(truth[:, 0], len(split.label_counts)), said)


def compiled(network: tf_keras.Model, data: Any, settings: Any) -> tf_keras.Model:
    rate = settings.train.learning_rate
    network.compile(
        tf_keras.optimizers.Adam(rate, global_clipnorm=1.0),
        loss_for(data.train, settings.train.label_smoothing),
    )
    return network


def build(data: Any, settings: Any, steps: int) -> tf_keras.Model:
    columns = [column for column in COLUMNS if column.name in data.train.columns]
    bias = bias_of(data.train)
    return compiled(build_network(columns, len(bias), settings.network, bias), data, settings)


def preflight(data: Any, settings: Any, building: Callable[..., Any]) -> tuple[Finding, ...]:
    return checks.preflight(data, settings, building)


def only(data: SimpleNamespace, *names: str) -> SimpleNamespace:
    for name in ("train", "validation"):
        split = getattr(data, name)
        setattr(data, name, replace(split, columns={n: split.columns[n] for n in names}))
    return data


@pytest.mark.parametrize("kind", list(LabelKind), ids=str)
def test_a_sane_table_passes_every_check(kind: LabelKind) -> None:
    smoothing = 0.0 if kind is LabelKind.REGRESSION else 0.1
    settings = Settings(train=TrainSettings(batch_size=128, label_smoothing=smoothing))
    findings = preflight(made_data(kind), settings, build)
    assert [finding.name for finding in findings] == [
        "inputs finite",
        "initial bias",
        "initial loss",
        "initial penalty",
        "gradients",
        "one batch learned",
        "batches mixed",
        "shuffled labels",
    ]
    assert all(finding.figure <= finding.bound for finding in findings)


@pytest.mark.parametrize("names", [("number",), ("city",), ("number", "words")], ids="+".join)
def test_a_table_of_nothing_but_noise_passes_too(names: tuple[str, ...]) -> None:
    preflight(only(made_data(signal=0.0), *names), Settings(), build)


def test_a_column_that_is_empty_in_every_row_is_no_dead_network() -> None:
    data = made_data()
    empty = {**data.train.columns, "words": tf.zeros_like(data.train.columns["words"])}
    data.train = replace(data.train, columns=empty)
    preflight(data, Settings(), build)


def relabelled(split: Rows, labels: Any) -> Rows:
    values = np.asarray(labels).reshape(-1, 1)
    if values.dtype.kind == "f":
        figures: dict[str, Any] = {"label_mean": float(values.mean()), "label_std": float(values.std())}
        return replace(split, labels=tf.constant(values, tf.float32), **figures)
    counts = np.bincount(values.ravel(), minlength=len(split.label_counts))
    return replace(split, labels=tf.constant(values, tf.int64), label_counts=tuple(counts.tolist()))


def rare(split: Rows, positives: int) -> Rows:
    """The split with the label on the largest so many of its numbers, and a fifth of these elsewhere."""
    order = np.argsort(-split.columns["number"].numpy().ravel(), kind="stable")
    labels = np.zeros(split.rows, np.int64)
    labels[order[: positives - positives // 5]] = 1
    labels[order[-(positives // 5) :] if positives >= 5 else []] = 1
    return relabelled(split, labels)


def changed(data: SimpleNamespace, change: Callable[[Rows], Rows]) -> SimpleNamespace:
    data.train, data.validation = change(data.train), change(data.validation)
    return data


@pytest.mark.parametrize(
    ("rows", "positives", "smoothing"), [(20_000, 20, 0.0), (3000, 5, 0.0), (20_000, 20, 0.05)]
)
def test_a_label_that_few_rows_have_passes(rows: int, positives: int, smoothing: float) -> None:
    for seed in range(2):
        data = made_data(rows=rows, seed=seed)
        data.train = rare(data.train, positives)
        data.validation = rare(data.validation, 1)
        settings = TrainSettings(batch_size=128, label_smoothing=smoothing, seed=seed)
        preflight(data, Settings(train=settings), build)


@pytest.mark.parametrize("spread", [2.0, 4.0])
def test_an_amount_whose_few_largest_rows_are_most_of_its_variance_passes(spread: float) -> None:
    for seed in range(2):
        data = changed(
            made_data(LabelKind.REGRESSION, rows=20_000, seed=seed),
            lambda split: relabelled(split, np.exp(spread * (split.labels.numpy() - 1000) / 500)),
        )
        preflight(data, Settings(train=TrainSettings(batch_size=128, seed=seed)), build)


@pytest.mark.parametrize("kind", list(LabelKind), ids=str)
def test_a_linear_network_learns_a_strong_signal_in_time(kind: LabelKind) -> None:
    preflight(made_data(kind, signal=20.0), Settings(NetworkSettings(hidden_units=())), build)


@pytest.mark.parametrize("kind", list(LabelKind), ids=str)
def test_a_tiny_table_passes_and_chance_in_its_validation_rows_is_no_skill(kind: LabelKind) -> None:
    for seed, rows in enumerate((24, 60)):
        data = made_data(kind, rows=rows, seed=seed)
        data.validation = made_split(kind, rows, seed=seed + 10)
        last = preflight(data, Settings(train=TrainSettings(batch_size=128, seed=seed)), build)[-1]
        assert ("not measured" in last.sentence) == (rows == 24)


def test_a_class_that_training_never_saw_passes() -> None:
    data = made_data(LabelKind.MULTICLASS)
    data.train = relabelled(data.train, np.minimum(data.train.labels.numpy(), 1))
    preflight(data, Settings(), build)


@pytest.mark.parametrize("amount", [5.0, 0.1])
def test_an_amount_that_never_differs_is_named_with_its_value(amount: float) -> None:
    split: Any = made_split(LabelKind.REGRESSION, 100)
    same: Any = SimpleNamespace(
        name="train", rows=100, batches=relabelled(split, np.full(100, amount)).batches
    )
    label = Label("amount", DType.FLOAT, LabelKind.REGRESSION)
    with pytest.raises(TrainingError, match=f"all 100 rows have amount = {amount:g}"):
        trainer._check_classes(same, label)
    trainer._check_classes(split, label)


def fails(match: str, data: Any = None, settings: Any = None, building: Callable[..., Any] = build) -> None:
    with pytest.raises(PreflightError, match=match):
        preflight(data or made_data(), settings or Settings(), building)


def test_one_nan_is_found_in_its_column() -> None:
    data = made_data()
    numbers = data.train.columns["number"].numpy()
    numbers[3000] = math.nan
    data.train = replace(data.train, columns={**data.train.columns, "number": tf.constant(numbers)})
    fails("inputs finite: column 'number' has 1 value", data)


def test_a_bias_that_does_not_know_the_share_of_the_label_is_named() -> None:
    def unknowing(data: Any, settings: Any, steps: int) -> tf_keras.Model:
        return compiled(build_network(COLUMNS, 1, settings.network, [0.0]), data, settings)

    fails("initial bias: with biases alone the loss is 0.69", building=unknowing)


def test_inputs_without_a_scale_make_the_first_scores_too_loud() -> None:
    def unscaled(data: Any, settings: Any, steps: int) -> tf_keras.Model:
        number = tf_keras.Input((1,), name="number")
        hidden = tf_keras.layers.Dense(8, "relu")(number * 1e4)
        start = tf_keras.initializers.Constant(bias_of(data.train)[0])
        scores = tf_keras.layers.Dense(1, bias_initializer=start)(hidden)
        return compiled(tf_keras.Model({"number": number}, scores), data, settings)

    fails("initial loss: untrained", only(made_data(), "number"), building=unscaled)


def test_units_that_never_fire_are_dead_gradients() -> None:
    def dead(data: Any, settings: Any, steps: int) -> tf_keras.Model:
        network = build(data, settings, steps)
        for weight in network.trainable_variables:
            if weight.shape == (16,):
                weight.assign(tf.fill([16], -1e6))
        return network

    fails("gradients: .* gradient that is zero: ", building=dead)


def test_a_learning_rate_that_explodes_does_not_learn_one_batch() -> None:
    fails(
        "one batch learned: .*lower train.learning_rate",
        settings=Settings(train=TrainSettings(batch_size=128, learning_rate=10.0)),
    )


@pytest.mark.parametrize("kind", list(LabelKind), ids=str)
def test_labels_that_stay_together_in_batches_are_not_mixed(kind: LabelKind) -> None:
    data = made_data(kind)
    data.train = replace(data.train, is_sorted_by_label=True)
    fails("batches mixed: .*train.shuffle_rows", data)


def test_scores_that_know_the_label_without_its_rows_have_skill_on_noise() -> None:
    def knowing(data: Any, settings: Any, steps: int) -> tf_keras.Model:
        # Frozen, and of a column that no layer which learns could answer to.
        number = tf_keras.Input((1,), name="number")
        known = tf_keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", trainable=False)(number)
        learning = build_network(COLUMNS[1:], 1, settings.network, bias_of(data.train))
        network = tf_keras.Model({**learning.input, "number": number}, learning.output + known)
        return compiled(network, data, settings)

    fails("shuffled labels: .* explains", building=knowing)
