"""What TFDV would make of the curated schema, given the statistics of a run.

`propose` loads TFDV and runs in a child; what it returns is light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2


@dataclass(frozen=True)
class ProposedSchemas:
    """Serialized schemas, which travel between processes.

    Attributes:
      updated: the curated schema, made to fit all splits.
      inferred: what all splits alone say.
      updated_by_split: the curated schema, made to fit one split.
    """

    updated: bytes
    inferred: bytes
    updated_by_split: Mapping[str, bytes]


def propose(schema: bytes, statistics: Mapping[str, str]) -> ProposedSchemas:
    """Fits a serialized schema to statistics.

    Args:
      schema: the curated one.
      statistics: path of each split's file, the training split first.

    Raises:
      ValueError: if no split has rows.
    """
    import tensorflow_data_validation as tfdv

    found = {split: _read(Path(path)) for split, path in statistics.items()}
    with_rows = {split: one for split, one in found.items() if one.datasets and one.datasets[0].num_examples}
    if not with_rows:
        raise ValueError("no split of that run has rows")
    curated = schema_pb2.Schema.FromString(schema)
    first, *rest = with_rows.values()
    return ProposedSchemas(
        updated=_fitted(curated, tuple(with_rows.values())).SerializeToString(),
        inferred=_fitted(tfdv.infer_schema(first, infer_feature_shape=False), rest).SerializeToString(),
        updated_by_split={
            split: _fitted(curated, (one,)).SerializeToString() for split, one in with_rows.items()
        },
    )


def _fitted(
    schema: schema_pb2.Schema, statistics: Sequence[statistics_pb2.DatasetFeatureStatisticsList]
) -> schema_pb2.Schema:
    import tensorflow_data_validation as tfdv

    for one in statistics:
        schema = tfdv.update_schema(schema, one)
    return schema


def _read(path: Path) -> statistics_pb2.DatasetFeatureStatisticsList:
    return statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
