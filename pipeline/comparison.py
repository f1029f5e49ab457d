"""Runs read for a comparison: settings, data, metrics, verdicts and training of each, without TFX and TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gates.evidence import DataEvidence, Estimate, ModelEvidence, ServingEvidence
from gates.verdict import Outcome, Verdict
from pipeline import origins
from pipeline.metadata_rows import MetadataReadError
from pipeline.run_artifacts import QUARANTINE, RunArtifacts, epochs
from pipeline.runners.events import NodeState
from pipeline.runners.records import RunRecord, RunRecordError, RunState, load_run, load_runs
from pipeline.runners.root_folder import RootFolder
from pipeline.summary_file import Summary, read_summary
from report.comparison import ComparedRun, Comparison, Training, listed

CHAMPION = "champion"

_GATES = (QUARANTINE, "DataGate", "ServingCheck", "ModelGate", "DeviceModels")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, MetadataReadError, origins.OriginError)
"""What an artifact that was deleted, damaged or written by another version leads to."""
_USED = ("model", "train")
"""Parts of the configuration that a search, or stored hyperparameters, may have replaced before training."""

_T = TypeVar("_T")


class ComparisonError(Exception):
    """These runs cannot be put side by side."""


def compare(root: Path | None, names: Sequence[str]) -> Comparison:
    """Reads runs and says what keeps their figures from being compared.

    Args:
      root: output folder of a pipeline; None where every run is named by its own folder.
      names: of each run its id, the beginning of one, `latest`, `champion`, or its folder `OUTPUT/runs/ID`.

    Raises:
      RunRecordError: if there is no such run.
      ComparisonError: if two of the names mean the same run.
    """
    found = [_find(root, name) for name in names]
    places = [run.root / run.record.run_id for run in found]
    for number, place in enumerate(places):
        if place in places[:number]:
            first = names[places.index(place)]
            raise ComparisonError(
                f"{first} and {names[number]} are the same run, {place.name}: name another one"
            )
    runs = tuple(_Reader(run).run() for run in found)
    return Comparison(runs, tuple(_cautions(runs)))


def link_logs(runs: Sequence[ComparedRun], folder: Path) -> Path | None:
    """Makes a folder that TensorBoard can show: a link to the logs of each run, named after it.

    Logs that several runs share are there once. TensorBoard could be given names and folders instead
    (`--logdir_spec`), but its HParams plugin then finds no metrics.

    Returns:
      The folder; None where no run has logs, and then there is none.
    """
    for link in folder.glob("*"):
        if link.is_symlink():
            link.unlink()
    shared: dict[str, str] = {}
    for run in runs:
        if run.logs:
            shared.setdefault(run.logs, run.run_id)
    if not shared:
        return None
    folder.mkdir(exist_ok=True)
    for logs, run_id in shared.items():
        (folder / run_id).symlink_to(logs, target_is_directory=True)
    return folder


def flattened(values: Mapping[str, Any], prefix: str = "") -> Mapping[str, Any]:
    """Nested settings by dotted name; an empty group stays as it is."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _find(root: Path | None, name: str) -> RunArtifacts:
    folder = Path(name).resolve()
    if (folder / "run.json").is_file():
        return RunArtifacts(folder.parents[1], load_run(folder.parents[1], folder.name))
    if root is None:
        raise RunRecordError(
            f"{name}: not the folder of a run; say with --config or --root where its pipeline is"
        )
    root = root.resolve()
    return RunArtifacts(root, _champion(root) if name == CHAMPION else load_run(root, name))


def _champion(root: Path) -> RunRecord:
    """The run that pushed the version that serves: the highest one that is still there."""
    pushes: dict[int, RunRecord] = {}
    for record in load_runs(root):
        summary = read_summary(root, record.run_id)
        if summary is not None and summary.pushed and Path(summary.pushed).is_dir():
            pushes.setdefault(int(Path(summary.pushed).name), record)
    if not pushes:
        raise RunRecordError(f"{CHAMPION}: no run in {root} pushed a version that is still there")
    return pushes[max(pushes)]


class _Reader:
    """Reads one run part by part; a part that cannot be read becomes a note and spoils no other."""

    def __init__(self, found: RunArtifacts) -> None:
        self._found = found
        self._notes: list[str] = []

    def run(self) -> ComparedRun:
        found, record = self._found, self._found.record
        config = self._tried("the configuration", found.config, None)
        recorded = self._tried("the record of the training", found.training, None)
        fingerprint = self._tried("the fingerprint of the data", found.fingerprint, None)
        summary = (
            self._tried("the summary", lambda: read_summary(found.root, record.run_id), None) or Summary()
        )
        model = self._tried(
            "the figures of ModelGate", lambda: found.evidence("ModelGate", ModelEvidence), None
        )
        exported = found.folder("Trainer", "model")
        return ComparedRun(
            run_id=record.run_id,
            folder=str(RootFolder(found.root).run_path(record.run_id)),
            pipeline=record.pipeline_name,
            started_at=record.started_at,
            state=record.state.value,
            outcome=self._outcome(summary),
            parameters=_parameters(config, recorded),
            label=config["label"]["column"] if config else None,
            rows=self._rows(recorded),
            spans=self._tried("the origin of the data", lambda: self._spans(fingerprint), None),
            fingerprint=fingerprint,
            estimates=_on_all_rows(model),
            metrics=summary.metrics,
            training=self._tried("the training's epochs", lambda: self._training(recorded), None),
            model_bytes=self._model_bytes(),
            model=str(exported) if exported else None,
            logs=self._logs(),
            notes=tuple(self._notes),
        )

    def _outcome(self, summary: Summary) -> str:
        record = self._found.record
        refusals = tuple(self._refusals())
        if summary.pushed:
            return f"pushed as version {Path(summary.pushed).name}"
        if refusals:
            return _refused(refusals)
        if failed := record.failed_nodes:
            cause = (failed[0].error or "no reason was recorded").removeprefix(f"{failed[0].node_id}: ")
            return f"failed in {failed[0].node_id}: {cause}"
        if record.error:
            return f"{record.state.value}: {record.error}"
        if record.state is RunState.RUNNING:
            return "under way, or killed"
        return "passed; nothing was pushed" if record.state is RunState.SUCCEEDED else record.state.value

    def _refusals(self) -> Iterator[tuple[str, Verdict]]:
        none: tuple[Verdict, ...] = ()
        for node_id in _GATES:
            said = self._tried(f"the verdicts of {node_id}", partial(self._found.verdicts, node_id), none)
            yield from ((node_id, verdict) for verdict in said if verdict.outcome is Outcome.REFUSED)

    def _rows(self, recorded: Mapping[str, Any] | None) -> Mapping[str, int]:
        """Rows by split, as the data gate counted them; else as the Trainer read them."""
        data = self._tried(
            "the figures of DataGate", lambda: self._found.evidence("DataGate", DataEvidence), None
        )
        return data.rows if data else (recorded or {}).get("rows", {})

    def _spans(self, fingerprint: str | None) -> tuple[int, int] | None:
        path = origins.data_path(self._found.root, fingerprint or "")
        if fingerprint is None or not path.exists():
            return None
        origin = origins.read_data(path)
        if origin.first_span is None or origin.last_span is None:
            return None
        return origin.first_span, origin.last_span

    def _training(self, recorded: Mapping[str, Any] | None) -> Training | None:
        if recorded is None:
            return None
        return Training(
            epochs=epochs(recorded),
            monitor=recorded["monitor"],
            seconds=recorded["seconds"],
            parameters=recorded["parameters"],
            epoch_rows=recorded["train"].get("epoch_rows") or recorded["rows"]["train"],
            is_cached=self._found.record.nodes["Trainer"].state is NodeState.CACHED,
        )

    def _model_bytes(self) -> int | None:
        """Bytes of the exported model: as the serving check measured it, else as it was published."""
        serving = self._tried(
            "the figures of ServingCheck", lambda: self._found.evidence("ServingCheck", ServingEvidence), None
        )
        return serving.model_bytes if serving else self._found.size_bytes("Trainer", "model")

    def _logs(self) -> str | None:
        folder = self._found.folder("Trainer", "model_run")
        return str(folder) if folder and any(folder.rglob("events.out.tfevents.*")) else None

    def _tried(self, what: str, read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return read()
        except _UNREADABLE as error:
            cause = next(iter(str(error).splitlines()), "")
            self._notes.append(f"Could not read {what}: {type(error).__name__}: {cause}.")
            return otherwise


def _parameters(
    config: Mapping[str, Any] | None, recorded: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """What the run used: its configuration, with the values that the Trainer really trained with."""
    used = {part: recorded[part] for part in _USED if part in recorded} if recorded else {}
    if config is None:
        return flattened(used) or None
    return flattened({**config, **{part: {**config[part], **values} for part, values in used.items()}})


def _on_all_rows(model: ModelEvidence | None) -> tuple[Estimate, ...]:
    return tuple(e for e in (model.estimates if model else ()) if e.subject == "model" and not e.slice)


def _refused(refusals: Sequence[tuple[str, Verdict]]) -> str:
    gate, verdict = refusals[0]
    more = "" if len(refusals) == 1 else f" (and {len(refusals) - 1} more)"
    return f"refused by {gate}: {verdict.reason}{more}"


def _cautions(runs: Sequence[ComparedRun]) -> Iterator[str]:
    pipelines = list(dict.fromkeys(run.pipeline for run in runs))
    labels = list(dict.fromkeys(run.label for run in runs if run.label))
    prints = {run.fingerprint for run in runs if run.fingerprint}
    tests = {run.rows["test"] for run in runs if "test" in run.rows}
    if len(pipelines) > 1:
        yield f"These are runs of different pipelines, {listed(pipelines)}."
    if len(labels) > 1:
        yield f"They predict different columns, {listed(labels)}: their metrics do not compare."
    elif len(prints) > 1:
        yield "They read different data: a metric may differ because its test rows do."
    elif len(tests) > 1:
        yield "They were tested on different rows of the same data: a metric may differ because of that."
    for run in runs:
        if run.training is None:
            yield f"{run.run_id} has no training to compare: {run.outcome}."
        if run.parameters is None:
            yield f"{run.run_id} kept no settings; those of the others are compared."
    models: dict[str, list[str]] = {}
    for run in runs:
        if run.model is not None:
            models.setdefault(run.model, []).append(run.run_id)
    for same in models.values():
        if len(same) > 1:
            yield f"{listed(same)} have the same model, from the cache."
