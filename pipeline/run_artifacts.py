"""What one run left behind, found and read without TFX and TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gates import evidence
from gates.evidence import DataEvidence, DeviceEvidence, ModelEvidence, ServingEvidence
from gates.verdict import Verdict
from pipeline import origins
from pipeline.metadata_rows import reading
from pipeline.runners.records import RunRecord
from pipeline.runners.root_folder import RootFolder
from report.page import Epoch

QUARANTINE = "Quarantine"
VERDICTS = "verdict.json"

_Evidence = TypeVar("_Evidence", DataEvidence, ModelEvidence, ServingEvidence, DeviceEvidence)


@dataclass(frozen=True)
class RunArtifacts:
    """One run's artifacts in the output folder `root`.

    A method returns None, or nothing, for what the run did not come to; it raises OSError, ValueError, KeyError or
    TypeError for what was there and is gone or damaged, and MetadataReadError where it asks ML Metadata.
    """

    root: Path
    record: RunRecord

    def folder(self, node_id: str, key: str) -> Path | None:
        """The folder that a node put out under a key, whether it is still there or not."""
        node = self.record.nodes.get(node_id)
        uris = node.uris(key) if node else ()
        return Path(uris[0]) if uris else None

    def size_bytes(self, node_id: str, key: str) -> int | None:
        """How large an artifact was when it was published."""
        node = self.record.nodes.get(node_id)
        return next(
            (output.size_bytes for output in (node.outputs if node else ()) if output.key == key), None
        )

    def gate_folder(self, node_id: str) -> Path | None:
        """Where a gate left what it found: its artifact, or the folder of refusals if it stopped the run."""
        refused = refused_folder(self.root, self.record.run_id, node_id)
        return refused or self.folder(node_id, "quarantined" if node_id == QUARANTINE else "verdict")

    def verdicts(self, node_id: str) -> tuple[Verdict, ...]:
        """What a gate said, check by check."""
        folder = self.gate_folder(node_id)
        return read_verdicts(folder) if folder else ()

    def evidence(self, node_id: str, kind: type[_Evidence]) -> _Evidence | None:
        """What a gate measured; None too for a gate that keeps no figures."""
        folder = self.gate_folder(node_id)
        if folder is None or (folder.is_dir() and not (folder / evidence.FILE).exists()):
            return None
        found: _Evidence = evidence.read(kind, folder)
        return found

    def training(self) -> Mapping[str, Any] | None:
        """The Trainer's record, as `models.trainer` wrote it."""
        folder = self.folder("Trainer", "model_run")
        if folder is None:
            return None
        return dict(json.loads((folder / "training.json").read_text(encoding="utf-8")))

    def config(self) -> Mapping[str, Any] | None:
        """The run's configuration with all defaults; None for one made before these were kept."""
        if self.record.config_hash is None:
            return None
        path = origins.config_path(self.root, self.record.config_hash)
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def fingerprint(self) -> str | None:
        """The fingerprint of the data that the run's ExampleGen read, or found in the cache."""
        with reading(RootFolder(self.root).metadata_path) as rows:
            executions = rows.executions_of_run(self.record.run_id)
            # No other node's parameters are looked at: many have digests among them.
            sources = [number for number, e in executions.items() if e.node_id.endswith("ExampleGen")]
            texts = rows.texts_of_executions(sources, origins.PARAMETERS)
        return next((origins.fingerprint_of(text) for text in texts.values()), None)


def refused_folder(root: Path, run_id: str, node_id: str) -> Path | None:
    """Where a gate that stopped the run left what it found: TFX deletes its artifact."""
    folder = RootFolder(root).run_path(run_id) / "refused" / node_id
    return folder if (folder / VERDICTS).exists() else None


def read_verdicts(folder: Path) -> tuple[Verdict, ...]:
    """The verdicts that a gate wrote into a folder."""
    entries = json.loads((folder / VERDICTS).read_text(encoding="utf-8"))
    return tuple(Verdict.from_json(entry) for entry in entries)


def beginnings(training: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a training ran, with what weights it began and what was checked before, of a Trainer's record."""
    told = []
    if training.get("replicas", 1) > 1:
        told.append(f"{training['replicas']} replicas shared every batch ({training['train']['strategy']}).")
    if training.get("members", 1) > 1:
        told.append(
            f"The model answers with the mean of {training['members']} networks; the curves are the best one's."
        )
    if training.get("resumed_after_epochs"):
        told.append(
            f"It went on after epoch {training['resumed_after_epochs']}, where an earlier process had ended."
        )
    if warm := training.get("warm_start"):
        rows = sum(layer["rows_new"] for layer in warm["layers"])
        told.append(
            f"{len(warm['layers'])} layers began with the weights of {warm['base_model']}; {rows} ids were new."
        )
    elif training.get("train", {}).get("warm_start"):
        told.append("It began with random weights: no model that learned from other rows was pushed before.")
    if again := training.get("refit"):
        told.append(
            f"Validation chose the epoch; then the model was trained anew, for as many, on all {again['rows']:,} rows "
            "of train and validation: its figures on validation are of rows it has seen."
        )
    told += [f"Checked before: {check['name']}: {check['sentence']}." for check in training.get("checks", ())]
    return tuple(told)


def epochs(training: Mapping[str, Any]) -> tuple[Epoch, ...]:
    """The epochs of a Trainer's record, the one whose weights were kept marked."""
    return tuple(
        Epoch(
            entry["epoch"],
            {name: value for name, value in entry.items() if name != "epoch"},
            is_kept=entry["epoch"] == training["chosen_epoch"],
        )
        for entry in training["history"]
    )
