"""The settings of the network, its training and its tuning: plain values, without TensorFlow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True)

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


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
class TrainSettings:
    """`train`: how the network learns."""

    epochs: Annotated[Count, Field(description="Most passes over the training split.")] = 10
    batch_size: Annotated[Count, Field(description="Rows per step, over all replicas.")] = 512
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0, description="Peak learning rate.")] = 2e-3
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
        Literal["auto", "none", "mirrored"],
        Field(description="tf.distribute strategy. auto: mirrored where there are several GPUs."),
    ] = "auto"
    shuffle_rows: Annotated[
        int, Field(ge=1, description="Shuffle buffer, where the split is too large to be held in memory.")
    ] = 100_000
    memory_rows: Annotated[
        int, Field(ge=0, description="Hold a split in memory, transformed, up to this many rows.")
    ] = 5_000_000


@dataclass(frozen=True, config=STRICT)
class SearchRange:
    """`tune.search.NAME`: the values or the range of one hyperparameter."""

    values: Annotated[
        tuple[Any, ...] | None, Field(strict=False, description="The values to choose from.")
    ] = None
    min: Annotated[float | None, Field(description="Smallest value.")] = None
    max: Annotated[float | None, Field(description="Largest value.")] = None
    log: Annotated[bool, Field(description="Search the logarithm.")] = False

    @model_validator(mode="after")
    def _one_form(self) -> SearchRange:
        if (self.values is None) == (self.min is None or self.max is None):
            raise ValueError("give either values, or min and max")
        if self.min is not None and self.max is not None and not self.min < self.max:
            raise ValueError(f"min {self.min} must be below max {self.max}")
        if self.log and (self.min is None or self.min <= 0):
            raise ValueError("log needs a min above 0")
        return self


@dataclass(frozen=True, config=STRICT)
class TuneSettings:
    """`tune`: the search for hyperparameters."""

    enabled: Annotated[bool, Field(description="Search before training.")] = False
    trials: Annotated[Count, Field(description="Number of trials.")] = 8
    epochs: Annotated[Count, Field(description="Most epochs of one trial.")] = 3
    method: Annotated[
        Literal["random", "bayesian", "hyperband"], Field(description="How the next trial is chosen.")
    ] = "bayesian"
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
