"""What a device model says of itself, inside its own file.

A zip archive is appended to the flatbuffer, which is how LiteRT files carry associated files: the interpreter stops
before it, and whatever reads zip archives reads it, Android's `MetadataExtractor` among them. It holds `labels.txt`,
one class a line in the order of the scores, and `headworks.json`, everything else.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from tflite.model_file import ModelFileError, check_identifier, read_file

LABELS = "labels.txt"
DESCRIPTION = "headworks.json"

FORMAT = 1
"""Of `headworks.json`: a higher one cannot be read by what knows this one."""

_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip archive can say: the same model makes the same file, whenever it is made."""

_READ_BY_ALL = 0o644 << 16


class NoMetadataError(ModelFileError):
    """A LiteRT file that says nothing of itself."""


@dataclass(frozen=True)
class DeviceFeature:
    """An input of the model.

    Attributes:
      name: of the raw column.
      graph_name: of the input tensor.
      dtype: `float`, `int` or `bytes`.
      kind: how the model prepares it, as in `schemas.features.Kind`.
      is_required: whether a row has to have a value.
      width: bytes of a text; None for numbers.
      unit: of the number, where the schema says one.
    """

    name: str
    graph_name: str
    dtype: str
    kind: str
    is_required: bool
    width: int | None = None
    unit: str | None = None


@dataclass(frozen=True)
class DeviceLabel:
    """What the model predicts.

    Attributes:
      name: of the column.
      kind: `binary`, `multiclass` or `regression`.
      classes: in the order of the scores; empty for regression.
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metadata:
    """What a device model says of itself.

    Attributes:
      name: of the pipeline.
      version: of the pushed model that it was made from.
      run_id: of the run that pushed that.
      source_sha256: of that model (see `source_digest_of`).
      variant: treatment and number format, as in `tflite.variants.Variant.name`.
      label: what is predicted.
      features: the inputs, in the order of the schema.
      threshold: from which probability on the second class of a binary label is the answer; None where none was set.
      created_by: program and version that made the file.
      format: of this description.
    """

    name: str
    version: int
    run_id: str
    source_sha256: str
    variant: str
    label: DeviceLabel
    features: tuple[DeviceFeature, ...]
    threshold: float | None = None
    created_by: str = ""
    format: int = FORMAT


def attach(model: bytes, metadata: Metadata) -> bytes:
    """The model with its metadata, in place of any that it had; the same bytes for the same arguments.

    Raises:
      ModelFileError: the bytes are no LiteRT model.
    """
    check_identifier(model, "the model to describe")
    file = io.BytesIO(bare(model))
    with zipfile.ZipFile(file, "a") as archive:
        if metadata.label.classes:
            # Not compressed: Android's reader hands out what is stored as it is.
            lines = "".join(f"{name}\n" for name in metadata.label.classes)
            archive.writestr(_entry(LABELS), lines, zipfile.ZIP_STORED)
        description = json.dumps(_said(metadata), separators=(",", ":"), ensure_ascii=False)
        archive.writestr(_entry(DESCRIPTION), description, zipfile.ZIP_DEFLATED, compresslevel=9)
    return file.getvalue()


def bare(model: bytes) -> bytes:
    """The model without metadata."""
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        return model
    return model[: min((entry.header_offset for entry in entries), default=len(model))]


def read(path: str | Path) -> Metadata:
    """What the file says of itself.

    Raises:
      NoMetadataError: it is a LiteRT file that says nothing, or what it said is cut off.
      ModelFileError: there is no such file, it is no LiteRT file, or what it says is not to be understood.
    """
    return parse(read_file(Path(path)), str(path))


def parse(content: bytes, source: str) -> Metadata:
    """As `read`, of a file's content; `source` is what messages call it."""
    from pydantic import TypeAdapter, ValidationError

    text = _description(content, source)
    try:
        said = json.loads(text)
        if isinstance(said, dict) and isinstance(said.get("format"), int) and said["format"] > FORMAT:
            raise ModelFileError(
                f"{source}: {DESCRIPTION} has format {said['format']} and this Headworks reads up to {FORMAT}: use "
                "one as new as that which made the file"
            )
        return TypeAdapter(Metadata).validate_python(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelFileError(f"{source}: {DESCRIPTION}: {where}: {first['msg'].lower()}") from error
    except ValueError as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{source}: {DESCRIPTION} is no JSON: {error}") from error


def source_digest_of(folder: str | Path) -> str:
    """SHA-256 of a SavedModel: the names, lengths and bytes of its graph and its variables, sorted by name.

    Raises:
      ModelFileError: the folder holds no SavedModel.
    """
    root = Path(folder)
    files = [root / "saved_model.pb", *sorted((root / "variables").glob("*"))]
    digest = hashlib.sha256()
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ModelFileError(f"{root} is no SavedModel: {file}: {error.strerror}") from error
        digest.update(f"{file.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _description(content: bytes, source: str) -> bytes:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise NoMetadataError(
            f"{source} says nothing of itself: there is no archive at its end; it is no model of Headworks, or it is "
            "cut short"
        ) from error
    try:
        with archive:
            return archive.read(DESCRIPTION)
    except KeyError as error:
        raise NoMetadataError(
            f"{source} says nothing of itself: the archive at its end has no {DESCRIPTION}"
        ) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ModelFileError(f"{source}: {DESCRIPTION} is damaged: {error}") from error


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _FIRST_DATE)
    entry.create_system = 3  # Unix, wherever this runs.
    entry.external_attr = _READ_BY_ALL
    return entry


def _said(value: Any) -> Any:
    """The value for JSON, without what is None: a file for a small device repeats no empty fields."""
    if is_dataclass(value):
        return dict(_fields(value))
    return [_said(one) for one in value] if isinstance(value, tuple) else value


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(value):
        given = getattr(value, field.name)
        if given is not None:
            yield field.name, _said(given)
