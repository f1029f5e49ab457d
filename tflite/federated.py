"""Federated averaging, simulated: clients learn from rows that they keep, and the server averages what they learned.

McMahan et al. 2017, arXiv:1602.05629. A client is the very file that ships, in LiteRT's interpreter: it gets the
server's weights as bytes, learns from its own rows by the signatures of `tflite.training`, and answers with an
`Update` as bytes: differences of weights and a number of rows, and nothing else. The server knows clients by what
they answer; it never has their rows. (Differences of weights can still tell of rows: what would hide that too, secure
aggregation and noise, is not here.)

This is plain numpy and not Flower: each version of flwr that goes with TFX's protobuf needs rich < 15, and Headworks
needs rich 15, so no environment can have both; and its simulation brings ray, where one process is enough here.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tflite.client import TrainableModel

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]

_DELTA = "delta/"
_ROWS = "rows"


class FederationError(ValueError):
    """Settings that cannot be, or an answer of a client that is none."""


@dataclass(frozen=True)
class FederatedSettings:
    """How clients learn together.

    Attributes:
      rounds: averages to make.
      clients_per_round: drawn in each round, without replacement.
      epochs: passes over its own rows that a client makes in a round.
      seed: of the draws.

    Raises:
      FederationError: if a number is not positive.
    """

    rounds: int = 10
    clients_per_round: int = 10
    epochs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "clients_per_round", "epochs"):
            if getattr(self, name) < 1:
                raise FederationError(f"{name} is {getattr(self, name)}; it has to be 1 or more")


@dataclass(frozen=True)
class Rows:
    """Rows as the network takes them.

    Attributes:
      columns: `[rows, width]` by model column.
      labels: float32 `[rows, 1]`: numbers, or places among the classes.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: npt.NDArray[np.int64]) -> Rows:
        """Some of the rows, as a copy."""
        return Rows({name: values[places] for name, values in self.columns.items()}, self.labels[places])


@dataclass(frozen=True)
class Update:
    """All that leaves a client.

    Attributes:
      deltas: weights after learning less those that it was given, by name.
      rows: it learned from.
    """

    deltas: Weights
    rows: int

    def to_bytes(self) -> bytes:
        """As it travels."""
        return _packed({**{_DELTA + name: delta for name, delta in self.deltas.items()}, _ROWS: self.rows})

    @classmethod
    def from_bytes(cls, content: bytes, weights: Weights) -> Update:
        """Reads what a client sent.

        Args:
          content: what came.
          weights: those that it was sent.

        Raises:
          FederationError: it is no update of these weights, holds anything else, or a number that is not finite.
        """
        given = _unpacked(content)
        expected = {*(_DELTA + name for name in weights), _ROWS}
        for name in given.keys() ^ expected:
            raise FederationError(
                f"an update that {'lacks' if name in expected else 'holds what it must not'}: {name!r}"
            )
        deltas = {name: given[_DELTA + name] for name in weights}
        for name, delta in deltas.items():
            if delta.dtype != np.float32 or delta.shape != weights[name].shape:
                raise FederationError(
                    f"an update whose {name!r} is {delta.dtype} {list(delta.shape)}, not float32 "
                    f"{list(weights[name].shape)}"
                )
            if not np.isfinite(delta).all():
                raise FederationError(
                    f"an update whose {name!r} is not finite: lower the learning rate of the model file"
                )
        rows = given[_ROWS]
        if rows.shape != () or rows.dtype.kind != "i" or rows < 1:
            raise FederationError(f"an update of {rows} rows")
        return cls(deltas, int(rows))


class Client(Protocol):
    """Somebody who learns, as the server knows it."""

    def update(self, message: bytes) -> bytes:
        """The server's weights to an `Update`."""
        ...


class DeviceClient:
    """A device: a model file that can learn, and rows that stay here."""

    def __init__(self, path: str | os.PathLike[str], rows: Rows, epochs: int, seed: Sequence[int]) -> None:
        """Takes its rows.

        Args:
          path: of the `.tflite`.
          rows: its own.
          epochs: passes over them in a round.
          seed: of their order.
        """
        self._path = path
        self._rows = rows
        self._epochs = epochs
        self._draw = np.random.default_rng(seed)

    def update(self, message: bytes) -> bytes:
        """Learns from its rows, beginning with the server's weights.

        Raises:
          RowError: these are no weights of the model file.
        """
        before = _unpacked(message)
        # Anew in each round, as on a device that was switched off in between: nothing is left of the last one.
        model = TrainableModel(self._path)
        model.set_weights(before)
        seed = int(self._draw.integers(2**31))
        model.learn(self._rows.columns, self._rows.labels, self._epochs, seed)
        deltas = {name: after - before[name] for name, after in model.weights().items()}
        return Update(deltas, len(self._rows)).to_bytes()


@dataclass(frozen=True)
class Round:
    """What a round came to.

    Attributes:
      number: from 1.
      clients: that were drawn.
      rows: that they have, together.
      bytes_received: of their updates.
      weights: of the server, afterwards.
    """

    number: int
    clients: tuple[str, ...]
    rows: int
    bytes_received: int
    weights: Weights


def federated_rounds(
    weights: Weights, clients: Mapping[str, Client], settings: FederatedSettings
) -> Iterator[Round]:
    """Rounds of federated averaging, one after the other as they are asked for.

    In each, clients are drawn, and the mean of their differences, weighted by rows, is added to the server's weights.

    Args:
      weights: to begin with.
      clients: by name.
      settings: how many, how often, how drawn.

    Raises:
      FederationError: there are fewer clients than each round draws, or one answered something else; it is named.
    """
    if settings.clients_per_round > len(clients):
        raise FederationError(
            f"clients_per_round is {settings.clients_per_round}, and there are {len(clients)} clients"
        )
    draw = np.random.default_rng(settings.seed)
    names = sorted(clients)
    for number in range(1, settings.rounds + 1):
        places = draw.choice(len(names), settings.clients_per_round, replace=False)
        chosen = tuple(names[place] for place in places)
        message = _packed(weights)
        answers = [clients[name].update(message) for name in chosen]
        updates = [_read(name, answer, weights) for name, answer in zip(chosen, answers, strict=True)]
        weights = averaged(weights, updates)
        rows = sum(update.rows for update in updates)
        yield Round(number, chosen, rows, sum(map(len, answers)), weights)


def averaged(weights: Weights, updates: Sequence[Update]) -> dict[str, Array]:
    """The weights with the mean of the differences, weighted by rows, added."""
    shares = [update.rows for update in updates]
    return {
        name: value
        + np.average([update.deltas[name] for update in updates], axis=0, weights=shares).astype(np.float32)
        for name, value in weights.items()
    }


def dealt(rows: Rows, owners: Sequence[str] | npt.NDArray[np.str_]) -> dict[str, Rows]:
    """The rows of each owner, by the owner's name: as unlike each other as the owners are.

    Args:
      rows: of all.
      owners: whose each row is, `[rows]`: a value of some column.
    """
    names, places = np.unique(np.asarray(owners), return_inverse=True)
    by_owner = np.split(np.argsort(places, kind="stable"), np.cumsum(np.bincount(places))[:-1])
    return {str(name): rows.take(own) for name, own in zip(names, by_owner, strict=True)}


def _read(client: str, answer: bytes, weights: Weights) -> Update:
    try:
        return Update.from_bytes(answer, weights)
    except FederationError as error:
        raise FederationError(f"client {client!r} sent {error}") from error


def _packed(arrays: Mapping[str, npt.ArrayLike]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _unpacked(content: bytes) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise FederationError(f"bytes that are no arrays: {error}") from error
