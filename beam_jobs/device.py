"""A device model as a way to score: what phones would say, of as many rows as Beam can carry.

The rows go through the client that ships with the file, one after the other: slower than the server's model in
batches, and meant for comparing the two.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_jobs.core import Answer
from beam_jobs.pushed import PushedModel
from beam_jobs.rows import PredictionError
from tflite import client


class DeviceWay:
    """A LiteRT file in this process. Its interpreter answers one thread at a time; others wait.

    Attributes:
      variant: treatment and number format of the file.
    """

    def __init__(self, pushed: PushedModel, path: str) -> None:
        """Loads the file.

        Args:
          pushed: the version whose rows are scored.
          path: of the `.tflite` that was made from that version.

        Raises:
          PredictionError: if it cannot be loaded, or was made from another version or for other columns.
        """
        try:
            self._model = client.DeviceModel(path)
        except client.ModelFileError as error:
            raise PredictionError(str(error)) from error
        said, label = self._model.description, pushed.features.label
        theirs = (pushed.pipeline, str(pushed.version), pushed.run_id)
        if (said.name, said.version, said.run_id) != theirs:
            raise PredictionError(
                f"{path} was made from version {said.version} of {said.name} (run {said.run_id}), and the rows are "
                f"read for version {pushed.version} of {pushed.pipeline} (run {pushed.run_id}): name a file that was "
                "made from that version, as its manifest.json says"
            )
        self._names = frozenset(feature.name for feature in said.features)
        if self._names != {feature.name for feature in pushed.features} or set(said.classes) != set(
            label.classes
        ):
            raise PredictionError(f"{path} takes other columns, or gives other classes, than {pushed.folder}")
        self.variant = said.variant
        self._classes = label.classes
        self._outputs = pushed.outputs
        self._turn = threading.Lock()

    def answer(self, examples: Sequence[bytes]) -> Answer:
        """As `core.Model.answer`."""
        scores = np.full((len(examples), self._outputs), np.nan)
        failures = {}
        for place, example in enumerate(examples):
            try:
                with self._turn:
                    found = self._model.predict(self._row(example))
            except client.RowError as error:
                failures[place] = str(error)
                continue
            scores[place] = [found.probability[name] for name in self._classes] or found.value
        return Answer(scores, failures)

    def _row(self, example: bytes) -> dict[str, Any]:
        """The first value of each feature that has one."""
        from tensorflow.core.example.example_pb2 import Example

        row = {}
        for name, feature in Example.FromString(example).features.feature.items():
            kind = feature.WhichOneof("kind")
            if name in self._names and kind and (values := getattr(feature, kind).value):
                row[name] = values[0]
        return row
