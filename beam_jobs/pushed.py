"""A pushed model version: what its manifest says of rows and answers, and the model itself.

A version is all that a prediction job is given. Its SavedModel prepares rows with the graph that prepared them for
training; its manifest says which columns those are, what names a row, and from which probability on the answer is yes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.rows import DeadLetter, PredictionError
from beam_jobs.saved_model import SavedSignature
from schemas.features import DType, FeatureSet, LabelKind

MANIFEST = "manifest.json"

_WARM_UP = "assets.extra/tf_serving_warmup_requests"
_SIGNATURE = "serving_default"
_TOLERANCE = 1e-4
"""How far an answer may be from the recorded one: other machines round otherwise."""

_SHOWN = 500
"""Characters of a cause."""
_WHERE = ("Graph execution error:", "Detected at node", "<stack traces", "File ", "[[{{node")
_PLACES = re.compile(r"^Name: <unknown>, |\s*\[Op:[^\]]*\]$")
"""What says nothing of the fault in the line that tells of it."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recorded:
    """A request to the model and its answer in training: serialized tf.Examples, and scores `[rows, outputs]`."""

    examples: tuple[bytes, ...]
    scores: Scores


@dataclass(frozen=True)
class PushedModel:
    """One version of a serving folder.

    Attributes:
      folder: of the version.
      version: its number.
      run_id: the run that made it.
      pipeline: the name of that run's pipeline.
      features: the columns that the model takes, and its label.
      columns: type of every column of the curated schema, features or not.
      key: columns that together name a row.
      null_values: CSV fields that mean missing.
      threshold: from which probability on a row counts as the positive class; None unless the label is binary.
      digests: SHA-256 of its files.
    """

    folder: str
    version: int
    run_id: str
    pipeline: str
    features: FeatureSet
    columns: Mapping[str, DType]
    key: tuple[str, ...]
    null_values: tuple[str, ...]
    threshold: float | None
    digests: Mapping[str, str]

    @classmethod
    def read(cls, folder: str) -> PushedModel:
        """Reads a version's manifest; `folder` is a version's, or a serving folder, of which the newest is read.

        Raises:
          PredictionError: if there is no version, or its manifest lacks what prediction needs.
        """
        found = newest(folder) if _is_serving_folder(folder) else folder.rstrip("/")
        path = f"{found}/{MANIFEST}"
        try:
            content = json.loads(_read(path))
        except OSError as error:
            raise PredictionError(
                f"{folder}: no pushed model here: {path} cannot be read; name a version's folder or the serving "
                "folder of a pipeline that has pushed one"
            ) from error
        except ValueError as error:
            raise PredictionError(f"{path}: not JSON: {error}; push the model again") from error
        try:
            rows = content["rows"]
            return cls(
                folder=found,
                version=int(content["version"]),
                run_id=str(content.get("run_id") or ""),
                pipeline=str(content["pipeline"]),
                features=FeatureSet.from_dict(rows["features"]),
                columns={name: DType(kind) for name, kind in rows["columns"].items()},
                key=tuple(rows["key"]),
                null_values=tuple(rows["null_values"]),
                threshold=content.get("threshold"),
                digests={name: str(entry["sha256"]) for name, entry in content["files"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PredictionError(
                f"{path}: lacks what a prediction job needs ({type(error).__name__}: {error}): the version was pushed "
                "by an older Headworks; run the pipeline again and use the version that it pushes"
            ) from error

    @property
    def outputs(self) -> int:
        """Numbers that the model answers a row with."""
        return len(self.features.label.classes) or 1

    @property
    def is_regression(self) -> bool:
        """Whether an answer is the predicted number and no probabilities."""
        return self.features.label.kind is LabelKind.REGRESSION

    def recorded(self) -> list[Recorded]:
        """The warm-up requests that were pushed with the version; none where training read prepared rows."""
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_log_pb2

        found = []
        for record in _warm_up_records(f"{self.folder}/{_WARM_UP}"):
            log = prediction_log_pb2.PredictionLog.FromString(record).predict_log
            scores = tf.make_ndarray(log.response.outputs[self._answer])
            examples = tuple(log.request.inputs["examples"].string_val)
            found.append(Recorded(examples, scores.astype(np.float64)))
        return found

    def damaged(self) -> list[str]:
        """Files that are missing or differ from the manifest."""
        return [name for name, digest in self.digests.items() if self._digest(name) != digest]

    def _digest(self, name: str) -> str | None:
        try:
            return hashlib.sha256(_read(f"{self.folder}/{name}")).hexdigest()
        except FileNotFoundError:  # Any other may pass, and says nothing of the version.
            return None

    def load(self) -> LoadedModel:
        """Loads the model, checks its files, and has it answer what it answered in training.

        Raises:
          PredictionError: if a file is damaged, it cannot be loaded, or an answer is another.
        """
        if damaged := self.damaged():
            raise PredictionError(
                f"{self.folder}: {', '.join(damaged[:3])} missing or not what was pushed; push the model again"
            )
        import tensorflow as tf

        try:
            signature = SavedSignature(self.folder, _SIGNATURE, "examples", self._answer)
        except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
            raise PredictionError(
                f"{self.folder}: no SavedModel with signature {_SIGNATURE!r} can be loaded: {_cause(error)}"
            ) from error
        model = LoadedModel(self, signature)
        model.warm_up()
        return model

    @property
    def _answer(self) -> str:
        """The output of the model that says all of its answer."""
        return "prediction" if self.is_regression else "scores"


class LoadedModel:
    """A version in memory."""

    def __init__(self, pushed: PushedModel, signature: SavedSignature) -> None:
        self.pushed = pushed
        self._signature = signature

    def predict(self, examples: Sequence[bytes]) -> Scores:
        """Scores of serialized tf.Examples: float64 `[rows, classes]`, or `[rows, 1]` predictions.

        Raises:
          PredictionError: if the model fails on them.
        """
        import tensorflow as tf

        try:
            answer = self._signature(np.array(examples, np.object_))
        except (tf.errors.OpError, ValueError) as error:  # A session checks what it is fed itself.
            raise PredictionError(f"{self.pushed.folder}: the model fails: {_cause(error)}") from error
        scores = answer.astype(np.float64)
        expected = (len(examples), self.pushed.outputs)
        if scores.shape != expected:
            raise PredictionError(
                f"{self.pushed.folder}: answered {list(scores.shape)} numbers for rows and classes {list(expected)}"
            )
        return scores

    def warm_up(self) -> None:
        """Has the model answer its recorded requests, or, where it has none, a row without any value.

        Raises:
          PredictionError: if an answer is not the recorded one.
        """
        requests = self.pushed.recorded()
        for request in requests:
            if told := difference(self.predict(request.examples), request.scores):
                raise PredictionError(
                    f"{self.pushed.folder}: answers its warm-up requests otherwise than in training ({told}); "
                    "it is not used"
                )
        if not requests:
            self.predict([b""])


def difference(scores: Scores, recorded: Scores) -> str:
    """How far a model's answers are from the recorded ones, in words; empty where that is rounding."""
    found = np.abs(scores - recorded) / np.maximum(1.0, np.abs(recorded))
    # NaN is no answer: its comparison is false.
    if (found <= _TOLERANCE).all():
        return ""
    if np.isnan(found).all():
        return "with no numbers at all"
    return f"by up to {float(np.nanmax(found)):.3g}; at most {_TOLERANCE:g}"


def newest(serving_folder: str) -> str:
    """The folder of the newest version of a serving folder.

    Raises:
      PredictionError: if there is none.
    """
    found = versions(serving_folder)
    if not found:
        raise PredictionError(
            f"{serving_folder}: no pushed version here; name a version's folder or the serving folder of a pipeline "
            "that has pushed one"
        )
    return f"{serving_folder.rstrip('/')}/{found[-1]}"


def versions(serving_folder: str) -> list[int]:
    """The complete versions in a serving folder, oldest first."""
    from apache_beam.io.filesystems import FileSystems

    pattern = FileSystems.join(serving_folder, "*", MANIFEST)
    names = [
        match.path.replace("\\", "/").split("/")[-2]
        for match in FileSystems.match([pattern])[0].metadata_list
    ]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def _is_serving_folder(folder: str) -> bool:
    from apache_beam.io.filesystems import FileSystems

    return not FileSystems.exists(f"{folder.rstrip('/')}/{MANIFEST}") and bool(versions(folder))


def _read(path: str) -> bytes:
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    # Of an object that is not there, Cloud Storage's client tells by an error that is no OSError.
    if not FileSystems.exists(path):
        raise FileNotFoundError(path)
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return bytes(file.read())


def _warm_up_records(path: str) -> list[bytes]:
    from beam_jobs.formats.tfrecords import records

    try:
        content = _read(path)
    except FileNotFoundError:
        return []
    found = []
    for record in records(io.BytesIO(content), path, len(content)):
        if isinstance(record, DeadLetter):
            raise PredictionError(f"{path}: record {record.position}: {record.reason}; push the model again")
        found.append(record.raw)
    return found


def _cause(error: Exception) -> str:
    """The line of an error's text that says what is wrong; TensorFlow writes where above it."""
    lines = (_PLACES.sub("", line).strip() for line in str(error).splitlines())
    told = next((line for line in lines if line and not line.startswith(_WHERE)), type(error).__name__)
    return " ".join(told.split())[:_SHOWN]
