"""What a run trained on and what came of it, as ML Metadata has it: its configuration may have changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.metadata_rows import Execution, MetadataRows, reading
from pipeline.runners.records import RunRecord
from pipeline.runners.root_folder import RootFolder
from schemas.features import FeatureSet

_TRAINER = "Trainer"
_DATA_GATE = "DataGate"
_EXPORTED = "Format-Serving"
"""Folder of the SavedModel in a Model artifact, as TFX names it."""


class FinishedRunError(Exception):
    """A run that trained no model, or whose artifacts are gone."""


@dataclass(frozen=True)
class FinishedRun:
    """Data, settings and model of a run.

    Attributes:
      features: that the model reads, with the label.
      examples: folder of the raw rows.
      training_examples: folder of the rows that training read, raw or transformed.
      transform_graph: of tf.Transform.
      model: folder of the SavedModel.
      time: the column that orders the rows, if there is one.
      learning: the Trainer's `custom_config`.
      hyperparameters: what the Tuner of the run found, if it had one: values by dotted name.
    """

    features: FeatureSet
    examples: Path
    training_examples: Path
    transform_graph: Path
    model: Path
    time: str | None
    learning: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]


def find(root: Path, record: RunRecord) -> FinishedRun:
    """Finds what a run was made of.

    Raises:
      FinishedRunError: if it trained no model, or something of it is gone; the message names it.
      MetadataReadError: if there is no store, or of an unknown version.
    """
    with reading(RootFolder(root).metadata_path) as rows:
        executions = {e.node_id: e for e in rows.executions_of_run(record.run_id).values() if e.is_success}
        trainer = _of_node(rows, executions, _TRAINER, ("custom_config",), record)
        gate = _of_node(rows, executions, _DATA_GATE, ("time",), record)
    learning = json.loads(trainer.texts["custom_config"])
    return FinishedRun(
        features=FeatureSet.from_json(learning["features"]),
        examples=_there(gate.folders["examples"], record),
        training_examples=_there(trainer.folders["examples"], record),
        transform_graph=_there(trainer.folders["transform_graph"], record),
        model=_there(trainer.folders["model"] / _EXPORTED, record),
        time=json.loads(gate.texts.get("time", "null")),
        learning=learning,
        hyperparameters=_hyperparameters(trainer.folders.get("hyperparameters")),
    )


@dataclass(frozen=True)
class _Node:
    """Parameters, and folders of what went in and came out, by key."""

    texts: Mapping[str, str]
    folders: Mapping[str, Path]


def _of_node(
    rows: MetadataRows,
    executions: Mapping[str, Execution],
    node_id: str,
    names: tuple[str, ...],
    record: RunRecord,
) -> _Node:
    if node_id not in executions:
        raise FinishedRunError(
            f"{record.run_id}: it has no finished {node_id}, so there is nothing to look at; "
            "choose a run that trained a model: headworks runs"
        )
    number = executions[node_id].execution_id
    events = [*rows.inputs_of([number]), *rows.outputs_of([number])]
    artifacts = rows.artifacts({event.artifact_id for event in events})
    folders = {event.key: Path(artifacts[event.artifact_id].uri) for event in events}
    return _Node(rows.texts_of_executions([number], names).get(number, {}), folders)


def _there(folder: Path, record: RunRecord) -> Path:
    if not folder.is_dir():
        raise FinishedRunError(
            f"{record.run_id}: {folder} is gone; run the pipeline again and look at the new run"
        )
    return folder


def _hyperparameters(folder: Path | None) -> Mapping[str, Any]:
    if folder is None:
        return {}
    files = sorted(folder.glob("*.txt"))
    found = json.loads(files[0].read_text(encoding="utf-8")) if files else {}
    return dict(found.get("values", {}))
