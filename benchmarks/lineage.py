"""`headworks lineage` in a store of a thousand runs: seconds of the whole command, in both directions.

Fills an output folder as a daily pipeline of thirteen nodes leaves it: a sliding window of files, every fourth run on
yesterday's examples from the cache, every fifth model refused by its gate. All rows go through ML Metadata itself;
folders of artifacts, which no question opens in bulk, are not made.

    python -m benchmarks.lineage [--runs 1000] [--repeats 5] [--folder FOLDER]
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipeline import history, origins
from pipeline.metadata_rows import EventType
from pipeline.origins import DataFile, DataOrigin
from pipeline.push import MANIFEST
from pipeline.runners import records
from pipeline.runners.events import NodeResult, NodeState
from pipeline.runners.records import RunRecord, RunState

_WINDOW = 30
_PIPELINE = "daily"
_SETTINGS = json.dumps({"features": "x" * 5_000})
"""As long as the parameters of a Trainer are, so that rows have their real size."""


@dataclass(frozen=True)
class _Node:
    name: str
    inputs: tuple[tuple[str, str], ...]
    """Key, and `node.key` of the artifact."""
    outputs: tuple[tuple[str, str], ...]
    """Key, and type."""


_NODES = (
    _Node("QueryExampleGen", (), (("examples", "Examples"),)),
    _Node("ImportSchemaGen", (), (("schema", "Schema"),)),
    _Node(
        "StatisticsGen", (("examples", "QueryExampleGen.examples"),), (("statistics", "ExampleStatistics"),)
    ),
    _Node(
        "ExampleValidator",
        (("statistics", "StatisticsGen.statistics"), ("schema", "ImportSchemaGen.schema")),
        (("anomalies", "ExampleAnomalies"),),
    ),
    _Node(
        "DataGate",
        (("statistics", "StatisticsGen.statistics"), ("anomalies", "ExampleValidator.anomalies")),
        (("verdict", "pipeline.GateVerdict"),),
    ),
    _Node(
        "Transform",
        (("examples", "QueryExampleGen.examples"), ("schema", "ImportSchemaGen.schema")),
        (("transform_graph", "TransformGraph"), ("updated_analyzer_cache", "TransformCache")),
    ),
    _Node(
        "Tuner",
        (("examples", "QueryExampleGen.examples"), ("transform_graph", "Transform.transform_graph")),
        (("best_hyperparameters", "HyperParameters"), ("tuner_results", "TunerResults")),
    ),
    _Node(
        "Trainer",
        (
            ("examples", "QueryExampleGen.examples"),
            ("transform_graph", "Transform.transform_graph"),
            ("hyperparameters", "Tuner.best_hyperparameters"),
        ),
        (("model", "Model"), ("model_run", "ModelRun")),
    ),
    _Node(
        "ServingCheck",
        (("model", "Trainer.model"), ("examples", "QueryExampleGen.examples")),
        (("verdict", "pipeline.GateVerdict"),),
    ),
    _Node("Champion", (), ()),
    _Node(
        "Evaluator",
        (
            ("examples", "QueryExampleGen.examples"),
            ("model", "Trainer.model"),
            ("baseline_model", "champion"),
        ),
        (("evaluation", "ModelEvaluation"), ("blessing", "ModelBlessing")),
    ),
    _Node(
        "ModelGate",
        (
            ("examples", "QueryExampleGen.examples"),
            ("model", "Trainer.model"),
            ("champion", "champion"),
            ("model_blessing", "Evaluator.blessing"),
        ),
        (("verdict", "pipeline.GateVerdict"), ("blessing", "ModelBlessing")),
    ),
    _Node(
        "ModelPusher",
        (("model", "Trainer.model"), ("model_blessing", "ModelGate.blessing")),
        (("pushed_model", "PushedModel"),),
    ),
)
_REUSED = ("QueryExampleGen", "ImportSchemaGen", "StatisticsGen", "ExampleValidator", "DataGate", "Transform")


class _Filler:
    """Writes runs into an output folder as the local runner and TFX do."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "plans").mkdir(parents=True)
        self._store: MetadataStore = history.open_store(root / "metadata.sqlite")
        self._types: dict[str, int] = {}
        self._contexts: dict[tuple[str, str], metadata_store_pb2.Context] = {}
        self._outputs: dict[str, int] = {}
        self._version = 0

    def add_run(self, number: int) -> None:
        """Adds one run; from the second on it may reuse what the last one made of the same data."""
        run_id = f"{20200101 + number:08d}T000000-{number:04x}"
        is_reuse = number % 4 == 3
        span = number - 1 if is_reuse else number
        fingerprint = self._keep_origin(span)
        is_refused = number % 5 == 4
        champion = self._outputs.get("champion")
        for node in _NODES:
            if node.name == "ModelPusher" and is_refused:
                continue
            self._add_execution(node, run_id, fingerprint, is_reuse and node.name in _REUSED)
        if not is_refused:
            self._outputs["champion"] = self._outputs["Trainer.model"]
        elif champion is not None:
            self._outputs["champion"] = champion
        nodes = {n.name: NodeResult(n.name, NodeState.SUCCEEDED, 1.0, 1) for n in _NODES}
        record = RunRecord(run_id, _PIPELINE, records.utc_now(), git_revision="0" * 40, nodes=nodes)
        records.save(record.ended(RunState.SUCCEEDED), self._root / "runs" / run_id)

    def _keep_origin(self, span: int) -> str:
        files = tuple(
            DataFile("rows", _digest(f"file {one}"), 1_000_000, one, (str(_file(self._root, one)),))
            for one in range(max(span - _WINDOW + 1, 0), span + 1)
        )
        fingerprint = _digest(f"data {span}")
        origin = DataOrigin(
            fingerprint, "query", files, max(span - _WINDOW + 1, 0), span, "SELECT 1", "a.sql"
        )
        path = origins.data_path(self._root, fingerprint)
        path.write_text(json.dumps(asdict(origin), indent=1), encoding="utf-8")
        return fingerprint

    def _add_execution(self, node: _Node, run_id: str, fingerprint: str, is_cached: bool) -> None:
        execution = metadata_store_pb2.Execution(
            type_id=self._type(node.name, self._store.put_execution_type, metadata_store_pb2.ExecutionType),
            last_known_state=metadata_store_pb2.Execution.CACHED
            if is_cached
            else metadata_store_pb2.Execution.COMPLETE,
        )
        own = {"fingerprint": fingerprint} if node.name == "QueryExampleGen" else {"custom_config": _SETTINGS}
        for name, value in {**own, "source_digest": _digest(node.name)}.items():
            execution.custom_properties[name].string_value = value
        edges = [
            self._edge(self._artifact_of(self._outputs[source]), EventType.INPUT, key)
            for key, source in node.inputs
            if source in self._outputs
        ]
        edges += [
            self._edge(
                self._artifact_of(self._outputs[f"{node.name}.{key}"])
                if is_cached
                else self._new_artifact(node.name, kind),
                EventType.OUTPUT,
                key,
            )
            for key, kind in node.outputs
        ]
        contexts = [
            self._context("pipeline", _PIPELINE),
            self._context("pipeline_run", run_id),
            self._context("node", f"{_PIPELINE}.{node.name}"),
            self._context("execution_cache", _digest(f"{node.name} {fingerprint} {is_cached}")),
        ]
        _, artifacts, stored = self._store.put_execution(
            execution, edges, contexts, reuse_context_if_already_exist=True
        )
        for context, number in zip(contexts, stored, strict=True):
            context.id = number
        outputs = artifacts[len(artifacts) - len(node.outputs) :]
        for (key, _), number in zip(node.outputs, outputs, strict=True):
            self._outputs[f"{node.name}.{key}"] = number

    def _new_artifact(self, node: str, kind: str) -> metadata_store_pb2.Artifact:
        artifact = metadata_store_pb2.Artifact(
            type_id=self._type(kind, self._store.put_artifact_type, metadata_store_pb2.ArtifactType),
            uri=str(self._root / "artifacts" / node / kind / str(time.monotonic_ns())),
            state=metadata_store_pb2.Artifact.LIVE,
        )
        properties: dict[str, str] = {"tfx_version": "1.21.0", "is_external": "0"}
        if kind == "PushedModel":
            properties["pushed_destination"] = str(self._push())
        for name, value in properties.items():
            artifact.custom_properties[name].string_value = value
        if kind == "ModelBlessing":
            artifact.custom_properties["blessed"].int_value = 1
        return artifact

    def _push(self) -> Path:
        self._version += 1
        folder = self._root / "serving" / str(self._version)
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(json.dumps({"files": {}}), encoding="utf-8")
        return folder

    def _artifact_of(self, number: int) -> metadata_store_pb2.Artifact:
        [artifact] = self._store.get_artifacts_by_id([number])
        return artifact

    def _edge(
        self, artifact: metadata_store_pb2.Artifact, kind: EventType, key: str
    ) -> tuple[metadata_store_pb2.Artifact, metadata_store_pb2.Event]:
        event = metadata_store_pb2.Event(type=int(kind))
        event.path.steps.add().key = key
        event.path.steps.add().index = 0
        return artifact, event

    def _context(self, kind: str, name: str) -> metadata_store_pb2.Context:
        type_id = self._type(kind, self._store.put_context_type, metadata_store_pb2.ContextType)
        return self._contexts.setdefault((kind, name), metadata_store_pb2.Context(type_id=type_id, name=name))

    def _type(self, name: str, put: object, message: type) -> int:
        if name not in self._types:
            self._types[name] = put(message(name=name), can_add_fields=True)  # type: ignore[operator]
        return self._types[name]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file(root: Path, span: int) -> Path:
    return root / "data" / f"rows-{span}.csv"


def _seconds(root: Path, arguments: Sequence[str], repeats: int) -> list[float]:
    """Wall time of the whole command, from its start to its last line."""
    command = [sys.executable, "-m", "cli.main", "lineage", "--root", str(root), *arguments]
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return taken


def _questions(root: Path, runs: int) -> Mapping[str, Sequence[str]]:
    middle = runs // 2
    return {
        "model, the first version": ("1",),
        "model, one in the middle": (str(int(0.4 * runs)),),
        "model, as JSON": (str(int(0.4 * runs)), "--json"),
        "span, in 30 windows": (f"span:{middle}",),
        "span, all as JSON": (f"span:{middle}", "--json"),
        "file, gone since": (str(_file(root, middle)),),
    }


@click.command()
@click.option("--runs", default=1000, help="Runs in the store.")
@click.option("--repeats", default=5, help="Commands per question.")
@click.option("--folder", type=click.Path(path_type=Path), help="Fill, or use, this folder and keep it.")
def main(runs: int, repeats: int, folder: Path | None) -> None:
    """Fill a store and time the questions."""
    with tempfile.TemporaryDirectory() as temporary:
        root = (folder or Path(temporary) / "output").resolve()
        if not root.exists():
            filler = _Filler(root)
            for number in track(range(runs), "filling the store", console=Console(stderr=True)):
                filler.add_run(number)
        table = Table("question", "median s", "slowest s")
        for name, arguments in _questions(root, runs).items():
            taken = _seconds(root, arguments, repeats)
            table.add_row(name, f"{statistics.median(taken):.2f}", f"{max(taken):.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()
