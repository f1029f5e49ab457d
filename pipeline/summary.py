"""What a run came to: read from its record and its artifacts, and written as the report.

Runs in a child that has TFX loaded; what it returns is plain data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from gates import evidence
from gates.ablation import Ablation
from gates.evidence import DataEvidence, DeviceEvidence, ModelEvidence, Residuals, ServingEvidence
from gates.overrides import LET_PASS, refusals
from gates.verdict import Outcome, Verdict
from pipeline import distributions, explanations, trials
from pipeline.hyperparameters import keep
from pipeline.metadata_rows import MetadataReadError, reading
from pipeline.push import DESTINATION
from pipeline.run_artifacts import QUARANTINE, beginnings, epochs, read_verdicts, refused_folder
from pipeline.runners.records import RunRecord, load_run
from pipeline.runners.root_folder import RootFolder
from pipeline.summary_file import Summary, summary_path
from report.page import ArtifactUse, Column, Epoch, Gate, Page, SliceRow, Step, render
from report.tuning import Search
from report.whole_file import write_whole

REPORT = "report.html"

_DATA_GATE = "DataGate"
_SERVING_CHECK = "ServingCheck"
_DEVICE_MODELS = "DeviceModels"
_EVALUATOR = "Evaluator"
_MODEL_GATE = "ModelGate"

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, DecodeError, MetadataReadError)
"""What an artifact that was deleted, damaged or written by another version leads to."""

_T = TypeVar("_T")
_Evidence = TypeVar("_Evidence", DataEvidence, ModelEvidence, ServingEvidence, DeviceEvidence)
_Explanation = TypeVar("_Explanation", Ablation, Residuals)


def summarize(root: str, run_id: str) -> Summary:
    """Reads a run, writes its report and its short form beside its record, and returns the short form."""
    folder, record = Path(root), load_run(Path(root), run_id)
    page = read_page(folder, record)
    path = RootFolder(folder).run_path(record.run_id) / REPORT
    write_whole(path, render(page))
    summary = Summary(
        metrics=dict(page.slices[0].metrics) if page.slices else {},
        refusals=tuple(_refusals(page)),
        warnings=tuple(_in_short(page, Outcome.WARNED)),
        overridden=tuple(_in_short(page, Outcome.OVERRIDDEN)),
        pushed=page.pushed,
        report=str(path),
        tuned=_tuned(record, folder),
        devices=page.devices_pushed,
    )
    write_whole(summary_path(folder, record.run_id), json.dumps(asdict(summary), indent=1))
    return summary


def write_report(root: str, run_id: str, output: str | None = None) -> str:
    """Writes the report of a run again, and nothing else.

    Args:
      root: output folder of the pipeline.
      run_id: a run's id, the beginning of one, or `latest`.
      output: the file to write; by default the report beside the run's record.

    Returns:
      The file's path.

    Raises:
      RunRecordError: if there is no such run.
    """
    folder, record = Path(root), load_run(Path(root), run_id)
    path = Path(output) if output else RootFolder(folder).run_path(record.run_id) / REPORT
    write_whole(path, render(read_page(folder, record)))
    return str(path)


def read_page(root: Path, record: RunRecord) -> Page:
    """All that is stored of a run; what cannot be read is missing, and the page says so."""
    return _Reader(root.resolve(), record).page()


class _Reader:
    """Reads one run part by part; a part that cannot be read becomes a note and spoils no other."""

    def __init__(self, root: Path, record: RunRecord) -> None:
        self._root = root
        self._record = record
        self._notes: list[str] = []

    def page(self) -> Page:
        record = self._record
        model = self._evidence(_MODEL_GATE, ModelEvidence)
        return Page(
            pipeline=record.pipeline_name,
            run_id=record.run_id,
            state=record.state.value,
            started_at=record.started_at,
            ended_at=record.ended_at,
            steps=tuple(_steps(record)),
            gates=self._gates(),
            rows=self._tried("the number of rows", self._rows, {}),
            columns=self._tried("the statistics of the data", self._columns, ()),
            data=self._evidence(_DATA_GATE, DataEvidence),
            epochs=self._tried("the history of the training", self._epochs, ()),
            began=self._tried("the record of the training", self._began, ()),
            search=self._tried("the trials of the search", self._search, None),
            slices=self._tried("the Evaluator's metrics", self._slices, ()),
            model=model,
            serving=self._evidence(_SERVING_CHECK, ServingEvidence),
            devices=self._evidence(_DEVICE_MODELS, DeviceEvidence),
            residuals=self._explanation(Residuals) or (model.residuals if model else None),
            ablation=self._explanation(Ablation),
            facts=self._facts(),
            artifacts=tuple(self._artifacts()),
            pushed=self._tried(
                "the pushed version", partial(self._pushed, "ModelPusher", "pushed_model"), None
            ),
            devices_pushed=self._tried(
                "the pushed device models", partial(self._pushed, _DEVICE_MODELS, "device_models"), None
            ),
            notes=tuple(dict.fromkeys(self._notes)),
        )

    def _rows(self) -> dict[str, int]:
        folder = self._artifact("StatisticsGen", "statistics")
        return distributions.read_row_counts(folder) if folder else {}

    def _columns(self) -> tuple[Column, ...]:
        folder = self._artifact("StatisticsGen", "statistics")
        anomalies = self._artifact("ExampleValidator", "anomalies")
        return distributions.read_columns(folder, anomalies) if folder else ()

    def _gates(self) -> tuple[Gate, ...]:
        """Every check once. ModelGate takes over what others found and decides about overrides: its word counts."""
        none: tuple[Verdict, ...] = ()
        aside, data, serving, model, devices = (
            self._tried(f"the verdicts of {node_id}", partial(self._verdicts, node_id), none)
            for node_id in (QUARANTINE, _DATA_GATE, _SERVING_CHECK, _MODEL_GATE, _DEVICE_MODELS)
        )
        bounds = self._tried(f"the verdicts of {_EVALUATOR}", self._bounds, none)
        decided = {verdict.name: verdict for verdict in model}
        elsewhere = {verdict.name for verdict in serving}
        gates = (
            Gate(QUARANTINE, aside),
            Gate(_DATA_GATE, data),
            Gate(_SERVING_CHECK, tuple(decided.get(verdict.name, verdict) for verdict in serving)),
            Gate(_EVALUATOR, tuple(verdict for verdict in bounds if verdict.name not in decided)),
            Gate(_MODEL_GATE, tuple(verdict for verdict in model if verdict.name not in elsewhere)),
            Gate(_DEVICE_MODELS, devices),
        )
        return tuple(gate for gate in gates if gate.verdicts)

    def _verdicts(self, node_id: str) -> tuple[Verdict, ...]:
        folder = self._gate_folder(node_id)
        return read_verdicts(folder) if folder else ()

    def _bounds(self) -> tuple[Verdict, ...]:
        from pipeline import evaluation

        folder = self._artifact(_EVALUATOR, "evaluation")
        return evaluation.read_validation(str(folder)) if folder else ()

    def _slices(self) -> tuple[SliceRow, ...]:
        from pipeline import evaluation

        folder = self._artifact(_EVALUATOR, "evaluation")
        return tuple(evaluation.read_metrics(str(folder))) if folder else ()

    def _evidence(self, node_id: str, kind: type[_Evidence]) -> _Evidence | None:
        folder = self._gate_folder(node_id)
        if folder is None or not (folder / evidence.FILE).exists():
            return None
        found: _Evidence | None = self._tried(
            f"the figures of {node_id}", lambda: evidence.read(kind, folder), None
        )
        return found

    def _explanation(self, kind: type[_Explanation]) -> _Explanation | None:
        """What a command found out about the run after it."""
        found: _Explanation | None = self._tried(
            f"the {kind.__name__.lower()}",
            lambda: explanations.read(self._root, self._record.run_id, kind),
            None,
        )
        return found

    def _gate_folder(self, node_id: str) -> Path | None:
        """Where a gate left what it found: its artifact, or the folder of refusals if it stopped the run."""
        if refused := refused_folder(self._root, self._record.run_id, node_id):
            return refused
        return self._artifact(node_id, "quarantined" if node_id == QUARANTINE else "verdict")

    def _epochs(self) -> tuple[Epoch, ...]:
        training = self._training()
        return epochs(training) if training else ()

    def _began(self) -> tuple[str, ...]:
        training = self._training()
        return beginnings(training) if training else ()

    def _training(self) -> Mapping[str, Any] | None:
        folder = self._artifact("Trainer", "model_run")
        if folder is None:
            return None
        found: Mapping[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        return found

    def _search(self) -> Search | None:
        folder = self._artifact("Tuner", "tuner_results")
        return trials.read(folder) if folder else None

    def _pushed(self, node_id: str, key: str) -> str | None:
        folder = self._artifact(node_id, key)
        return (folder / "folder").read_text(encoding="utf-8") if folder else None

    def _facts(self) -> dict[str, str]:
        """Where the run and its model come from."""
        record = self._record
        known = {
            "Data fingerprint": self._tried("the fingerprint of the data", self._fingerprint, None),
            "Configuration": record.config_hash,
            "Revision of the code": record.git_revision,
            "Champion compared with": self._tried("the champion's pushes", self._champion, None),
            "Pushed to": self._tried(
                "the pushed version", partial(self._pushed, "ModelPusher", "pushed_model"), None
            ),
            "Device models": self._tried(
                "the pushed device models", partial(self._pushed, _DEVICE_MODELS, "device_models"), None
            ),
        }
        return {name: self._place(value) for name, value in known.items() if value}

    def _fingerprint(self) -> str | None:
        if folder := self._artifact("ModelPusher", "pushed_model"):
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return str(manifest["data_fingerprint"])
        with reading(RootFolder(self._root).metadata_path) as rows:
            texts = rows.texts_of_executions(rows.executions_of_run(self._record.run_id), ("fingerprint",))
        return next((text["fingerprint"] for text in texts.values()), None)

    def _champion(self) -> str | None:
        node = self._record.nodes.get("Champion")
        found = next((output for output in node.outputs if output.key == "model"), None) if node else None
        if found is None:
            return None
        with reading(RootFolder(self._root).metadata_path) as rows:
            pushes = rows.artifacts_of_type("PushedModel").values()
        versions = [
            Path(str(push.properties[DESTINATION])).name
            for push in pushes
            if push.properties.get("model_id") == found.artifact_id
        ]
        pushed = f", pushed as version {', '.join(versions)}" if versions else ""
        return f"model {found.artifact_id}{pushed}: {self._place(found.uri)}"

    def _artifacts(self) -> Iterator[ArtifactUse]:
        for node in self._record.nodes.values():
            for output in node.outputs:
                yield ArtifactUse(
                    node=node.node_id,
                    key=output.key,
                    number=output.artifact_id,
                    type_name=output.type_name,
                    place=self._place(output.uri),
                    size_bytes=output.size_bytes,
                )

    def _place(self, text: str) -> str:
        """A path relative to the output folder, if it lies in it; any other text as it is."""
        path = Path(text)
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else text

    def _artifact(self, node_id: str, key: str) -> Path | None:
        """The folder that a node of the run put out under a key; None if it did not, or if it is gone."""
        node = self._record.nodes.get(node_id)
        uris = node.uris(key) if node else ()
        if not uris:
            return None
        if not Path(uris[0]).is_dir():
            self._notes.append(f"What {node_id} put out is gone: {self._place(uris[0])}.")
            return None
        return Path(uris[0])

    def _tried(self, what: str, read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return read()
        except _UNREADABLE as error:
            cause = next(iter(str(error).splitlines()), "")
            self._notes.append(f"Could not read {what}: {type(error).__name__}: {cause}.")
            return otherwise


def _steps(record: RunRecord) -> Iterator[Step]:
    for node in record.nodes.values():
        yield Step(
            node.node_id, node.state.value.replace("_", " "), node.seconds, node.peak_rss_bytes, node.error
        )


def _refusals(page: Page) -> Iterator[str]:
    """What was refused; with the name for an override where there can be one."""
    for gate in page.gates:
        if gate.name == _EVALUATOR:
            yield from (verdict.reason for verdict in gate.verdicts if not verdict.passed)
        else:
            yield from refusals(gate.verdicts)


def _in_short(page: Page, outcome: Outcome) -> Iterator[str]:
    """Check, figure and bound, and who answers for it; the sentences are in the report."""
    for verdict in (v for gate in page.gates for v in gate.verdicts if v.outcome is outcome):
        _, decision, whose = verdict.reason.rpartition(LET_PASS)
        yield f"{verdict.name}: {verdict.figure} ({verdict.bound})" + (decision + whose if decision else "")


def _tuned(record: RunRecord, root: Path) -> str | None:
    node = record.nodes.get("Tuner")
    uris = node.uris("best_hyperparameters") if node else ()
    return str(keep(uris[0], root)) if uris else None
