"""What a run came to: read from its record and its artifacts, and written as the report.

Runs in a child that has TFX loaded; what it returns is plain data.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from gates.verdict import Verdict
from pipeline.hyperparameters import keep
from pipeline.runners.records import RunRecord, load_run
from pipeline.summary_file import Summary, summary_path
from report.page import Epoch, Page, SliceRow, Step, render

REPORT = "report.html"


def summarize(root: str, run_id: str) -> Summary:
    """Reads a run, writes its report beside its record, and returns the short form."""
    record = load_run(Path(root), run_id)
    slices, verdicts = _evaluation(record)
    verdicts = (*_gate_verdicts(record, "DataGate"), *verdicts, *_gate_verdicts(record, "ModelGate"))
    pushed, facts = _pushed(record)
    page = Page(
        pipeline=record.pipeline_name,
        run_id=record.run_id,
        state=record.state.value,
        started_at=record.started_at,
        ended_at=record.ended_at,
        steps=tuple(
            Step(
                node.node_id,
                node.state.value.replace("_", " "),
                node.seconds,
                node.peak_rss_bytes,
                node.error,
            )
            for node in record.nodes.values()
        ),
        verdicts=verdicts,
        slices=slices,
        epochs=_epochs(record),
        facts=facts,
        pushed=pushed,
    )
    path = Path(root) / "runs" / run_id / REPORT
    _write(path, render(page))
    overall = slices[0].metrics if slices else {}
    summary = Summary(
        metrics=dict(overall),
        refusals=tuple(verdict.reason for verdict in verdicts if not verdict.passed),
        pushed=pushed,
        report=str(path),
        tuned=_tuned(record, Path(root)),
    )
    _write(summary_path(Path(root), run_id), json.dumps(asdict(summary), indent=1))
    return summary


def _evaluation(record: RunRecord) -> tuple[tuple[SliceRow, ...], tuple[Verdict, ...]]:
    from pipeline import evaluation

    uri = _only(record, "Evaluator", "evaluation")
    if uri is None:
        return (), ()
    return tuple(evaluation.read_metrics(uri)), evaluation.read_validation(uri)


def _gate_verdicts(record: RunRecord, node_id: str) -> tuple[Verdict, ...]:
    uri = _only(record, node_id, "verdict")
    if uri is None:
        return ()
    entries = json.loads((Path(uri) / "verdict.json").read_text(encoding="utf-8"))
    return tuple(Verdict.from_json(entry) for entry in entries)


def _epochs(record: RunRecord) -> tuple[Epoch, ...]:
    uri = _only(record, "Trainer", "model_run")
    if uri is None:
        return ()
    training = json.loads((Path(uri) / "training.json").read_text(encoding="utf-8"))
    return tuple(
        Epoch(
            entry["epoch"],
            {name: value for name, value in entry.items() if name != "epoch"},
            is_kept=entry["epoch"] == training["chosen_epoch"],
        )
        for entry in training["history"]
    )


def _pushed(record: RunRecord) -> tuple[str | None, dict[str, str]]:
    """The folder of the pushed version, and what its manifest says of where it came from."""
    uri = _only(record, "ModelPusher", "pushed_model")
    if uri is None:
        return None, {}
    manifest = json.loads((Path(uri) / "manifest.json").read_text(encoding="utf-8"))
    facts = {name: str(value) for name, value in manifest.items() if name != "files"}
    return (Path(uri) / "folder").read_text(encoding="utf-8"), facts


def _tuned(record: RunRecord, root: Path) -> str | None:
    uri = _only(record, "Tuner", "best_hyperparameters")
    return str(keep(uri, root)) if uri else None


def _only(record: RunRecord, node_id: str, key: str) -> str | None:
    """The artifact that a node of the run put out under a key."""
    node = record.nodes.get(node_id)
    uris = node.uris(key) if node else ()
    return uris[0] if uris else None


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
