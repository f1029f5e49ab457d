"""DataGate: a TFX component that stops the run on bad data; ExampleValidator only writes down what it saw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from pydantic import TypeAdapter
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.components.example_gen import utils as example_gen
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from gates.baselines import Rows
from gates.data import (
    Missing,
    judge_anomalies,
    judge_missing,
    judge_new_values,
    judge_rows,
    judge_rows_counted,
    missing_shares,
)
from gates.drift import PREVIOUS, Distance, bound_of, judge_drift
from gates.evidence import ColumnFigures, DataEvidence
from gates.leakage import (
    ColumnFindings,
    Target,
    judge_columns,
    judge_keys,
    judge_repeats,
    judge_shared_rows,
    judge_time,
    not_judged,
)
from gates.overrides import apply
from gates.settings import DataGateSettings
from gates.verdict import Outcome, Verdict
from pipeline import home
from pipeline.components.gate_output import GateVerdict, overrides, write_or_stop
from pipeline.distances import distances
from pipeline.example_rows import read_rows
from pipeline.mounts import uri_of
from pipeline.table_scan import Scan, Wanted, scan
from schemas.features import DType, FeatureSet, Kind, dtype_of

_TRAIN = "train"


class DataGateSpec(component_spec.ComponentSpec):
    """Parameters, inputs and output of DataGate."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "settings": component_spec.ExecutionParameter(type=str),
        "overrides": component_spec.ExecutionParameter(type=str),
        "features": component_spec.ExecutionParameter(type=str),
        "key": component_spec.ExecutionParameter(type=str),
        "time": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
        "home": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "anomalies": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
        "previous_statistics": component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics, optional=True
        ),
    }
    OUTPUTS = {"verdict": component_spec.ChannelParameter(type=GateVerdict)}  # noqa: RUF012


@dataclass(frozen=True)
class _Data:
    """What the component was given; mappings are by split, train first."""

    examples: Mapping[str, Path]
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList]
    anomalies: Mapping[str, anomalies_pb2.Anomalies]
    schema: schema_pb2.Schema
    previous: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList]
    features: FeatureSet
    key: tuple[str, ...]
    time: str | None
    settings: DataGateSettings

    @property
    def counted(self) -> dict[str, int]:
        """Rows by split, as StatisticsGen says."""
        return {split: _row_count(found) for split, found in self.statistics.items()}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the model sees, and the label: keys and times may change as they like."""
        return (*(feature.name for feature in self.features), self.features.label.name)

    @property
    def wanted(self) -> Wanted:
        """What to look at in the examples."""
        dtypes = {column.name: dtype_of(column) for column in self.schema.feature}
        return Wanted(self.features, self.key, self.time, dtypes)


class Executor(base_executor.BaseExecutor):
    """Reads what TFDV found, compares statistics, looks at the rows, and judges."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the verdicts and the figures.

        Raises:
          RefusedError: with every refusal; each names the split and the column, what is wrong and what to do.
        """
        data = _read(input_dict, exec_properties)
        answered = overrides(exec_properties)
        missing = {split: _missing(found) for split, found in data.statistics.items()}
        before = _missing(data.previous[_TRAIN]) if _TRAIN in data.previous else None
        drift = _distances(data)
        verdicts = [
            *judge_anomalies(data.anomalies, data.settings.rules),
            *judge_rows(data.counted, {k: _row_count(v) for k, v in data.previous.items()}, data.settings),
        ]
        # Rows that break the schema cannot be read as the schema says.
        is_readable = all(verdict.passed for verdict in apply(verdicts, answered))
        verdicts += judge_missing(missing, before, data.columns, data.settings)
        verdicts += judge_drift(drift, data.settings.drift)
        scans, leaks = dict[str, Scan](), ColumnFindings((), {}, {})
        if is_readable:
            scans, unread = _scans(data)
            verdicts += unread
            verdicts += _judge_rows_read(data, scans)
            leaks = _leaks(data, scans)
            verdicts += leaks.verdicts
        write_or_stop(
            apply(verdicts, answered),
            _evidence(data, missing, drift, scans, leaks),
            Path(artifact_utils.get_single_uri(output_dict["verdict"])),
        )
        if remembered := exec_properties.get("home"):
            home.note_accepted(remembered, _accepted(input_dict))


def _accepted(inputs: Mapping[str, list[types.Artifact]]) -> home.AcceptedData:
    """What a later run of a compiled pipeline compares its data with."""
    statistics = artifact_utils.get_single_instance(inputs["statistics"])
    examples = artifact_utils.get_single_instance(inputs["examples"])
    fingerprint = examples.get_string_custom_property(example_gen.FINGERPRINT_PROPERTY_NAME)
    return home.AcceptedData(uri_of(statistics.uri), statistics.split_names, fingerprint)


def _read(inputs: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> _Data:
    examples, statistics, anomalies, schema = (
        artifact_utils.get_single_instance(inputs[name])
        for name in ("examples", "statistics", "anomalies", "schema")
    )
    splits = artifact_utils.decode_split_names(statistics.split_names)
    splits.sort(key=lambda split: split != _TRAIN)  # Without it the rows of train would not be known in time.
    before = inputs.get("previous_statistics") or []
    schema_file = io_utils.get_only_uri_in_dir(schema.uri)
    return _Data(
        examples={split: _folder(examples, split) for split in splits},
        statistics={split: _statistics(statistics, split) for split in splits},
        anomalies={split: _anomalies(anomalies, split) for split in splits},
        schema=io_utils.parse_pbtxt_file(schema_file, schema_pb2.Schema()),
        previous={
            split: _statistics(before[0], split)
            for split in (artifact_utils.decode_split_names(before[0].split_names) if before else ())
        },
        features=FeatureSet.from_json(exec_properties["features"]),
        key=tuple(json.loads(exec_properties["key"])),
        time=json.loads(exec_properties["time"]),
        settings=TypeAdapter(DataGateSettings).validate_json(exec_properties["settings"]),
    )


def _folder(artifact: types.Artifact, split: str) -> Path:
    return Path(artifact_utils.get_split_uri([artifact], split))


def _anomalies(found: types.Artifact, split: str) -> anomalies_pb2.Anomalies:
    return anomalies_pb2.Anomalies.FromString((_folder(found, split) / "SchemaDiff.pb").read_bytes())


def _statistics(found: types.Artifact, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    path = _folder(found, split) / "FeatureStats.pb"
    return statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())


def _row_count(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> int:
    # One entry a slice, all rows first; an empty split may have none.
    return int(statistics.datasets[0].num_examples) if statistics.datasets else 0


def _missing(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> Missing:
    return Missing(
        missing_shares(statistics.datasets[0]) if statistics.datasets else {}, _row_count(statistics)
    )


def _distances(data: _Data) -> dict[str, tuple[Distance, ...]]:
    """Of validation and test from train, and of train from the train split accepted before."""
    train = data.statistics[_TRAIN]
    compared = {
        split: distances(found, train, data.schema, data.columns)
        for split, found in data.statistics.items()
        if split != _TRAIN
    }
    if _TRAIN in data.previous:
        compared[PREVIOUS] = distances(train, data.previous[_TRAIN], data.schema, data.columns)
    return compared


def _scans(data: _Data) -> tuple[dict[str, Scan], list[Verdict]]:
    """Scans of the splits whose rows can be read, and a refusal of each of the others."""
    step = max(1, -(-data.counted[_TRAIN] // data.settings.leakage.most_rows))
    found, unread = dict[str, Scan](), list[Verdict]()
    for split, folder in data.examples.items():
        known = found[_TRAIN].values if split != _TRAIN and _TRAIN in found else None
        try:
            found[split] = scan(folder, data.wanted, step=step if split == _TRAIN else 0, known=known)
        except tf.errors.InvalidArgumentError as error:
            # An anomaly of the type that somebody let pass comes here.
            words = (
                f"the rows of the {split} split cannot be read as the schema says: {error.message.splitlines()[0]}; "
                "repair the type in the data or in the schema"
            )
            figure, bound = "unreadable", "as in the schema"
            unread.append(Verdict(f"rows of {split}", Outcome.REFUSED, figure, bound, words))
    return found, unread


def _judge_rows_read(data: _Data, scans: Mapping[str, Scan]) -> Iterator[Verdict]:
    leakage = data.settings.leakage
    yield from judge_rows_counted({split: one.rows for split, one in scans.items()}, data.counted)
    yield from judge_new_values({k: one.new for k, one in scans.items() if k != _TRAIN}, data.settings)
    keys = {split: one.keys for split, one in scans.items() if one.keys is not None}
    yield from judge_keys(keys, data.key)
    yield from judge_shared_rows({split: one.content for split, one in scans.items()}, leakage)
    yield from judge_repeats({split: one.dated for split, one in scans.items()}, leakage)
    if data.time is not None:
        ranges = {split: one.time for split, one in scans.items() if one.time is not None}
        yield from judge_time(ranges, data.time)


def _leaks(data: _Data, scans: Mapping[str, Scan]) -> ColumnFindings:
    if _TRAIN not in scans:
        return ColumnFindings((not_judged("the rows of train cannot be read"),), {}, {})
    label = data.features.label
    try:
        rows = read_rows(scans[_TRAIN].sample, data.features)
    except (KeyError, ValueError) as error:
        words = (
            f"the label {label.name!r} of a row of train is missing or none of its classes ({error}): repair the data "
            "or the schema"
        )
        return ColumnFindings(
            (Verdict("label in train", Outcome.REFUSED, str(error), "a class", words),), {}, {}
        )
    return judge_columns(
        Target(label.kind, label.classes), _as_names(rows, data.features), data.settings.leakage
    )


def _as_names(rows: Rows, features: FeatureSet) -> Rows:
    """Rows in which integers that are names are categories, and free text is left out."""
    columns = {}
    for feature in features:
        values = rows.columns[feature.name]
        is_name = feature.kind in (Kind.CATEGORICAL, Kind.HASHED) and feature.dtype is DType.INT
        if feature.kind is not Kind.TEXT:
            columns[feature.name] = values.astype("Int64").astype("category") if is_name else values
    return Rows(pd.DataFrame(columns), rows.truth)


def _evidence(
    data: _Data,
    missing: Mapping[str, Missing],
    drift: Mapping[str, Sequence[Distance]],
    scans: Mapping[str, Scan],
    leaks: ColumnFindings,
) -> DataEvidence:
    found = {what: {one.column: one for one in its} for what, its in drift.items()}

    def figures(column: str) -> ColumnFigures:
        measured = {what: its[column] for what, its in found.items() if column in its}
        return ColumnFigures(
            column=column,
            missing={split: its.shares[column] for split, its in missing.items() if column in its.shares},
            drift={what: one.value for what, one in measured.items()},
            measure=next((one.measure for one in measured.values()), ""),
            bound=next((bound_of(one, data.settings.drift) for one in measured.values()), None),
            new_values={split: one.new[column].share for split, one in scans.items() if column in one.new},
            auc=_finite(leaks.alone.get(column)),
            gain=_finite(leaks.gain.get(column)),
        )

    return DataEvidence(
        rows=data.counted,
        previous_rows={split: _row_count(its) for split, its in data.previous.items()},
        columns=tuple(figures(column) for column in data.columns),
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else value


class DataGate(base_component.BaseComponent):
    """Examples, their statistics and anomalies to a verdict; a refusal is a failed component."""

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        statistics: types.BaseChannel,
        anomalies: types.BaseChannel,
        schema: types.BaseChannel,
        previous_statistics: types.BaseChannel,
        settings: str,
        overrides: str,
        features: str,
        key: str,
        time: str,
        source_digest: str,
    ) -> None:
        """Describes the step.

        Args:
          examples: raw rows, with the split train and others that come after it, in that order.
          statistics: of the examples.
          anomalies: of the statistics.
          schema: the curated one.
          previous_statistics: of the data accepted before, or nothing.
          settings: the configuration's `data_gate`, as JSON.
          overrides: those of the configuration that count today, as JSON.
          features: the `FeatureSet`, as JSON.
          key: columns that together name a row, as a JSON list.
          time: column whose order the splits have to keep, as JSON, or null.
          source_digest: changes with the code that judges; only there to be part of the cache key.
        """
        super().__init__(
            DataGateSpec(
                examples=examples,
                statistics=statistics,
                anomalies=anomalies,
                schema=schema,
                previous_statistics=previous_statistics,
                settings=settings,
                overrides=overrides,
                features=features,
                key=key,
                time=time,
                source_digest=source_digest,
                verdict=types.Channel(type=GateVerdict),
            )
        )
