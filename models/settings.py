"""The settings of the network, its training and its tuning: plain values, without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True)

OUTPUTS_FOLLOW = "outputs_follow"
"""Entry of `custom_config`: what a training leaves is copied away afterwards; until then its checkpoints stay."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


def _made(kind: type[Any]) -> Callable[[Any], Any]:
    """Settings within settings travel as JSON objects, which strict dataclasses do not take."""
    return lambda value: kind(**value) if isinstance(value, dict) else value


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, config=STRICT)
class NetworkSettings:
    """`model`: the architecture and its regularisation."""

    hidden_units: Annotated[
        tuple[Count, ...], Field(strict=False, description="Width of each hidden layer of the deep part.")
    ] = (64, 32)
    cross_layers: Annotated[
        int, Field(ge=0, le=8, description="Feature-crossing layers (DCN-v2) beside the deep part.")
    ] = 1
    cross_rank: Annotated[int, Field(ge=1, description="Rank of each crossing layer's weight matrix.")] = 16
    wide: Annotated[
        bool, Field(description="Add a linear part over all columns, one weight per category and bucket.")
    ] = True
    embedding_size: Annotated[int, Field(ge=1, description="Largest width of an embedding.")] = 8
    dropout: Annotated[Fraction, Field(description="Dropout after each hidden layer.")] = 0.3
    input_dropout: Annotated[
        Fraction, Field(description="Share of the deep part's inputs dropped while training.")
    ] = 0.1
    l2: Annotated[float, Field(ge=0.0, description="L2 penalty on the weights of dense layers.")] = 1e-4
    embedding_l2: Annotated[float, Field(ge=0.0, description="L2 penalty on embeddings.")] = 1e-5


@dataclass(frozen=True, config=STRICT)
class ClusterSettings:
    """`train.cluster`: processes that the Trainer starts on this machine and trains with."""

    workers: Annotated[int, Field(ge=1, le=64, description="Worker processes.")] = 2
    parameter_servers: Annotated[
        int, Field(ge=0, le=64, description="Parameter servers; strategy parameter_server needs one.")
    ] = 0
    restarts: Annotated[
        int, Field(ge=0, le=100, description="Restarts after a process died; training then goes on.")
    ] = 2


@dataclass(frozen=True, config=STRICT)
class UnfreezeStep:
    """`train.warm_start.unfreeze[]`: which layers learn from an epoch on."""

    epoch: Annotated[int, Field(ge=1, description="First epoch, from 1, in which they learn.")]
    layers: Annotated[
        tuple[str, ...],
        Field(strict=False, min_length=1, description="Names of layers; * stands for any text."),
    ]


@dataclass(frozen=True, config=STRICT)
class WarmStartSettings:
    """`train.warm_start`: weights to begin with."""

    source: Annotated[
        str,
        Field(min_length=1, description="champion: the model that serves; or the folder of a SavedModel."),
    ] = "champion"
    layers: Annotated[
        tuple[str, ...],
        Field(strict=False, min_length=1, description="Layers that take its weights; * stands for any text."),
    ] = ("*",)
    unfreeze: Annotated[
        tuple[Annotated[UnfreezeStep, BeforeValidator(_made(UnfreezeStep))], ...],
        BeforeValidator(_listed),
        Field(
            description="Progressive unfreezing: layers named here stay as they are until their epoch; the "
            "others learn from the start.",
        ),
    ] = ()


@dataclass(frozen=True, config=STRICT)
class TrainSettings:
    """`train`: how the network learns."""

    epochs: Annotated[Count, Field(description="Most epochs.")] = 10
    epoch_rows: Annotated[
        Count | None,
        Field(
            description="Rows of one epoch, after which training validates, chooses and saves a checkpoint; "
            "absent: all rows of the training split once."
        ),
    ] = None
    batch_size: Annotated[Count, Field(description="Rows per step; see batch_size_is.")] = 512
    batch_size_is: Annotated[
        Literal["global", "replica"],
        Field(description="Whether batch_size counts the rows of all replicas together or of each."),
    ] = "global"
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0, description="Peak learning rate.")] = 2e-3
    scale_learning_rate: Annotated[
        Literal["none", "linear", "sqrt"],
        Field(
            description="How learning_rate grows with the number of replicas; needs batch_size_is: replica."
        ),
    ] = "none"
    warmup_epochs: Annotated[
        float,
        Field(
            ge=0.0,
            description="Epochs over which the learning rate rises from zero to its peak; fewer than epochs.",
        ),
    ] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine"], Field(description="How the learning rate falls over all steps.")
    ] = "cosine"
    weight_decay: Annotated[float, Field(ge=0.0, description="Decoupled weight decay (AdamW).")] = 0.0
    label_smoothing: Annotated[Fraction, Field(description="Label smoothing, for classes.")] = 0.0
    patience_epochs: Annotated[
        int,
        Field(ge=0, description="Stop after this many epochs without a better validation metric; 0: never."),
    ] = 3
    monitor: Annotated[
        Literal["auto", "val_auc", "val_loss"],
        Field(
            description="Validation metric that picks the epoch to keep. auto: val_auc for a binary label."
        ),
    ] = "auto"
    seed: Annotated[int, Field(ge=0, description="Seed of initial weights, shuffling and dropout.")] = 1
    strategy: Annotated[
        Literal["auto", "none", "mirrored", "multi_worker", "parameter_server", "tpu"],
        Field(description="tf.distribute strategy. auto: mirrored where there are several GPUs."),
    ] = "auto"
    cluster: Annotated[
        ClusterSettings | None,
        BeforeValidator(_made(ClusterSettings)),
        Field(
            description="A cluster on this machine, for multi_worker and parameter_server; absent: the one "
            "that TF_CONFIG describes.",
        ),
    ] = None
    tpu: Annotated[
        str | None,
        Field(description="Name or grpc:// address of the TPU; absent: what TPU_NAME says, or local."),
    ] = None
    auto_shard: Annotated[
        Literal["auto", "files", "rows"],
        Field(
            description="What workers share of a split that is not held in memory. files: each reads files of "
            "its own; rows: each reads all and takes its part of every batch; auto: files where there is one "
            "for each worker."
        ),
    ] = "auto"
    min_shard_bytes: Annotated[
        int, Field(ge=1, description="parameter_server: smallest part into which a variable is split.")
    ] = 262_144
    mixed_precision: Annotated[
        Literal["off", "float16", "bfloat16"], Field(description="Type in which layers compute.")
    ] = "off"
    jit_compile: Annotated[bool, Field(description="Compile the training step with XLA.")] = False
    recompute: Annotated[
        bool,
        Field(
            description="Compute hidden layers again in the backward pass instead of keeping their values."
        ),
    ] = False
    checks: Annotated[
        bool,
        Field(
            description="Before training: initial loss, finite gradients, one batch learned, no skill on noise."
        ),
    ] = True
    warm_start: Annotated[
        WarmStartSettings | None,
        BeforeValidator(_made(WarmStartSettings)),
        Field(description="Weights to begin with; absent: random ones."),
    ] = None
    recency_half_life: Annotated[
        float | None,
        Field(
            gt=0.0,
            description="Weight training rows by age: half as much for each so many units before the latest row. "
            "Units are those of the column that orders the rows: seconds where the query gives a date or time "
            "(86400 are a day), days where it is ISO text.",
        ),
    ] = None
    refit: Annotated[
        bool,
        Field(
            description="After validation has chosen the epoch, train anew on the rows of train and validation "
            "together, for as many epochs, and keep the last: the model then knows the latest rows, too."
        ),
    ] = False
    shuffle_rows: Annotated[
        int, Field(ge=1, description="Shuffle buffer, where the split is too large to be held in memory.")
    ] = 100_000
    memory_rows: Annotated[
        int, Field(ge=0, description="Hold a split in memory, transformed, up to this many rows.")
    ] = 5_000_000

    @model_validator(mode="after")
    def _agrees(self) -> TrainSettings:
        distributed = ("multi_worker", "parameter_server")
        if self.cluster is not None and self.strategy not in distributed:
            raise ValueError(f"cluster is given but strategy is {self.strategy!r}: use one of {distributed}")
        if self.cluster is not None and (self.cluster.parameter_servers > 0) != (
            self.strategy == "parameter_server"
        ):
            raise ValueError(
                f"cluster.parameter_servers is {self.cluster.parameter_servers} with strategy {self.strategy!r}: "
                "parameter_server needs one or more, multi_worker none"
            )
        if self.warm_start is not None and self.warm_start.unfreeze and self.weight_decay:
            raise ValueError(
                "weight_decay would move layers that warm_start.unfreeze keeps as they are: use 0"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} must be below epochs {self.epochs}: the learning rate would "
                "never reach its peak"
            )
        self._check_scaling()
        return self

    def _check_scaling(self) -> None:
        """Refuses settings that follow the number of replicas where nothing follows it."""
        if self.strategy == "parameter_server":
            for name, value, usual in (
                ("batch_size_is", self.batch_size_is, "global"),
                ("scale_learning_rate", self.scale_learning_rate, "none"),
            ):
                if value != usual:
                    raise ValueError(
                        f"{name} is {value!r}, which does nothing with strategy 'parameter_server', whose workers "
                        f"take batches of their own: set {name}: {usual}, and batch_size and learning_rate for "
                        "one worker"
                    )
        if self.scale_learning_rate != "none" and self.batch_size_is == "global":
            raise ValueError(
                f"scale_learning_rate is {self.scale_learning_rate!r}, which does nothing while batch_size is the "
                "same for any number of replicas: set batch_size_is: replica, or scale_learning_rate: none"
            )

    def lasting(self, epochs: int) -> TrainSettings:
        """These settings for another number of epochs; of a short training half at most is warmup."""
        return replace(self, epochs=epochs, warmup_epochs=min(self.warmup_epochs, epochs / 2))


@dataclass(frozen=True, config=STRICT)
class SearchRange:
    """`tune.search.NAME`: the values or the range of one hyperparameter."""

    values: Annotated[
        tuple[Any, ...] | None,
        Field(strict=False, min_length=1, description="The values to choose from; a value may be a list."),
    ] = None
    min: Annotated[float | None, Field(description="Smallest value.")] = None
    max: Annotated[float | None, Field(description="Largest value.")] = None
    step: Annotated[
        float | None,
        Field(gt=0.0, description="Distance between two values; with log the factor between them."),
    ] = None
    log: Annotated[bool, Field(description="Search the logarithm.")] = False

    @model_validator(mode="after")
    def _one_form(self) -> SearchRange:
        if (self.values is None) == (self.min is None or self.max is None):
            raise ValueError("give either values, or min and max")
        if self.min is not None and self.max is not None and not self.min < self.max:
            raise ValueError(f"min {self.min} must be below max {self.max}")
        if self.log and (self.min is None or self.min <= 0):
            raise ValueError("log needs a min above 0")
        if self.step is not None:
            self._check_step()
        return self

    def _check_step(self) -> None:
        if self.min is None or self.max is None:
            raise ValueError("step goes with min and max, not with values")
        if self.log and self.step is not None and self.step <= 1:
            raise ValueError(f"step {self.step} must be above 1: with log it is a factor")
        count = len(self.choices())
        if not 2 <= count <= _MOST_STEPS:
            raise ValueError(
                f"step {self.step} makes {count:,} values from {self.min} to {self.max}: make it 2 to {_MOST_STEPS:,}"
            )

    def choices(self) -> tuple[Any, ...]:
        """The values to choose from, in order; empty for a range without a step."""
        if self.values is not None:
            return self.values
        if self.step is None:
            return ()
        assert self.min is not None, "a step goes with min"
        assert self.max is not None, "a step goes with max"
        # A hair more: 0.3 is three steps of 0.1, whatever floats say.
        if self.log:
            count = math.floor(math.log(self.max / self.min) / math.log(self.step) + 1e-9)
            return tuple(_neat(self.min * self.step**number) for number in range(count + 1))
        count = math.floor((self.max - self.min) / self.step + 1e-9)
        return tuple(_neat(self.min + number * self.step) for number in range(count + 1))


_MOST_STEPS = 10_000


def _neat(value: float) -> float:
    return float(f"{value:.12g}")


@dataclass(frozen=True, config=STRICT)
class TuneSettings:
    """`tune`: the search for hyperparameters."""

    enabled: Annotated[bool, Field(description="Search before training.")] = False
    trials: Annotated[
        Count, Field(description="Number of trials; hyperband makes as many as tune.epochs asks for.")
    ] = 8
    epochs: Annotated[Count, Field(description="Most epochs of one trial.")] = 3
    method: Annotated[
        Literal["random", "bayesian", "hyperband"], Field(description="How the next trial is chosen.")
    ] = "bayesian"
    objective: Annotated[
        str,
        Field(
            pattern=r"^(auto|val_\w+)$",
            description="Validation metric by which trials are compared, such as val_auc; auto: train.monitor.",
        ),
    ] = "auto"
    workers: Annotated[
        int,
        Field(ge=1, le=64, description="Processes that run trials at the same time; each holds the data."),
    ] = 1
    ensemble: Annotated[
        int,
        Field(
            ge=1,
            le=32,
            description="Train the settings of so many best trials and export the mean of their answers; "
            "1: the best alone.",
        ),
    ] = 1
    best: Annotated[
        str | None,
        Field(
            description="File of hyperparameters that an earlier search found (it leaves OUTPUT/"
            "best_hyperparameters.json), used where the search is not enabled."
        ),
    ] = None
    search: Annotated[
        dict[str, SearchRange],
        Field(description="Hyperparameters by dotted name, such as train.learning_rate or model.dropout."),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees(self) -> TuneSettings:
        if self.method != "hyperband" and self.ensemble > self.trials:
            raise ValueError(f"ensemble {self.ensemble} needs as many trials; trials is {self.trials}")
        return self


def searchable() -> dict[str, type[int] | type[float] | None]:
    """The settings that a search may vary, by dotted name: the type of their numbers, None for other kinds."""
    return {
        f"{part}.{field.name}": _number_type(owner, field.name)
        for part, owner in (("model", NetworkSettings), ("train", TrainSettings))
        for field in fields(owner)
        if f"{part}.{field.name}" not in _NOT_SEARCHED
    }


def search_fault(name: str, objective: str | None) -> str | None:
    """Why a setting cannot be searched, in one sentence; None where it can.

    Args:
      name: dotted.
      objective: the metric that compares trials; None where it is not known yet.
    """
    if name in _NOT_SEARCHED:
        return f"{name} cannot be searched: {_NOT_SEARCHED[name]}"
    if name not in searchable():
        close = get_close_matches(name, searchable(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(searchable()))}"
        return f"{name!r} is no setting; {hint}"
    if objective == "val_loss" and name in _IN_LOSS:
        return (
            f"{name} is part of the loss, so that val_loss does not compare trials that differ in it: "
            "choose another tune.objective, such as val_auc, val_accuracy or val_root_mean_squared_error"
        )
    return None


_NOT_SEARCHED = {
    "train.epochs": "tune.epochs says how long a trial trains",
    "train.monitor": "trials would be judged by different metrics",
    "train.strategy": "a trial trains in one process",
    "train.cluster": "a trial trains in one process",
    "train.tpu": "it is where a training runs",
    "train.auto_shard": "a trial trains in one process",
    "train.min_shard_bytes": "a trial trains in one process",
    "train.batch_size_is": "a trial need not have as many replicas as the Trainer: search train.batch_size",
    "train.scale_learning_rate": (
        "a trial need not have as many replicas as the Trainer: search train.learning_rate"
    ),
    "train.recency_half_life": "all trials read the same rows, weighted once",
    "train.memory_rows": "all trials read the same rows, held once",
    "train.shuffle_rows": "it is a matter of memory, and does nothing to rows that are held there",
    "train.recompute": "it is a matter of memory and time: the network learns the same",
    "train.warm_start": "trials begin cold",
    "train.checks": "the Trainer makes them, trials do not",
    "train.refit": "trials are judged on validation, whose rows they must not have seen",
    "train.patience_epochs": "a trial keeps its best epoch, so that more patience never loses",
    "train.seed": "the best seed is luck",
}

_IN_LOSS = ("model.l2", "model.embedding_l2", "train.label_smoothing")


def _number_type(owner: type[Any], name: str) -> type[int] | type[float] | None:
    hint = get_type_hints(owner)[name]
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((kind for kind in (float, int) if kind in kinds), None)
