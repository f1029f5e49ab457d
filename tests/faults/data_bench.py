"""Taxi rows with a fault in them, brought before the real data gate without the rest of a run.

Examples, statistics and anomalies are made by the same libraries as in a run, in this process.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts

from gates.settings import DataGateSettings
from gates.verdict import Verdict
from ingest.records import to_examples, to_frames
from pipeline.components import data_gate
from pipeline.components.gate_output import REFUSED_FOLDER, GateVerdict, RefusedError, read_verdicts
from schemas.features import FeatureSet

SPLITS = ("train", "validation", "test")
Rows = Mapping[str, pd.DataFrame]

_ARROW = {schema_pb2.INT: pa.int64(), schema_pb2.FLOAT: pa.float32(), schema_pb2.BYTES: pa.string()}


@dataclass
class DataBench:
    """Brings rows before the data gate.

    Attributes:
      folder: for artifacts; each call has one of its own.
      schema: curated.
      features: roles and kinds.
      overrides: as in the configuration.
      environ: the environment in which a refusing gate looks for where to keep its verdicts.
      known: statistics of frames that were counted before, by `retyped` and the frame's `id`, which stays its own as
        the frame is kept. Frames are not changed in place.
      retyped: columns that are written as the type of their values, whatever the schema says.
    """

    folder: Path
    schema: schema_pb2.Schema
    features: FeatureSet
    overrides: tuple[Any, ...]
    environ: Any
    known: dict[tuple[frozenset[str], int], tuple[pd.DataFrame, bytes]]
    retyped: frozenset[str] = frozenset()
    _calls: int = field(default=0, init=False)

    def judge(
        self,
        rows: Rows,
        previous: Rows | None = None,
        settings: DataGateSettings | None = None,
        counted: Rows | None = None,
    ) -> dict[str, Verdict]:
        """Verdicts by name, whether the gate lets the run go on or not.

        Args:
          rows: by split.
          previous: the data accepted before.
          settings: of the gate.
          counted: what the statistics are made of, if not of `rows`.
        """
        self._calls += 1
        place = self.folder / str(self._calls)
        self.environ.setenv(REFUSED_FOLDER, str(place / "refused"))
        verdict = GateVerdict()
        verdict.uri = str(place / "verdict")
        statistics = self._statistics(counted or rows, place / "statistics")
        inputs = {
            "examples": [self._examples(rows, place / "examples")],
            "statistics": [statistics],
            "anomalies": [self._anomalies(statistics, place / "anomalies")],
            "schema": [self._schema(place / "schema")],
        }
        if previous is not None:
            inputs["previous_statistics"] = [self._statistics(previous, place / "previous")]
        properties = {
            "settings": json.dumps(asdict(settings or DataGateSettings())),
            "overrides": json.dumps([asdict(override) for override in self.overrides]),
            "features": self.features.to_json(),
            "key": json.dumps(["trip_id"]),
            "time": json.dumps("trip_start"),
            "source_digest": "",
        }
        try:
            data_gate.Executor().Do(inputs, {"verdict": [verdict]}, properties)
        except RefusedError:
            return {one.name: one for one in read_verdicts(place / "refused")}
        return {one.name: one for one in read_verdicts(Path(verdict.uri))}

    def _examples(self, rows: Rows, folder: Path) -> Any:
        for split, frame in rows.items():
            path = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"
            path.parent.mkdir(parents=True)
            with gzip.open(path, "wb", compresslevel=1) as file:
                file.write(to_frames(to_examples(self._batch(frame))))
        return _artifact(standard_artifacts.Examples(), folder, rows)

    def _statistics(self, rows: Rows, folder: Path) -> Any:
        for split, frame in rows.items():
            (folder / f"Split-{split}").mkdir(parents=True)
            (folder / f"Split-{split}" / "FeatureStats.pb").write_bytes(self._counted(frame))
        return _artifact(standard_artifacts.ExampleStatistics(), folder, rows)

    def _counted(self, frame: pd.DataFrame) -> bytes:
        """Statistics of one split; those of a frame that was there before are known."""
        key = self.retyped, id(frame)
        if key not in self.known:
            batch = self._batch(frame)
            lists = [_as_lists(column) for column in batch.columns]
            found = stats_impl.generate_statistics_in_memory(
                pa.RecordBatch.from_arrays(lists, batch.schema.names), tfdv.StatsOptions()
            )
            self.known[key] = frame, found.SerializeToString()
        return self.known[key][1]

    def _anomalies(self, statistics: Any, folder: Path) -> Any:
        splits = artifact_utils.decode_split_names(statistics.split_names)
        for split in splits:
            found = tfdv.load_stats_binary(f"{statistics.uri}/Split-{split}/FeatureStats.pb")
            anomalies = tfdv.validate_statistics(found, self.schema)
            (folder / f"Split-{split}").mkdir(parents=True)
            (folder / f"Split-{split}" / "SchemaDiff.pb").write_bytes(anomalies.SerializeToString())
        return _artifact(standard_artifacts.ExampleAnomalies(), folder, splits)

    def _schema(self, folder: Path) -> Any:
        folder.mkdir()
        tfdv.write_schema_text(self.schema, str(folder / "schema.pbtxt"))
        artifact = standard_artifacts.Schema()
        artifact.uri = str(folder)
        return artifact

    def _batch(self, frame: pd.DataFrame) -> pa.RecordBatch:
        types = {feature.name: _ARROW[feature.type] for feature in self.schema.feature}
        arrays = [
            pa.array(frame[name], None if name in self.retyped else types[name], from_pandas=True)
            for name in frame.columns
        ]
        return pa.RecordBatch.from_arrays(arrays, list(frame.columns))


def read_examples(folder: Path, schema: schema_pb2.Schema) -> pd.DataFrame:
    """All columns of one split, None where a row has no value."""
    files = sorted(map(str, folder.glob("*.gz")))
    kinds = {schema_pb2.INT: tf.int64, schema_pb2.FLOAT: tf.float32, schema_pb2.BYTES: tf.string}
    specification = {f.name: tf.io.VarLenFeature(kinds[f.type]) for f in schema.feature}
    records = tf.data.TFRecordDataset(files, "GZIP").batch(1_000_000)
    [batch] = list(records)
    parsed = tf.io.parse_example(batch, specification)
    columns = {}
    for name, sparse in parsed.items():
        values = np.full(len(batch), None, object)
        values[sparse.indices.numpy()[:, 0]] = [
            value.decode() if isinstance(value, bytes) else value for value in sparse.values.numpy().tolist()
        ]
        columns[name] = values
    return pd.DataFrame(columns)


def _as_lists(column: pa.Array) -> pa.ListArray:
    offsets = np.concatenate(([0], np.cumsum(column.is_valid())))
    values = column.drop_null()
    if pa.types.is_string(values.type):
        values = values.cast(pa.binary())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=column.is_null())


def _artifact(artifact: Any, folder: Path, splits: Any) -> Any:
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names(list(splits))
    return artifact
