"""A device model's reference client: a row by column name in, probabilities by class out.

This file stands alone: copy it beside the model. It needs Python 3.9, `ai-edge-litert` and numpy, and nothing of
Headworks. The model file brings what it has to know: a zip archive with `headworks.json` is appended to it, which names
the columns, their types, the classes and the threshold.

    model = DeviceModel("int8.tflite")
    model.predict({"carrier": "DL", "distance": 762, "humidity": None}).probability

or `python client.py MODEL < rows.jsonl`. docs/edge-clients.md has the layout of the tensors for other languages.

A model that was exported for training is a `TrainableModel`: it learns from rows that stay on this device.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import numbers
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

FORMAT = 1
"""The newest format of `headworks.json` that this client reads."""

MISSING_INT = -(2**63)

_METADATA = "headworks.json"
_INFER = ("serving_raw", "infer")
_LEARNING = ("prepare", "train", "infer", "save", "restore")
_DTYPES = {"float": np.float32, "int": np.int64, "bytes": np.uint8}
_WORDS = {"float": "a number", "int": "a whole number of 64 bits", "bytes": "text"}
_INT64 = range(-(2**63), 2**63)
_SHOWN = 60
_READER_GONE = 141
"""Exit code of a program whose reader went away, as a shell reports it: 128 and the number of SIGPIPE."""

Tensors = dict[str, np.ndarray]


class ModelFileError(ValueError):
    """A file that is no device model, is damaged, or is newer than this client."""


class RowError(ValueError):
    """A row, or tensors, that the model cannot take."""


@dataclass(frozen=True)
class Feature:
    """A raw column, as the model file describes it.

    Attributes:
      name: in rows.
      graph_name: of the tensor.
      dtype: `float`, `int` or `bytes`.
      kind: how the model prepares it; of interest here are `text` and `hashed`.
      width: bytes of text that the tensor holds; None for numbers.
      is_required: whether a row has to have a value.
    """

    name: str
    graph_name: str
    dtype: str
    kind: str
    width: int | None
    is_required: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return (1,) if self.width is None else (1, self.width)

    def tensor(self, value: Any) -> np.ndarray:
        """A value, or None where it is missing, as the model takes it.

        Raises:
          RowError: naming the column and the value.
        """
        try:
            given = _READERS[self.dtype](value)
        except (TypeError, ValueError, OverflowError):
            hint = "; a row has one value a column" if isinstance(value, (list, tuple, np.ndarray)) else ""
            raise RowError(
                f"column {self.name!r} has to be {_WORDS[self.dtype]} or None, not {_shown(value)}{hint}"
            ) from None
        if given is None and self.is_required:
            raise RowError(f"column {self.name!r} is missing, and the model requires it")
        return self._bytes(given or "") if self.dtype == "bytes" else self._number(given)

    def _number(self, value: Any) -> np.ndarray:
        missing = math.nan if self.dtype == "float" else MISSING_INT
        return np.array([missing if value is None else value], _DTYPES[self.dtype])

    def _bytes(self, text: str) -> np.ndarray:
        # The model lower-cases ASCII and letters of two bytes only; here all are.
        written = (text.lower() if self.kind == "text" else text).encode()
        assert self.width is not None
        if b"\0" in written:
            raise RowError(
                f"column {self.name!r} holds a NUL character, which the model would take for the text's end"
            )
        if self.kind == "hashed" and len(written) > self.width:
            raise RowError(
                f"column {self.name!r} is {len(written)} bytes long, and the model hashes {self.width} at most: "
                f"{_shown(text)}"
            )
        tensor = np.zeros(self.shape, np.uint8)
        # A longer text is none of the vocabulary, cut or not; of running text the model reads the beginning.
        kept = written[: self.width]
        tensor[0, : len(kept)] = np.frombuffer(kept, np.uint8)
        return tensor


@dataclass(frozen=True)
class Description:
    """What a model file says of itself.

    Attributes:
      name: of the pipeline.
      version: that was pushed.
      run_id: of the run that pushed it.
      variant: treatment and number format.
      label: name of the column that is predicted.
      classes: in the order of the scores; empty for a number.
      threshold: probability of the second of two classes from which on it is the answer.
      features: the columns.
    """

    name: str
    version: str
    run_id: str
    variant: str
    label: str
    classes: tuple[str, ...]
    threshold: float
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class Prediction:
    """An answer.

    Attributes:
      probability: by class; empty where a number is predicted.
      label: the class by the model's threshold, or the most probable of several; None where a number is predicted.
      value: the predicted number; None for classes.
    """

    probability: dict[str, float]
    label: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class _Tensor:
    """Type and shape."""

    dtype: Any
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class _Signature:
    """A way into the model: tensors by name in, tensors by name out.

    LiteRT's own runner lays out all tensors anew in each call, which takes longer than the model does. Where a file has
    one signature they are laid out once.

    Attributes:
      inputs: by name.
    """

    def __init__(self, interpreter: Interpreter, key: str) -> None:
        self._interpreter = interpreter
        is_alone = len(interpreter.get_signature_list()) == 1
        if is_alone:
            interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(key)
        # While there is a runner, the interpreter itself refuses to run.
        self._runner = None if is_alone else runner
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        self.inputs = {
            name: _Tensor(np.dtype(detail["dtype"]), tuple(int(size) for size in detail["shape"]))
            for name, detail in inputs.items()
        }
        self._input_places = {name: detail["index"] for name, detail in inputs.items()}
        self._output_places = {name: detail["index"] for name, detail in outputs.items()}

    def __call__(self, **tensors: np.ndarray) -> Tensors:
        """Runs it on tensors that fit `inputs`."""
        if self._runner is not None:
            return dict(self._runner(**tensors))
        for name, place in self._input_places.items():
            self._interpreter.set_tensor(place, tensors[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(place) for name, place in self._output_places.items()}


class DeviceModel:
    """A model file, loaded. One thread at a time may use it.

    Attributes:
      description: what the file says of itself.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        """Reads the file.

        Args:
          path: of the `.tflite`.
          threads: that one answer may use; more than one helps large models only.

        Raises:
          ModelFileError: saying what is wrong with the file.
        """
        self.description = read_description(path)
        self._names = {feature.name: feature for feature in self.description.features}
        try:
            self._interpreter = Interpreter(model_path=os.fspath(path), num_threads=threads)
            self._signatures = self._interpreter.get_signature_list()
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(f"{path}: LiteRT cannot load it: {error}") from error
        key = next((key for key in _INFER if key in self._signatures), None)
        if key is None:
            raise ModelFileError(f"{path}: no signature {_INFER[0]!r}; it has {', '.join(self._signatures)}")
        self._infer = _Signature(self._interpreter, key)
        self._check_features(path)

    def tensors(self, row: Mapping[str, Any]) -> Tensors:
        """The model's inputs for a row of raw values by column.

        A column that the row has not is missing, and so are None, "", NaN, infinity and a number beyond float32.

        Raises:
          RowError: naming the column: it is unknown, of the wrong type, too long, or missing and required.
        """
        for name in row:
            if name not in self._names:
                raise RowError(f"the model has no column {name!r}{_nearest(str(name), self._names)}")
        return {feature.graph_name: feature.tensor(row.get(name)) for name, feature in self._names.items()}

    def predict(self, row: Mapping[str, Any]) -> Prediction:
        """Scores a row; as `tensors`."""
        return self._read(self._infer(**self.tensors(row)))

    def predict_tensors(self, tensors: Mapping[str, np.ndarray]) -> Prediction:
        """Scores what `tensors` makes.

        Raises:
          RowError: naming the tensor that is absent, unknown, or of another type or shape.
        """
        _check_tensors(tensors, self._infer.inputs)
        return self._read(self._infer(**tensors))

    def _read(self, outputs: Mapping[str, np.ndarray]) -> Prediction:
        classes = self.description.classes
        if not classes:
            return Prediction({}, value=float(outputs["prediction"].item()))
        scores = outputs["scores"][0].tolist()
        is_second = scores[-1] >= self.description.threshold
        chosen = int(is_second) if len(classes) == 2 else int(np.argmax(scores))
        return Prediction({name: scores[place] for place, name in enumerate(classes)}, classes[chosen])

    def _check_features(self, path: Any) -> None:
        described = {feature.graph_name: feature for feature in self.description.features}
        inputs = self._infer.inputs
        for name in described.keys() ^ inputs.keys():
            raise ModelFileError(f"{path}: {_METADATA} and the model disagree on the input {name!r}")
        for name, feature in described.items():
            expected = _Tensor(np.dtype(_DTYPES[feature.dtype]), feature.shape)
            if inputs[name] != expected:
                raise ModelFileError(
                    f"{path}: the input {name!r} is {inputs[name]}, and {_METADATA} describes {expected}"
                )


class TrainableModel(DeviceModel):
    """A model file that can learn on the device.

    What it learned lives in memory until `save`; the file itself never changes.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        """As `DeviceModel`.

        Raises:
          ModelFileError: also where the file was not exported for training.
        """
        super().__init__(path, threads)
        absent = [key for key in _LEARNING if key not in self._signatures]
        if absent:
            raise ModelFileError(f"{path}: not exported for training: no signature {', '.join(absent)}")
        signatures = {key: _Signature(self._interpreter, key) for key in _LEARNING}
        self._prepare, self._train = signatures["prepare"], signatures["train"]
        self._save, self._restore = signatures["save"], signatures["restore"]
        self._batch = self._train.inputs["label"].shape[0]

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> Tensors:
        """Rows as the network takes them, `[rows, width]` by model column: once, however often it learns from them.

        Raises:
          RowError: as `tensors`, with the number of the row from 1; or there is no row.
        """
        prepared = []
        for number, row in enumerate(rows, start=1):
            try:
                prepared.append(self._prepare(**self.tensors(row)))
            except RowError as error:
                raise RowError(f"row {number}: {error}") from error
        if not prepared:
            raise RowError("there is no row to learn from")
        return {name: np.concatenate([row[name] for row in prepared]) for name in prepared[0]}

    def labels(self, values: Sequence[Any]) -> np.ndarray:
        """Values of the label as `learn` takes them: float32 `[rows, 1]`, numbers, or places among the classes.

        Raises:
          RowError: naming the row, from 1, whose label is no class or no number.
        """
        return np.array([[self._label(value, number)] for number, value in enumerate(values, 1)], np.float32)

    def learn(
        self, columns: Mapping[str, np.ndarray], labels: np.ndarray, epochs: int = 1, seed: int = 0
    ) -> list[float]:
        """Trains on rows of this device: one step of gradient descent for each batch.

        Args:
          columns: what `prepare` gives.
          labels: what `labels` gives.
          epochs: passes over the rows.
          seed: of their order.

        Returns:
          Mean loss over the rows in each pass, each batch's before its step.

        Raises:
          RowError: naming the tensor that does not fit, or both numbers where labels and rows differ.
        """
        self._check_rows(columns, labels)
        draw = np.random.default_rng(seed)
        return [self._one_pass(columns, labels, draw.permutation(len(labels))) for _ in range(epochs)]

    def weights(self) -> Tensors:
        """A copy of what can be learned, by name."""
        return {name: np.array(values) for name, values in self._save(unused=np.zeros(1, np.float32)).items()}

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Puts weights in place.

        Raises:
          RowError: naming the weight that is absent, unknown, or of another type or shape; nothing has changed.
        """
        _check_tensors(weights, self._restore.inputs)
        self._restore(**weights)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the weights as `.npz`; whoever reads finds the old file or the new one."""
        partial = Path(f"{os.fspath(path)}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                np.savez(file, **self.weights())  # type: ignore[arg-type]  # numpy also has flags
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save` wrote.

        Raises:
          ModelFileError: it is no such file, or of another model; the weights are as they were.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                weights = dict(arrays)
        except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
            # numpy's own message advises to load the file unsafely.
            raise ModelFileError(f"{path}: damaged, or not written by save") from None
        try:
            self.set_weights(weights)
        except RowError as error:
            raise ModelFileError(f"{path}: weights of another model: {error}") from error

    def _one_pass(self, columns: Mapping[str, np.ndarray], labels: np.ndarray, order: np.ndarray) -> float:
        total = 0.0
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            # The last batch is filled up with rows that do not count.
            filled = np.resize(rows, self._batch)
            counts = (np.arange(self._batch) < len(rows)).astype(np.float32)[:, np.newaxis]
            batch = {name: values[filled] for name, values in columns.items()}
            loss = self._train(**batch, label=labels[filled], weight=counts)["loss"]
            total += float(loss.item()) * len(rows)
        return total / len(order)

    def _label(self, value: Any, row: int) -> float:
        classes = self.description.classes
        if classes:
            text = str(int(value)) if isinstance(value, (bool, np.bool_)) else str(value)
            if text not in classes:
                raise RowError(
                    f"row {row}: {self.description.label} is {_shown(value)}, not one of {list(classes)}"
                )
            return float(classes.index(text))
        try:
            number = _float(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None:
            raise RowError(f"row {row}: {self.description.label} has to be a number, not {_shown(value)}")
        return number

    def _check_rows(self, columns: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
        if not isinstance(columns, Mapping):
            raise RowError(f"the columns are a {type(columns).__name__}: give what prepare() returned")
        if not isinstance(labels, np.ndarray):
            raise RowError(f"the labels are a {type(labels).__name__}: give what labels() returned")
        rows = len(labels)
        if not rows:
            raise RowError("there is no row to learn from")
        lengths = {np.shape(column)[:1] for column in columns.values()}
        if len(lengths) == 1 and lengths != {(rows,)} and lengths != {()}:
            raise RowError(f"{rows} labels for {lengths.pop()[0]} rows")
        given = {**columns, "label": labels}
        expected = {
            name: _Tensor(tensor.dtype, (rows, *tensor.shape[1:]))
            for name, tensor in self._train.inputs.items()
            if name != "weight"
        }
        _check_tensors(given, expected)


def read_description(path: str | os.PathLike[str]) -> Description:
    """What a model file says of itself.

    Raises:
      ModelFileError: the file is absent, cut off or damaged, has no metadata, or is newer than this client.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            fields = json.loads(archive.read(_METADATA))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise ModelFileError(
            f"{path}: no metadata at its end ({error}): the file is cut off, damaged or no model of Headworks"
        ) from error
    except KeyError as error:
        raise ModelFileError(f"{path}: its metadata has no {_METADATA}: no model of Headworks") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: {_METADATA} is damaged: {error}") from error
    return _description(fields, path)


def _description(fields: Any, path: Any) -> Description:
    try:
        newest = fields.get("format", FORMAT)
        if newest > FORMAT:
            raise ModelFileError(
                f"{path}: {_METADATA} has format {newest}, and this client reads up to {FORMAT}: take the client of "
                "the Headworks that made the model"
            )
        return Description(
            str(fields["name"]),
            str(fields["version"]),
            str(fields["run_id"]),
            str(fields["variant"]),
            fields["label"]["name"],
            tuple(fields["label"]["classes"]),
            0.5 if fields.get("threshold") is None else float(fields["threshold"]),
            tuple(_feature(feature) for feature in fields["features"]),
        )
    except KeyError as error:
        raise ModelFileError(f"{path}: {_METADATA} lacks {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: {_METADATA} cannot be understood: {error}") from error


def _feature(fields: Mapping[str, Any]) -> Feature:
    dtype = fields["dtype"]
    if dtype not in _DTYPES:
        raise ValueError(f"{fields['name']}: dtype {dtype!r}")
    width = int(fields["width"]) if dtype == "bytes" else None
    return Feature(
        fields["name"], fields["graph_name"], dtype, fields["kind"], width, bool(fields["is_required"])
    )


def _float(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError
    number = float(value)
    with np.errstate(over="ignore"):  # What float32 cannot hold is infinite to the model, and so missing.
        return number if np.isfinite(np.float32(number)) else None


def _int(value: Any) -> int | None:
    if value is None:
        return None
    # true is 1, as in the rows that the server takes.
    if not isinstance(value, (numbers.Real, np.bool_)):
        raise TypeError
    if not math.isfinite(value):
        return None
    whole = int(value)  # type: ignore[arg-type]
    if whole != value or whole not in _INT64:
        raise ValueError
    return None if whole == MISSING_INT else whole


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise TypeError
    text.encode()  # Half a surrogate pair is no text.
    return text or None


_READERS: Mapping[str, Callable[[Any], Any]] = {"float": _float, "int": _int, "bytes": _text}


def _check_tensors(given: Mapping[str, Any], expected: Mapping[str, _Tensor]) -> None:
    for name in expected:
        if name not in given:
            raise RowError(f"the tensor {name!r} is absent")
    for name, tensor in given.items():
        if name not in expected:
            raise RowError(f"the model has no tensor {name!r}{_nearest(name, expected)}")
        array = np.asarray(tensor)
        found = _Tensor(array.dtype, array.shape)
        if found != expected[name]:
            raise RowError(f"the tensor {name!r} has to be {expected[name]}, not {found}")


def _nearest(name: str, names: Iterable[str]) -> str:
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(names)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _answer(model: DeviceModel, line: bytes) -> dict[str, Any]:
    if not line.strip():
        raise RowError("the line is empty")
    try:
        row = json.loads(line.decode())
    except json.JSONDecodeError as error:
        raise RowError(f"no JSON: {error.msg} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        raise RowError(f"no JSON: {error}") from error
    if not isinstance(row, dict):
        raise RowError(f"a row is an object of columns, not {_shown(row)}")
    prediction = model.predict(row)
    if prediction.value is not None:
        return {"value": prediction.value}
    return {"label": prediction.label, "probability": prediction.probability}


def _answer_lines(model: DeviceModel, lines: Iterable[bytes]) -> bool:
    """Writes one line for each, an empty one too, so that they pair up; says whether all were scored."""
    is_whole = True
    for number, line in enumerate(lines, start=1):
        try:
            answer = _answer(model, line)
        except RowError as error:
            is_whole = False
            answer = {"error": str(error), "line": number}
        sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()
    return is_whole


def main() -> int:
    """Scores rows from standard input, JSON objects one a line, to standard output.

    A row that cannot be scored has its error there, and the exit code is 1 in the end.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", help="path of the .tflite")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    try:
        is_whole = _answer_lines(DeviceModel(arguments.model, arguments.threads), sys.stdin.buffer)
    except ModelFileError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:
        # Nobody reads on, as after `| head`. Python flushes once more when it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
