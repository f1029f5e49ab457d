"""Do all stages speak of the same rows?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gates.verdict import Outcome, Verdict


def judge_counts(
    examples: Mapping[str, int], trained: Mapping[str, int], transformed: Mapping[str, int]
) -> Verdict:
    """Compares the rows of the Examples with those that later stages read or wrote.

    Args:
      examples: by split.
      trained: by split, as the Trainer counted them; empty where it did not say.
      transformed: by split, where Transform wrote its rows down; else empty.
    """
    seen = (("the Trainer read", trained), ("Transform wrote", transformed))
    faults = [fault for told, counts in seen for fault in _differences(told, counts, examples)]
    figure = ", ".join(f"{split} {rows:,}" for split, rows in examples.items())
    words = f"the examples have {figure} rows, and so had the Trainer and Transform as far as they say"
    if faults:
        words = (
            f"{'; '.join(faults)}: rows were lost or doubled on the way, so the model has learned from other rows "
            "than those that were checked; run again with the cache cleared"
        )
    return Verdict("record counts", Outcome.of(not faults), figure, "equal in all stages", words)


def _differences(told: str, counts: Mapping[str, int], examples: Mapping[str, int]) -> Iterator[str]:
    for split, rows in counts.items():
        if split in examples and rows != examples[split]:
            yield f"the {split} split has {examples[split]:,} rows, and {told} {rows:,}"
