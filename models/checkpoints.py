"""The state of a training after every finished epoch, on disk, so that it can go on in another process."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow as tf
import tf_keras

_LOG = logging.getLogger(__name__)

_ABANDONED_DAYS = 14
"""A training that nobody has gone on with for so long has most likely changed its settings, code or data since."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read."""


class Checkpoints(tf_keras.callbacks.Callback):
    """Saves network, optimizer and `state` when an epoch has finished, and restores them when it is made.

    Keras' own `BackupAndRestore` saves the network alone: what other callbacks know would be lost, or be of
    another epoch. Here one file that is renamed into place makes all of it valid at once. Stands after the
    callbacks whose state it saves.

    Args:
      folder: holds the latest checkpoint; created if absent.
      network: compiled, within the scope of its strategy.
      state: what else belongs to the training.
      is_chief: whether what it saves counts. In a cluster every worker has to save, for some values are gathered
        from all; the others do so into a folder of their own, which goes at the end.

    Raises:
      CheckpointError: if the folder holds a checkpoint that cannot be read; the message names it.
    """

    def __init__(
        self,
        folder: Path,
        network: tf_keras.Model,
        state: tf.train.experimental.PythonState,
        is_chief: bool = True,
    ) -> None:
        super().__init__()
        # Its variables would come with the first step only: too late to see whether they were restored.
        network.optimizer.build(network.trainable_variables)
        checkpoint = tf.train.Checkpoint(model=network, state=state)
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the chief's, so that what a killed worker leaves goes with the rest.
        self._own = None if is_chief else Path(tempfile.mkdtemp(dir=folder, prefix="worker-"))
        self._manager = tf.train.CheckpointManager(checkpoint, str(self._own or folder), max_to_keep=1)
        latest = tf.train.latest_checkpoint(str(folder))
        if latest is None:
            return
        try:
            checkpoint.restore(latest).assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:  # IndexError: cut short.
            raise CheckpointError(
                f"{latest}: cannot be read: {error}; delete {folder} to train from the start"
            ) from error

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._manager.save()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        if self._own is not None:
            # The chief may have cleared all of it away already.
            shutil.rmtree(self._own, ignore_errors=True)


def delete_abandoned(trainings: Path) -> None:
    """Deletes trainings and searches in which nothing has been written for two weeks.

    A folder's name follows from settings, code and data: once these have changed, nothing would ever go on there.

    Args:
      trainings: holds a folder for each.
    """
    oldest = time.time() - _ABANDONED_DAYS * 86_400
    for folder in [path for path in trainings.iterdir() if path.is_dir()]:
        if max(_written(folder), default=oldest) < oldest:
            _LOG.info("deleted %s: nothing was written there for %d days", folder, _ABANDONED_DAYS)
            shutil.rmtree(folder, ignore_errors=True)


def _written(folder: Path) -> Iterator[float]:
    """When a folder and all in it were written last, in Unix seconds; a training beside this one may clear its own."""
    for place, _, files in os.walk(folder):
        for name in ("", *files):
            with contextlib.suppress(FileNotFoundError):
                yield Path(place, name).lstat().st_mtime
