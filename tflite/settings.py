"""The settings of treatments that train the network again for the device: plain values, without TensorFlow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from models.settings import STRICT, Count, Fraction


@dataclass(frozen=True, config=STRICT)
class PruningSettings:
    """`tflite.pruned` and `tflite.block_pruned`: weights that become zero, singly or in blocks."""

    sparsity: Annotated[
        float, Field(gt=0.0, lt=1.0, description="Share of zeros in each weight matrix that is pruned.")
    ] = 0.5
    epochs: Annotated[
        Count, Field(description="Epochs; over the first half of the steps the share rises from zero.")
    ] = 4


@dataclass(frozen=True, config=STRICT)
class ClusteringSettings:
    """`tflite.clustered`: weights that share a few values."""

    clusters: Annotated[
        int, Field(ge=2, le=256, description="Different values in each weight matrix that is clustered.")
    ] = 16
    epochs: Annotated[Count, Field(description="Epochs in which the values learn.")] = 2


@dataclass(frozen=True, config=STRICT)
class QuantizationAwareSettings:
    """`tflite.quantization_aware`: weights that learn with int8's rounding."""

    epochs: Annotated[Count, Field(description="Epochs with simulated rounding.")] = 2


@dataclass(frozen=True, config=STRICT)
class TrainableSettings:
    """`tflite.trainable`: a file that learns on the device."""

    learning_rate: Annotated[float, Field(gt=0.0, description="Of plain gradient descent on the device.")] = (
        0.05
    )
    batch_rows: Annotated[Count, Field(description="Rows of a step.")] = 32


@dataclass(frozen=True, config=STRICT)
class StudentSettings:
    """`tflite.distilled`: a smaller network that learns from the answers of the one that serves."""

    hidden_units: Annotated[
        tuple[Count, ...],
        Field(strict=False, description="Width of each hidden layer; empty: the wide part alone."),
    ] = (16,)
    embedding_size: Annotated[Count, Field(description="Largest width of an embedding.")] = 4
    cross_layers: Annotated[int, Field(ge=0, le=8, description="Feature-crossing layers.")] = 0
    dropout: Annotated[
        Fraction, Field(description="Dropout after each hidden layer; a small network needs little.")
    ] = 0.0
    temperature: Annotated[
        float,
        Field(gt=0.0, description="Divides logits before teacher and student are compared; classes only."),
    ] = 2.0
    teacher_share: Annotated[
        float,
        Field(
            gt=0.0, le=1.0, description="Share of the teacher's answers in the loss; labels have the rest."
        ),
    ] = 0.7
    epochs: Annotated[Count, Field(description="Most epochs.")] = 8
    max_bytes: Annotated[
        Count | None,
        Field(description="Size target of the float32 file; a student above it is refused. Absent: none."),
    ] = None
