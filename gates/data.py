"""What data may train a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tensorflow_metadata.proto.v0 import anomalies_pb2

from gates.verdict import Verdict

_WHOLE_DATASET = "(all columns)"
_REASON_TYPE = anomalies_pb2.AnomalyInfo.Type


def judge_data(
    anomalies: Mapping[str, anomalies_pb2.Anomalies],
    row_counts: Mapping[str, int],
    min_rows: int,
    ignore: Collection[str] = (),
) -> tuple[Verdict, ...]:
    """Judges every split by its size and by what TFDV found against the schema.

    Args:
      anomalies: by split.
      row_counts: by split.
      min_rows: fewest rows that a split may have.
      ignore: anomalies to let pass, as COLUMN or COLUMN:KIND.

    Returns:
      One verdict per split's size and one per anomaly; an ignored anomaly passes and says so.
    """
    sizes = tuple(_size(split, count, min_rows) for split, count in row_counts.items())
    return (*sizes, *(v for split, found in anomalies.items() for v in _anomalies(split, found, set(ignore))))


def _size(split: str, count: int, min_rows: int) -> Verdict:
    words = f"the {split} split has {count:,} rows"
    passed = count >= min_rows
    reason = words if passed else f"{words}, fewer than data_gate.min_rows {min_rows:,}"
    return Verdict(f"rows in {split}", passed, f"{count:,}", f"at least {min_rows:,}", reason)


def _anomalies(split: str, found: anomalies_pb2.Anomalies, ignore: set[str]) -> Iterator[Verdict]:
    if found.data_missing:
        yield Verdict(f"data in {split}", False, "none", "some rows", f"the {split} split has no rows")
    columns = [(".".join(info.path.step) or name, info) for name, info in found.anomaly_info.items()]
    if found.HasField("dataset_anomaly_info"):
        columns.append((_WHOLE_DATASET, found.dataset_anomaly_info))
    for column, info in columns:
        # A finding without reasons has its words in itself, and has to stop the run all the same.
        for reason in info.reason or [info]:
            kind = _REASON_TYPE.Name(getattr(reason, "type", _REASON_TYPE.UNKNOWN_TYPE))
            is_ignored = bool(ignore & {column, f"{column}:{kind}"})
            is_error = info.severity == anomalies_pb2.AnomalyInfo.ERROR
            told = ": ".join(
                text.rstrip(".") for text in (reason.short_description, reason.description) if text
            )
            words = f"column {column!r} in the {split} split: {told} ({kind})"
            if is_ignored:
                words += "; ignored by data_gate.ignore"
            yield Verdict(
                f"{column} in {split}",
                is_ignored or not is_error,
                reason.short_description,
                "as in the schema",
                words,
            )
