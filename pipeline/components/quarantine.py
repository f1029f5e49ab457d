"""Quarantine: a TFX component that sets aside rows that `data_gate.rules` name; the rest passes unchanged."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from pydantic import TypeAdapter
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.components.example_gen import utils as example_gen
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact, artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from gates.overrides import apply
from gates.quarantine import Check, SetAside, checks, judge_set_aside
from gates.settings import AnomalyRule
from pipeline.components.gate_output import overrides, write_or_stop
from pipeline.example_rows import TF_TYPES
from schemas.features import dtype_of

RECORDS = "rows.tfrecord.gz"
READABLE = "rows.jsonl"

_BATCH = 4096
_COPIED = (example_gen.SPAN_PROPERTY_NAME, example_gen.VERSION_PROPERTY_NAME)
_OPTIONS = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)


class QuarantinedRows(artifact.Artifact):
    """Rows that were set aside, by split: as records, and as `rows.jsonl` with reasons, row number and values."""

    TYPE_NAME = "pipeline.QuarantinedRows"


class QuarantineSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of Quarantine."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "rules": component_spec.ExecutionParameter(type=str),
        "max_quarantined": component_spec.ExecutionParameter(type=str),
        "overrides": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "rows": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "quarantined": component_spec.ChannelParameter(type=QuarantinedRows),
    }


@dataclass(frozen=True)
class _BadRow:
    """A row to set aside: its place in its file and in the split, and what is wrong with it."""

    place: int
    number: int
    reasons: tuple[str, ...]


class Executor(base_executor.BaseExecutor):
    """Looks at every row, and copies those that pass, byte for byte."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the rows that pass and those that are set aside.

        Raises:
          RefusedError: if more than `max_quarantined` of a split would be set aside.
        """
        examples = artifact_utils.get_single_instance(input_dict["rows"])
        schema_folder = artifact_utils.get_single_uri(input_dict["schema"])
        schema = io_utils.parse_pbtxt_file(io_utils.get_only_uri_in_dir(schema_folder), schema_pb2.Schema())
        rules = TypeAdapter(tuple[AnomalyRule, ...]).validate_json(exec_properties["rules"])
        wanted = checks(schema, rules)
        parse = {column.name: TF_TYPES[dtype_of(column)] for column in schema.feature}
        passed = artifact_utils.get_single_instance(output_dict["examples"])
        aside = Path(artifact_utils.get_single_uri(output_dict["quarantined"]))
        found = {}
        for split in artifact_utils.decode_split_names(examples.split_names):
            its = _Split(split, Path(artifact_utils.get_split_uri([examples], split)), wanted, parse)
            folder = Path(passed.uri) / f"Split-{split}"
            found[split] = its.separate(folder, aside / f"Split-{split}")
        verdicts = judge_set_aside(found, json.loads(exec_properties["max_quarantined"]))
        _describe(passed, examples)
        write_or_stop(apply(verdicts, overrides(exec_properties)), None, aside)


@dataclass(frozen=True)
class _Split:
    name: str
    folder: Path
    checks: Sequence[Check]
    dtypes: dict[str, tf.DType]

    def separate(self, passed: Path, aside: Path) -> SetAside:
        """Writes the rows of this split to two folders."""
        passed.mkdir(parents=True, exist_ok=True)
        rows, bad_rows, reasons = 0, 0, Counter[str]()
        for file in sorted(self.folder.glob("*.gz")):
            bad, total = self._bad_rows(file, rows)
            if bad:
                self._divide(file, bad, passed / file.name, aside)
                bad_rows += len(bad)
                reasons.update(reason for row in bad for reason in row.reasons)
            else:
                _link(file, passed / file.name)
            rows += total
        return SetAside(rows, bad_rows, reasons)

    def _bad_rows(self, file: Path, before: int) -> tuple[list[_BadRow], int]:
        """The rows of a file that fail, and how many rows it has."""
        specification = {one.column: tf.io.VarLenFeature(self.dtypes[one.column]) for one in self.checks}
        found, start = list[_BadRow](), 0
        for batch in _batches(file):
            count = int(batch.shape[0])
            parsed = tf.io.parse_example(batch, specification) if specification else {}
            wrong = [
                (f"{one.column}: {one.told}", _wrong(one, parsed[one.column], count)) for one in self.checks
            ]
            for place in np.flatnonzero(np.any([mask for _, mask in wrong], axis=0)) if wrong else ():
                reasons = tuple(told for told, mask in wrong if mask[place])
                found.append(_BadRow(start + int(place), before + start + int(place), reasons))
            start += count
        return found, start

    def _divide(self, file: Path, bad: Sequence[_BadRow], passed: Path, aside: Path) -> None:
        aside.mkdir(parents=True, exist_ok=True)
        by_place = {row.place: row for row in bad}
        with (
            tf.io.TFRecordWriter(str(passed), _OPTIONS) as good_rows,
            tf.io.TFRecordWriter(str(aside / f"{file.stem}-{RECORDS}"), _OPTIONS) as bad_rows,
            (aside / READABLE).open("a", encoding="utf-8") as readable,
        ):
            for place, record in enumerate(_records(file)):
                row = by_place.get(place)
                if row is None:
                    good_rows.write(record)
                    continue
                bad_rows.write(record)
                told = {
                    "split": self.name,
                    "row": row.number,
                    "reasons": row.reasons,
                    "values": _values(record),
                }
                readable.write(json.dumps(told, ensure_ascii=False) + "\n")


def _batches(file: Path) -> Iterator[tf.Tensor]:
    yield from tf.data.TFRecordDataset(str(file), "GZIP").batch(_BATCH).prefetch(2)


def _records(file: Path) -> Iterator[bytes]:
    for batch in _batches(file):
        yield from batch.numpy()


def _wrong(check: Check, sparse: tf.SparseTensor, rows: int) -> Any:
    return check.wrong_rows(sparse.indices.numpy()[:, 0], sparse.values.numpy(), rows)


def _values(record: bytes) -> dict[str, list[Any]]:
    """What a record holds, as JSON can say it: NaN and infinity as text."""
    features = tf.train.Example.FromString(record).features.feature
    return {name: [_plain(value) for value in _list(feature)] for name, feature in sorted(features.items())}


def _list(feature: Any) -> Sequence[Any]:
    kind = feature.WhichOneof("kind")
    return [] if kind is None else list(getattr(feature, kind).value)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if np.isfinite(value) else str(value)


def _link(file: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system has no such names."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _describe(passed: types.Artifact, examples: types.Artifact) -> None:
    """The properties that components after an ExampleGen look for.

    The fingerprint stays that of all rows: what is left of them is no other data than before.
    """
    passed.split_names = examples.split_names
    passed.span, passed.version = examples.span, examples.version
    for name in _COPIED:
        if examples.has_custom_property(name):
            passed.set_int_custom_property(name, examples.get_int_custom_property(name))
    if examples.has_custom_property(example_gen.FINGERPRINT_PROPERTY_NAME):
        fingerprint = examples.get_string_custom_property(example_gen.FINGERPRINT_PROPERTY_NAME)
        passed.set_string_custom_property(example_gen.FINGERPRINT_PROPERTY_NAME, fingerprint)
    payload = examples.get_string_custom_property(example_gen.PAYLOAD_FORMAT_PROPERTY_NAME)
    passed.set_string_custom_property(example_gen.PAYLOAD_FORMAT_PROPERTY_NAME, payload)
    examples_utils.set_file_format(passed, examples_utils.get_file_format(examples))


class Quarantine(base_component.BaseComponent):
    """Examples to examples without the rows that are set aside, and those rows."""

    SPEC_CLASS = QuarantineSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        rows: types.BaseChannel,
        schema: types.BaseChannel,
        rules: str,
        max_quarantined: str,
        overrides: str,
        source_digest: str,
    ) -> None:
        """Describes the step.

        Args:
          rows: raw rows, as an ExampleGen writes them.
          schema: the curated one.
          rules: the configuration's `data_gate.rules`, as JSON.
          max_quarantined: the configuration's `data_gate.max_quarantined`, as JSON.
          overrides: those of the configuration that count today, as JSON.
          source_digest: changes with the code that looks at rows; only there to be part of the cache key.
        """
        super().__init__(
            QuarantineSpec(
                rows=rows,
                schema=schema,
                rules=rules,
                max_quarantined=max_quarantined,
                overrides=overrides,
                source_digest=source_digest,
                examples=types.Channel(type=standard_artifacts.Examples),
                quarantined=types.Channel(type=QuarantinedRows),
            )
        )
