"""Before the long run: a few seconds that tell whether training can work at all.

Everything is measured on one untrained network, without dropout and penalties:

- inputs finite: one NaN makes every weight NaN.
- initial bias, initial loss: an untrained network knows the label's distribution and nothing else, so its loss is
  the label's entropy, or the share 1.0 of its variance, over the split. What a sample of rows has by chance beyond
  that is taken off: classes count by their share of the split, and the same rows are answered by that share or mean.
- gradients: each weight that the rows reach can learn, and no gradient is NaN.
- one batch learned: a few hundred rows are fitted better than a line through them would be, halfway at least.
- batches mixed, shuffled labels: with its label shuffled within every batch, training must find nothing. What it still
  finds is label that stays together in batches: rows sorted by label or time and hardly shuffled, which a network
  follows to and fro instead of learning. The share of the label's variance between batches tells this directly; the
  network's skill also tells of any other way from the label to its scores, and of a loss that flatters.

Karpathy 2019, "A Recipe for Training Neural Networks", gives the reasons for most of these.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from models.tasks import class_shares
from schemas.features import Label, LabelKind

if TYPE_CHECKING:
    from models.inputs import Split
    from models.trainer import Data, Settings

Build = Callable[["Data", "Settings", int], tf_keras.Model]
"""From data, settings and steps per epoch to the compiled, untrained network."""

Floats = npt.NDArray[np.float64]
Inputs = Mapping[str, tf.Tensor]

_FEW_ROWS = 256
_FEW_OF_CLASS = 8
"""Rows of the sample for each class, at least, where so many were seen."""
_FIT_STEPS = 40
_FIT_ROUNDS = (1.0, 1.0, 1.0, 10.0, 10.0, 10.0, 10.0, 10.0)
"""Factors of the learning rate, each for so many steps: a linear network's few weights have far to go."""
_NOISE_BATCHES = 40
_SMALLEST_BATCH, _LARGEST_BATCH = 64, 1024
_VALIDATION_ROWS = 8192
_VALIDATION_GROUPS = 32
_FEWEST_VALIDATION_ROWS = 50
_FEWEST_OF_OTHER_CLASSES = 5
_SLOWEST_RATE = 5e-3
"""Learning rate of the checks, at least: a cautious one learns nothing in so few steps."""

_BIAS_TOLERANCE = 0.01
_LOUDEST_START = 2.0
"""Initial loss over its theory. Random scores add a few per cent; twice is a network that shouts."""
_LARGEST_PENALTY = 10.0
_SHARE_OF_LINE = 0.5
_LEARNED = 0.02
"""Loss over its theory that is small enough: a sample without the label's outliers has next to no spread."""
_MOST_BETWEEN_BATCHES = 0.05
_MOST_SKILL = 0.05
_STANDARD_ERRORS = 3.0


class PreflightError(RuntimeError):
    """A check before training failed: training would be for nothing until its cause is mended."""


@dataclass(frozen=True)
class Finding:
    """What one check measured.

    Attributes:
      name: of the check.
      figure: what was measured.
      bound: which value it may not pass, in the direction that `sentence` tells.
      sentence: both in words.
    """

    name: str
    figure: float
    bound: float
    sentence: str


def preflight(data: Data, settings: Settings, build: Build) -> tuple[Finding, ...]:
    """Checks data, network, loss and optimizer before they are trained with.

    Builds one network, whose random numbers it takes from TensorFlow's global generator: set seeds after this.
    The checks are of float32 and of one device, whatever the settings say.

    Raises:
      PreflightError: for the first check that fails; the message says its name, figure and bound, and what to do.
    """
    return tuple(_checks(data, settings, build))


def _checks(data: Data, settings: Settings, build: Build) -> Iterator[Finding]:
    label, train = data.features.label, settings.train
    size = min(max(train.batch_size, _SMALLEST_BATCH), _LARGEST_BATCH)
    batches = _pairs(data.train.shuffled_batches(size, seed=train.seed, buffer_rows=train.shuffle_rows))
    # The rest of an epoch can be a row or two, whose labels shuffling would leave where they are.
    large = (batch for batch in batches if 2 * int(batch[1].shape[0]) >= min(size, data.train.rows))
    seen = list(itertools.islice(large, _NOISE_BATCHES))
    few = _few_rows(seen, min(_FEW_ROWS, data.train.rows), label)
    yield _finite_inputs(data.train, few[0])

    tf_keras.utils.set_random_seed(1)
    network = build(data, _for_checks(settings), data.train.steps(train.batch_size))
    bench = _Bench(network, few[1].dtype)
    theory = _Theory(label, data.train, train.label_smoothing)
    yield from _initial_loss(bench, theory, few)
    yield _gradients(bench, few)
    yield _one_batch(bench, theory, few)
    yield _mixed(seen, label)
    yield _shuffled_labels(bench, theory, seen, data.validation)
    # Layers are numbered as they are made: those of the network to come shall not be named otherwise.
    tf_keras.backend.reset_uids()


def _for_checks(settings: Settings) -> Settings:
    train = dataclasses.replace(
        settings.train,
        learning_rate=max(settings.train.learning_rate, _SLOWEST_RATE),
        schedule="constant",
        warmup_epochs=0.0,
        weight_decay=0.0,
        mixed_precision="off",
        jit_compile=False,
        recompute=False,
    )
    return dataclasses.replace(settings, train=train)


class _Bench:
    """A network to try things on: it can be put back to its start.

    Scores are computed as when serving, hence without dropout, and the loss is that of the label alone.
    """

    def __init__(self, network: tf_keras.Model, label_type: tf.DType) -> None:
        self.network = network
        self.variables = network.trainable_variables
        network.optimizer.build(self.variables)
        self._changing = [*self.variables, *network.optimizer.variables]
        self._start = [value.numpy() for value in self._changing]
        self._rate = float(network.optimizer.learning_rate)
        rows = {name: tf.TensorSpec((None, *t.shape[1:]), t.dtype) for name, t in network.input.items()}
        label = tf.TensorSpec((None, 1), label_type)
        # Traced once, for any number of rows; all else runs rarely enough to go without.
        self._traced = tf.function(self._step, [rows, label], autograph=False)

    def step(self, inputs: Inputs, label: tf.Tensor) -> None:
        """Lets the optimizer do one step."""
        self._traced(dict(inputs), label)

    def set_rate(self, factor: float) -> None:
        """Sets the learning rate to so many times what it was at the start."""
        self.network.optimizer.learning_rate.assign(factor * self._rate)

    def restart(self) -> None:
        """Puts weights and optimizer back to where they started."""
        self.set_rate(1.0)
        for variable, value in zip(self._changing, self._start, strict=True):
            variable.assign(value)

    def silence(self) -> None:
        """Sets all matrices to zero, so that only biases speak."""
        for variable in self.variables:
            if variable.shape.rank > 1:
                variable.assign(tf.zeros_like(variable))

    def loss(self, inputs: Inputs, label: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Mean loss of the rows, a scalar."""
        return self.network.compiled_loss(label, self.network(inputs, training=False), weights)

    def gradients(self, inputs: Inputs, label: tf.Tensor, weights: tf.Tensor) -> Sequence[Any]:
        """Of the loss with weighted rows, by variable; None for one that the scores do not depend on."""
        with tf.GradientTape() as tape:
            loss = self.loss(inputs, label, weights)
        return tape.gradient(loss, self.variables)

    def _step(self, inputs: Inputs, label: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = self.loss(inputs, label)
        self.network.optimizer.minimize(loss, self.variables, tape=tape)


@dataclass(frozen=True)
class _Theory:
    """What the loss has to be of answers that need no network."""

    label: Label
    split: Split
    smoothing: float

    def truth(self, labels: npt.NDArray[Any]) -> Floats:
        """`[rows, 1]` labels as the loss takes them: `[rows, classes]` shares, or `[rows, 1]` in spreads."""
        if self.label.kind is LabelKind.REGRESSION:
            return np.asarray(labels, np.float64) / self.split.label_std
        classes = len(self.label.classes)
        return np.eye(classes)[labels.ravel().astype(int)] * (1 - self.smoothing) + self.smoothing / classes

    @property
    def whole(self) -> float:
        """Loss of the training split's shares, or mean, said of every row of that split."""
        if self.label.kind is LabelKind.REGRESSION:
            return 1.0
        classes = np.arange(len(self.label.classes))
        counts = np.array(self.split.label_counts, np.float64)
        return self.untaught(self.truth(classes), counts / counts.mean())

    def weights(self, labels: npt.NDArray[Any]) -> Floats:
        """`[rows]` by which classes count as they do in the training split, whatever rows were drawn of each."""
        if self.label.kind is LabelKind.REGRESSION:
            return np.ones(len(labels))
        index = labels.ravel().astype(int)
        counts = np.array(self.split.label_counts, np.float64)
        drawn = np.bincount(index, minlength=len(counts))
        return np.asarray(counts[index] / counts.sum() / drawn[index] * len(index))

    def loss(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> float:
        """Cross entropy in nats, or squared error as a share of the training label's variance."""
        if self.label.kind is LabelKind.REGRESSION:
            each = (truth - answers)[:, 0] ** 2
        else:
            each = -np.sum(truth * np.log(answers), axis=1)
        return float(np.mean(each if weights is None else each * weights))

    def untaught(self, truth: Floats, weights: Floats | None = None) -> float:
        """Loss of the training split's shares, or mean, said of every row."""
        if self.label.kind is LabelKind.REGRESSION:
            return self.loss(truth, np.array([[self.split.label_mean / self.split.label_std]]), weights)
        return self.loss(truth, np.array([class_shares(self.split)]), weights)

    def of_line(self, inputs: Inputs, truth: Floats) -> float:
        """Loss of a ridge regression on the very rows that it was fitted to.

        Rows with the same inputs get the same answer, so that labels which contradict each other raise it.
        """
        matrix = np.concatenate([_numbers(tensor.numpy()) for tensor in inputs.values()], axis=1)
        kernel = matrix @ matrix.T
        middle = truth.mean(axis=0)
        answers = middle + kernel @ np.linalg.solve(kernel + np.eye(len(kernel)), truth - middle)
        return self.loss(truth, answers if self.label.kind is LabelKind.REGRESSION else _shares(answers))


def _shares(answers: Floats) -> Floats:
    cut = np.clip(answers, 0.01, 1.0)
    return np.asarray(cut / cut.sum(axis=1, keepdims=True))


def _numbers(values: npt.NDArray[Any]) -> Floats:
    """A column `[rows, width]` as numbers: itself within five spreads, or the share of each of its ids."""
    if values.dtype.kind == "f":
        return np.clip(values.astype(np.float64), -5.0, 5.0)
    return np.asarray((values[:, :, np.newaxis] == np.unique(values)).mean(axis=1))


def _pairs(batches: tf.data.Dataset) -> Iterator[tuple[Inputs, tf.Tensor]]:
    """Inputs and label; weights of rows, where there are any, are left out."""
    return ((element[0], element[1]) for element in batches)


def _few_rows(
    batches: Sequence[tuple[Inputs, tf.Tensor]], rows: int, label: Label
) -> tuple[Inputs, tf.Tensor]:
    """The first rows, and in place of the last of them some of each class that is rare among them."""
    labels = np.concatenate([labels.numpy()[:, 0] for _, labels in batches])
    each = min(_FEW_OF_CLASS, max(1, rows // (2 * max(1, len(label.classes)))))
    rare = [np.flatnonzero(labels == number)[:each] for number in range(len(label.classes))]
    chosen = np.concatenate([*rare, np.arange(rows)]).astype(int)
    _, first = np.unique(chosen, return_index=True)
    places = np.sort(chosen[np.sort(first)[:rows]])
    starts = np.cumsum([0, *(len(labels) for _, labels in batches)])
    taken = [
        (batch, places[(places >= start) & (places < end)] - start)
        for batch, (start, end) in zip(batches, itertools.pairwise(starts), strict=True)
    ]
    taken = [(batch, own) for batch, own in taken if len(own)]
    inputs = {
        name: tf.concat([tf.gather(batch[0][name], own) for batch, own in taken], axis=0)
        for name in batches[0][0]
    }
    return inputs, tf.concat([tf.gather(batch[1], own) for batch, own in taken], axis=0)


def _finite_inputs(split: Split, sample: Inputs) -> Finding:
    """Looks at all rows where they are held, else at the sample."""
    columns = split.columns or sample
    floats = {name: tensor for name, tensor in columns.items() if tensor.dtype.is_floating}
    unclean = {
        name: int(tf.math.count_nonzero(~tf.math.is_finite(tensor))) for name, tensor in floats.items()
    }
    worst = max(unclean, key=lambda name: unclean[name], default="")
    figure = unclean.get(worst, 0)
    return _judged(
        figure == 0,
        Finding(
            "inputs finite",
            figure,
            0,
            f"column {worst!r} has {figure:,} values that are not finite"
            if figure
            else f"{len(floats)} columns of numbers have no NaN and no infinite value",
        ),
        "one of them makes every weight NaN: mend the column's query or its feature in the transform",
    )


def _initial_loss(bench: _Bench, theory: _Theory, rows: tuple[Inputs, tf.Tensor]) -> Iterator[Finding]:
    labels, whole = rows[1].numpy(), theory.whole
    weights = theory.weights(labels)
    expected = theory.untaught(theory.truth(labels), weights)
    weighted = tf.constant(weights, tf.float32)
    bench.silence()
    of_biases = float(bench.loss(*rows, weighted))
    bench.restart()
    bound = expected + _BIAS_TOLERANCE * whole
    yield _judged(
        of_biases <= bound,
        Finding(
            "initial bias",
            of_biases,
            bound,
            f"with biases alone the loss is {of_biases:.4f}, in theory {expected:.4f}, at most {bound:.4f}",
        ),
        "the last bias has to start at the label's log-odds, log-shares or mean, and the loss has to get what the "
        "network gives (logits or shares)",
    )
    loss = float(bench.loss(*rows, weighted))
    loudest = _LOUDEST_START * max(expected, whole)
    yield _judged(
        loss <= loudest,
        Finding(
            "initial loss",
            loss,
            loudest,
            f"untrained, the loss is {loss:.4f}, in theory {expected:.4f}, at most {loudest:.4f}",
        ),
        "the random scores are too large: look for inputs that are not scaled, or lower model.cross_layers",
    )
    penalty = float(sum(bench.network.losses, 0.0))
    heaviest = whole * _LARGEST_PENALTY
    yield _judged(
        penalty <= heaviest,
        Finding(
            "initial penalty",
            penalty,
            heaviest,
            f"penalties of the weights come to {penalty:.4f}, at most {heaviest:.4f}",
        ),
        "the network would shrink its weights instead of learning: lower model.l2 or model.embedding_l2",
    )


def _gradients(bench: _Bench, rows: tuple[Inputs, tf.Tensor]) -> Finding:
    # Uneven weights: contributions that cancel out by symmetry are no dead gradients.
    uneven = tf.linspace(0.5, 1.5, rows[1].shape[0])
    gradients = {
        variable.name: _values(gradient)
        for variable, gradient in zip(bench.variables, bench.gradients(*rows, uneven), strict=True)
    }
    unclean = [name for name, values in gradients.items() if not np.isfinite(values).all()]
    silent = [name for name, values in gradients.items() if not values.any()]
    unreached = _unreached(bench.network, rows[0]) if silent else frozenset()
    dead = [name for name in silent if name not in unreached]
    faulty = unclean or dead
    return _judged(
        not faulty,
        Finding(
            "gradients",
            len(faulty),
            0,
            f"{len(faulty)} of {len(gradients)} weights have a gradient that is "
            f"{'not finite' if unclean else 'zero'}: {', '.join(faulty[:5])}"
            if faulty
            else f"all {len(gradients)} weights have finite gradients, and none that the rows reach is dead",
        ),
        "look for extreme values in the label or the inputs"
        if unclean
        else "what stands behind them passes nothing on: look for units that never fire and layers that lead nowhere",
    )


def _values(gradient: Any) -> npt.NDArray[Any]:
    if gradient is None:
        return np.zeros(1)
    return np.asarray((gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient).numpy())


def _unreached(network: tf_keras.Model, inputs: Inputs) -> frozenset[str]:
    """Names of weights whose layer these rows give nothing but zeros: an empty bag, a constant column."""
    taught = [layer for layer in network.layers if layer.trainable_weights]
    given = tf_keras.Model(network.input, {layer.name: layer.input for layer in taught})(inputs)
    return frozenset(
        weight.name
        for layer in taught
        if not any(tf.math.count_nonzero(part) for part in tf.nest.flatten(given[layer.name]))
        for weight in layer.trainable_weights
    )


def _one_batch(bench: _Bench, theory: _Theory, rows: tuple[Inputs, tf.Tensor]) -> Finding:
    truth = theory.truth(rows[1].numpy())
    start, line = theory.untaught(truth), theory.of_line(rows[0], truth)
    bound = max(start - _SHARE_OF_LINE * max(0.0, start - line), _LEARNED * theory.whole)
    loss, steps = math.inf, 0
    for factor in _FIT_ROUNDS:
        bench.set_rate(factor)
        for _ in range(_FIT_STEPS):
            bench.step(*rows)
        loss, steps = float(bench.loss(*rows)), steps + _FIT_STEPS
        has_risen = not loss <= start + theory.whole
        if loss <= bound or has_risen:
            break
    bench.restart()
    return _judged(
        loss <= bound,
        Finding(
            "one batch learned",
            loss,
            bound,
            f"after {steps} steps on the same {len(truth)} rows the loss is {loss:.4f}, at most {bound:.4f} "
            f"(it began at {start:.4f}; a straight line gets to {line:.4f})",
        ),
        "lower train.learning_rate if it rose; else look for a network too narrow, labels of other rows, or a loss "
        "that does not fit the label",
    )


def _mixed(batches: Sequence[tuple[Inputs, tf.Tensor]], label: Label) -> Finding:
    figure = _share_between([_indicators(labels.numpy(), label) for _, labels in batches])
    return _judged(
        figure <= _MOST_BETWEEN_BATCHES,
        Finding(
            "batches mixed",
            figure,
            _MOST_BETWEEN_BATCHES,
            f"{figure:.1%} of the label's variance lies between batches, at most {_MOST_BETWEEN_BATCHES:.0%}",
        ),
        "rows come in an order that knows the label: raise train.memory_rows above the rows of the split, or "
        "train.shuffle_rows, or order the rows of the query otherwise",
    )


def _indicators(labels: npt.NDArray[Any], label: Label) -> Floats:
    if label.kind is LabelKind.REGRESSION:
        return labels.astype(np.float64)
    return np.asarray(np.eye(len(label.classes))[labels.ravel().astype(int)])


def _share_between(groups: Sequence[Floats]) -> float:
    """Share of the variance that lies between groups, chance taken off: the intraclass correlation of an ANOVA."""
    values = np.concatenate(groups)
    middle = values.mean(axis=0)
    between = sum(len(group) * float(((group.mean(axis=0) - middle) ** 2).sum()) for group in groups)
    within = sum(float(((group - group.mean(axis=0)) ** 2).sum()) for group in groups)
    if len(values) == len(groups):
        return 0.0
    between, within = between / (len(groups) - 1), within / (len(values) - len(groups))
    whole = between + (len(values) / len(groups) - 1) * within
    return (between - within) / whole if whole else 0.0


def _shuffled_labels(
    bench: _Bench, theory: _Theory, batches: Sequence[tuple[Inputs, tf.Tensor]], validation: Split
) -> Finding:
    read = _validation_groups(validation)
    others = _rows_of_other_classes(np.concatenate([labels.numpy() for _, labels in read]), theory.label)
    rows = sum(len(labels) for _, labels in read)
    if rows < _FEWEST_VALIDATION_ROWS or others < _FEWEST_OF_OTHER_CLASSES:
        return Finding(
            "shuffled labels",
            0.0,
            _MOST_SKILL,
            f"not measured: of {rows} validation rows {others} are not of the most frequent class; it takes "
            f"{_FEWEST_VALIDATION_ROWS} and {_FEWEST_OF_OTHER_CLASSES} to tell skill from chance",
        )
    random = np.random.default_rng(1)
    for inputs, label in batches:
        bench.step(inputs, tf.constant(random.permutation(label.numpy())))
    skill, error = _skill(bench, theory, read)
    bench.restart()
    bound = _MOST_SKILL + _STANDARD_ERRORS * error
    return _judged(
        skill <= bound,
        Finding(
            "shuffled labels",
            skill,
            bound,
            f"trained on labels shuffled within each batch, the network explains {skill:.1%} of {rows:,} "
            f"validation rows, at most {bound:.1%}: {_MOST_SKILL:.0%}, and chance",
        ),
        "the label reaches the scores by another way than its rows: look for rows sorted by label or time and "
        "hardly shuffled, for weights that have seen the validation rows, and at the loss",
    )


def _validation_groups(validation: Split) -> Sequence[tuple[Inputs, tf.Tensor]]:
    """The first validation rows, in groups enough to tell how far chance moves their mean loss."""
    size = -(-min(validation.rows, _VALIDATION_ROWS) // _VALIDATION_GROUPS)
    return list(itertools.islice(_pairs(validation.batches(size)), _VALIDATION_GROUPS))


def _rows_of_other_classes(labels: npt.NDArray[Any], label: Label) -> int:
    if label.kind is LabelKind.REGRESSION:
        return len(labels)
    return int(len(labels) - np.bincount(labels.ravel().astype(int)).max())


def _skill(bench: _Bench, theory: _Theory, groups: Sequence[tuple[Inputs, tf.Tensor]]) -> tuple[float, float]:
    """By how much the loss is below an untaught network's, as a share of theory, and its standard error."""
    gains = np.array(
        [
            theory.untaught(theory.truth(label.numpy())) - float(bench.loss(rows, label))
            for rows, label in groups
        ]
    )
    sizes = np.array([len(label) for _, label in groups])
    mean = float(np.average(gains, weights=sizes))
    error = math.sqrt(float(np.average((gains - mean) ** 2, weights=sizes)) / (len(groups) - 1))
    return mean / theory.whole, error / theory.whole


def _judged(holds: bool, finding: Finding, remedy: str) -> Finding:
    # A figure that is NaN fails every comparison, so it lands here too.
    if holds and math.isfinite(finding.figure):
        return finding
    raise PreflightError(
        f"{finding.name}: {finding.sentence}; {remedy}. (train.checks: false trains nevertheless)"
    )
