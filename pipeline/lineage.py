"""Which data, code and configuration made a model, and which models saw a file or a span of data.

Answers come from the rows of ML Metadata (`pipeline.metadata_rows`), the records of runs, and what `pipeline.origins`
kept of the data. A model counts as having seen data if anything it was made of was made of them, whether its own run
read them or took the examples from the cache. Knows no TFX.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gates.verdict import Verdict
from ingest.plan import file_digest
from pipeline import origins
from pipeline.lineage_answers import (
    Data,
    DataLineage,
    Judgement,
    ModelLineage,
    Push,
    Reader,
    SeenBy,
    Step,
)
from pipeline.metadata_rows import Artifact, Event, Execution, MetadataRows, reading
from pipeline.origins import DataFile, DataOrigin
from pipeline.push import DESTINATION, MANIFEST, damaged, versions
from pipeline.runners.records import RunRecord, load_run
from pipeline.runners.root_folder import RootFolder

_EXAMPLES = "Examples"
_MODEL = "Model"
_STATISTICS = "ExampleStatistics"
_VERDICT = "pipeline.GateVerdict"
_BLESSING = "ModelBlessing"
_PUSHED_MODEL = "PushedModel"
_CANDIDATE_KEY = "model"
_CHAMPION_KEYS = ("champion", "baseline_model")
_SAVED_MODEL = "saved_model.pb"
_MOST_NAMED = 10

_Matches = Callable[[DataFile], bool]


class LineageError(Exception):
    """The question names something that is not there; the message says what is."""


def ask(root: Path, what: str, is_span: bool = False) -> ModelLineage | DataLineage:
    """Answers for a model, a span or a file.

    Args:
      root: output folder of the pipeline.
      what: `3` or `model:8` (a pushed version; an artifact's id), `span:12`, the path of a model or of a
        file, or `sha256:` and the digest of a file.
      is_span: whether a plain number means a span.

    Raises:
      LineageError: if there is no such thing; it says what there is.
      MetadataReadError: if there is no store, or of an unknown version.
    """
    root = root.resolve()
    with reading(RootFolder(root).metadata_path) as rows:
        history = _History(root, rows)
        if is_span or what.startswith("span:"):
            return history.of_span(_number(what.removeprefix("span:"), "span"))
        if what.startswith("sha256:"):
            return history.of_content(what.removeprefix("sha256:"))
        if what.startswith("model:"):
            return history.of_model(history.model_of_id(_number(what.removeprefix("model:"), "model")))
        if what.isascii() and what.isdigit() and not Path(what).exists():
            return history.of_model(history.model_of_version(int(what)))
        path = Path(what).resolve()
        if path.is_file():
            return history.of_file(path)
        if model := history.model_at(path):
            return history.of_model(model)
        return history.of_path(path)


def _number(text: str, kind: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise LineageError(f"{text!r}: want the number of a {kind}, such as {kind}:3")
    return int(text)


class _History:
    """The questions to one store; `pushes` are read once."""

    def __init__(self, root: Path, rows: MetadataRows) -> None:
        self._root = root
        self._rows = rows
        self._pushes = tuple(_pushes(rows))

    def model_of_version(self, version: int) -> Artifact:
        found = [push for push in self._pushes if push.version == version]
        if len({push.folder for push in found}) > 1:
            folders = ", ".join(push.folder for push in found)
            raise LineageError(
                f"{version}: pushed into more than one folder; give the path of one: {folders}"
            )
        if not found:
            raise LineageError(
                f"{version}: no version of this number was pushed from {self._root}; "
                f"pushed were {self._pushed_versions()} (for a span: span:{version}; for an artifact: model:{version})"
            )
        return self.model_of_id(found[-1].model_id)

    def model_of_id(self, model_id: int) -> Artifact:
        artifact = self._rows.artifacts([model_id]).get(model_id)
        if artifact is None or artifact.type_name != _MODEL:
            there = f"artifact {model_id} is of the kind {artifact.type_name}; " if artifact else ""
            models = _named(str(number) for number in self._rows.artifacts_of_type(_MODEL))
            raise LineageError(f"model:{model_id}: no such model in {self._root}; {there}models are {models}")
        return artifact

    def model_at(self, path: Path) -> Artifact | None:
        """The model at a path, pushed or not; None if the path is not that of a folder with a model."""
        if push := next((p for p in reversed(self._pushes) if Path(p.folder) == path), None):
            return self.model_of_id(push.model_id)
        for place in (path, *path.parents):
            if found := self._rows.artifacts_at(str(place), _MODEL):
                return next(reversed(found.values()))
        if not path.is_dir():
            return None
        return self._model_of_manifest(path)

    def _model_of_manifest(self, folder: Path) -> Artifact:
        """The model of a copy of a pushed version, which carries its manifest."""
        manifest = folder / MANIFEST
        if not manifest.is_file():
            is_model = (folder / _SAVED_MODEL).is_file()
            what = (
                f"a model that was not made here: it has no {MANIFEST}, and" if is_model else "no model, as"
            )
            other = "" if is_model else "; for data, name one file"
            raise LineageError(
                f"{folder}: {what} no run in {self._root} made it; pushed were {self._pushed_versions()}{other}"
            )
        try:
            facts = json.loads(manifest.read_text(encoding="utf-8"))
            uri = str(facts["model"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LineageError(f"{manifest}: not a manifest of a push: {error}") from error
        if found := self._rows.artifacts_at(uri, _MODEL):
            return next(reversed(found.values()))
        raise LineageError(
            f"{folder}: a model of the pipeline {facts.get('pipeline')!r}, made at {uri}, "
            f"which {self._root} knows nothing of; give that pipeline's output with --root"
        )

    def _pushed_versions(self) -> str:
        return _named(f"{push.version} ({push.folder})" for push in self._pushes)

    def of_model(self, model: Artifact) -> ModelLineage:
        made, *reused = self._rows.put_out([model.artifact_id])
        runs = {e.execution_id: e for e in self._executions([made, *reused])}
        run_id = runs[made.execution_id].run_id
        record = self._record(run_id)
        artifacts, executions = self._upstream(model.artifact_id)
        judgements = tuple(self._judgements(model, run_id))
        compared = {j.champion_id for j in judgements}
        pushes = self._pushes_of(model.artifact_id)
        return ModelLineage(
            model_id=model.artifact_id,
            uri=model.uri,
            is_there=model.is_live and Path(model.uri).is_dir(),
            run_id=run_id,
            trained_at=_utc(runs[made.execution_id].ended_ms),
            reused_by=tuple(runs[event.execution_id].run_id for event in reused),
            git_revision=record.git_revision if record else None,
            config_hash=record.config_hash if record else None,
            config=self._config(record),
            schemas=tuple(a.uri for a in artifacts.values() if a.type_name == "Schema"),
            data=tuple(self._data(artifacts, executions)),
            steps=tuple(self._steps(run_id)),
            judgements=judgements,
            champions=tuple(push for push in self._pushes if push.model_id in compared),
            pushes=pushes,
            damaged={
                push.folder: tuple(found)
                for push in pushes
                if push.is_there and (found := damaged(Path(push.folder)))
            },
        )

    def of_span(self, span: int) -> DataLineage:
        known = [origins.read_data(path) for path in origins.data_paths(self._root)]
        matching = {origin.fingerprint: origin for origin in known if origin.covers(span)}
        if not matching:
            raise LineageError(
                f"span {span}: no run in {self._root} read it; {_spans_there(known)}{self._but_unrecorded()}"
            )
        return self._seen(f"span {span}", lambda file: file.span == span, matching)

    def of_file(self, path: Path) -> DataLineage:
        """Who saw the file's content, wherever it lay; if nobody did, who read this path when it held another."""
        digest = file_digest(path)
        if matching := self._origins(digest, lambda file: file.sha256 == digest):
            others = self._origins(json.dumps(str(path)), lambda file: str(path) in file.paths).values()
            held = {f.sha256 for o in others for f in o.files if str(path) in f.paths} - {digest}
            return self._seen(
                f"file {path}", lambda file: file.sha256 == digest, matching, digest, tuple(sorted(held))
            )
        return self.of_path(path, digest)

    def of_path(self, path: Path, digest: str | None = None) -> DataLineage:
        """Who read a path, whatever it held; `digest` is that of its content now, None if there is nothing."""
        matching = self._origins(json.dumps(str(path)), lambda file: str(path) in file.paths)
        if not matching:
            raise LineageError(self._no_such_file(path))
        return self._seen(f"file {path}", lambda file: str(path) in file.paths, matching, digest)

    def of_content(self, digest: str) -> DataLineage:
        """Who saw a file with this SHA-256."""
        matching = self._origins(digest, lambda file: file.sha256 == digest)
        if not matching:
            raise LineageError(
                f"sha256:{digest}: no run in {self._root} read a file with this content{self._but_unrecorded()}"
            )
        return self._seen(f"content {digest}", lambda file: file.sha256 == digest, matching, digest)

    def _origins(self, needle: str, matches: _Matches) -> dict[str, DataOrigin]:
        """Data with a file that matches; the needle is text that its record has to hold."""
        # Parsing a thousand records takes longer than finding the few that matter.
        kept = origins.data_paths(self._root)
        known = [origins.read_data(p) for p in kept if needle in p.read_text(encoding="utf-8")]
        return {origin.fingerprint: origin for origin in known if any(map(matches, origin.files))}

    def _no_such_file(self, path: Path) -> str:
        what = (
            "no run read this path or this content"
            if path.exists()
            else "no such file, model or pushed version"
        )
        known = (origins.read_data(kept) for kept in origins.data_paths(self._root))
        read = dict.fromkeys(place for origin in known for file in origin.files for place in file.paths)
        return (
            f"{path}: {what} in {self._root}; files that were read: {_named(reversed(list(read)))}; "
            f"pushed were {self._pushed_versions()}{self._but_unrecorded()}"
        )

    def _but_unrecorded(self) -> str:
        runs = self._unrecorded(self._example_gens())
        return f"; what these runs read was not recorded: {_named(runs)}" if runs else ""

    def _seen(
        self,
        question: str,
        matches: _Matches,
        matching: Mapping[str, DataOrigin],
        digest: str | None = None,
        other_contents: tuple[str, ...] = (),
    ) -> DataLineage:
        found = (file for origin in matching.values() for file in origin.files if matches(file))
        example_gens = self._example_gens()
        readers = {number for number, fingerprint in example_gens.items() if fingerprint in matching}
        tainted = {event.artifact_id for event in self._rows.outputs_of(readers)}
        artifacts, executions = self._downstream(tainted)
        every = self._rows.executions([*readers, *executions])
        seen = self._rows.artifacts(artifacts)
        models = {number: a for number, a in seen.items() if a.type_name == _MODEL}
        judged = self._judged_on({n for n, a in seen.items() if a.type_name == _EXAMPLES}) - models.keys()
        return DataLineage(
            question=question,
            digest=digest,
            found=tuple(dict.fromkeys(found)),
            other_contents=other_contents,
            readers=tuple(self._readers(readers, every, models)),
            models=self._with_pushes(models),
            judged=self._with_pushes(self._rows.artifacts(judged)),
            unrecorded=self._unrecorded(example_gens),
        )

    def _example_gens(self) -> dict[int, str | None]:
        """Executions that read data or found them in the cache, with the data's fingerprint."""
        examples = self._rows.artifacts_of_type(_EXAMPLES)
        makers = {event.execution_id for event in self._rows.put_out(examples)}
        # Examples that were made of others, such as a Transform's, are no data that somebody delivered.
        sources = makers - {event.execution_id for event in self._rows.inputs_of(makers)}
        texts = self._rows.texts_of_executions(sources, origins.PARAMETERS)
        return {number: origins.fingerprint_of(texts.get(number, {})) for number in sources}

    def _unrecorded(self, example_gens: Mapping[int, str | None]) -> tuple[str, ...]:
        """Runs that read data of which no record was kept, the newest first."""
        kept = {origins.fingerprint_at(path) for path in origins.data_paths(self._root)}
        lost = [number for number, fingerprint in example_gens.items() if fingerprint not in kept]
        return tuple(execution.run_id for execution in reversed(self._rows.executions(lost).values()))

    def _readers(
        self, readers: Collection[int], every: Mapping[int, Execution], models: Collection[int]
    ) -> Iterator[Reader]:
        made: dict[str, set[int]] = {}
        put_out = self._rows.put_out(models)
        runs = {**every, **self._rows.executions({event.execution_id for event in put_out} - every.keys())}
        for event in put_out:
            made.setdefault(runs[event.execution_id].run_id, set()).add(event.artifact_id)
        failed: dict[str, list[str]] = {}
        for execution in every.values():
            if execution.state == "FAILED":
                failed.setdefault(execution.run_id, []).append(execution.node_id)
        for number in sorted(readers, reverse=True):
            run_id = every[number].run_id
            yield Reader(
                run_id=run_id,
                from_cache=every[number].state == "CACHED",
                failed_nodes=tuple(failed.get(run_id, ())),
                model_ids=tuple(sorted(made.get(run_id, ()))),
            )

    def _judged_on(self, examples: Collection[int]) -> set[int]:
        """Models that went into the same executions as these examples, such as champions into gates."""
        inputs = self._rows.inputs_of({event.execution_id for event in self._rows.uses_of(examples)})
        return {event.artifact_id for event in inputs if event.key in (_CANDIDATE_KEY, *_CHAMPION_KEYS)}

    def _with_pushes(self, models: Mapping[int, Artifact]) -> tuple[SeenBy, ...]:
        makers = _first(self._rows.put_out(models))
        executions = self._rows.executions({event.execution_id for event in makers.values()})
        pushes: dict[int, list[Push]] = {}
        for push in self._pushes:
            pushes.setdefault(push.model_id, []).append(push)
        return tuple(
            SeenBy(
                model_id=number,
                uri=models[number].uri,
                run_id=executions[makers[number].execution_id].run_id,
                trained_at=_utc(executions[makers[number].execution_id].ended_ms),
                pushes=tuple(pushes.get(number, ())),
            )
            for number in sorted(models, reverse=True)
        )

    def _upstream(self, artifact_id: int) -> tuple[dict[int, Artifact], dict[int, Execution]]:
        """Everything that an artifact is made of, and the executions that made it."""
        artifacts, executions, frontier = {artifact_id}, set[int](), {artifact_id}
        while frontier:
            makers = {e.execution_id for e in _first(self._rows.put_out(frontier)).values()} - executions
            executions |= makers
            frontier = {event.artifact_id for event in self._rows.inputs_of(makers)} - artifacts
            artifacts |= frontier
        return self._rows.artifacts(artifacts), self._rows.executions(executions)

    def _downstream(self, artifacts: Collection[int]) -> tuple[set[int], set[int]]:
        """Everything that was made of artifacts, and all executions that they went into."""
        seen, executions, frontier = set(artifacts), set[int](), set(artifacts)
        while frontier:
            users = {event.execution_id for event in self._rows.uses_of(frontier)} - executions
            executions |= users
            frontier = {event.artifact_id for event in self._rows.outputs_of(users)} - seen
            seen |= frontier
        return seen, executions

    def _data(self, artifacts: Mapping[int, Artifact], executions: Mapping[int, Execution]) -> Iterator[Data]:
        examples = {number: a for number, a in artifacts.items() if a.type_name == _EXAMPLES}
        fed = {event.execution_id for event in self._rows.inputs_of(executions)}
        sources = {
            event.execution_id
            for event in self._rows.outputs_of(executions.keys() - fed)
            if event.artifact_id in examples
        }
        texts = self._rows.texts_of_executions(sources, origins.PARAMETERS)
        rows = self._row_counts(examples)
        for source in sorted(sources):
            fingerprint = origins.fingerprint_of(texts.get(source, {}))
            path = origins.data_path(self._root, fingerprint) if fingerprint else None
            outputs = (event.artifact_id for event in self._rows.outputs_of([source]))
            yield Data(
                fingerprint=fingerprint,
                examples=tuple(examples[number].uri for number in outputs if number in examples),
                origin=origins.read_data(path) if path and path.exists() else None,
                rows=rows,
            )

    def _row_counts(self, examples: Collection[int]) -> dict[str, int]:
        """Rows by split, from the statistics of the examples that were made last."""
        users = {event.execution_id for event in self._rows.uses_of(examples)}
        outputs = {event.artifact_id for event in self._rows.outputs_of(users)}
        statistics = [a for a in self._rows.artifacts(outputs).values() if a.type_name == _STATISTICS]
        return _row_counts(Path(statistics[-1].uri)) if statistics else {}

    def _steps(self, run_id: str) -> Iterator[Step]:
        executions = self._rows.executions_of_run(run_id)
        outputs = self._rows.outputs_of(executions)
        makers = _first(self._rows.put_out({event.artifact_id for event in outputs}))
        really = {event.execution_id: makers[event.artifact_id].execution_id for event in outputs}
        made = self._rows.executions({*executions, *really.values()})
        texts = self._rows.texts_of_executions(made, ("source_digest", "custom_config"))
        revisions: dict[str, str | None] = {}
        for number, execution in executions.items():
            maker = made[really.get(number, number)]
            if maker.run_id not in revisions:
                record = self._record(maker.run_id)
                revisions[maker.run_id] = record.git_revision if record else None
            yield Step(
                node_id=execution.node_id,
                execution_id=maker.execution_id,
                run_id=maker.run_id,
                state=execution.state,
                seconds=(maker.ended_ms - maker.started_ms) / 1000,
                git_revision=revisions[maker.run_id],
                source_digest=_source_digest(texts.get(maker.execution_id, {})),
            )

    def _judgements(self, model: Artifact, run_id: str) -> Iterator[Judgement]:
        """The gates that the model went into, in any run, and those of the run that trained it."""
        uses = self._rows.uses_of([model.artifact_id])
        judging = {event.execution_id for event in uses if event.key == _CANDIDATE_KEY}
        executions = self._rows.executions(judging | self._rows.executions_of_run(run_id).keys())
        inputs = self._rows.inputs_of(executions)
        champions = {event.execution_id: event.artifact_id for event in inputs if event.key in _CHAMPION_KEYS}
        outputs = self._rows.outputs_of(executions)
        artifacts = self._rows.artifacts({event.artifact_id for event in outputs})
        for number, execution in executions.items():
            put_out = [artifacts[event.artifact_id] for event in outputs if event.execution_id == number]
            if (said := self._said(execution, put_out)) is not None:
                passed, verdicts = said
                yield Judgement(execution.run_id, execution.node_id, passed, champions.get(number), verdicts)

    def _said(
        self, execution: Execution, put_out: Iterable[Artifact]
    ) -> tuple[bool, tuple[Verdict, ...]] | None:
        """Whether a gate let pass, with its verdicts; None where the execution is no gate's."""
        by_type = {artifact.type_name: artifact for artifact in put_out}
        verdict, blessing = by_type.get(_VERDICT), by_type.get(_BLESSING)
        if verdict is None and blessing is None:
            refused = self._root / "runs" / execution.run_id / "refused" / execution.node_id
            verdicts = _verdicts(refused) if execution.state == "FAILED" else ()
            return (False, verdicts) if verdicts else None
        verdicts = _verdicts(Path(verdict.uri)) if verdict else ()
        if blessing is not None:
            return blessing.properties.get("blessed") == 1, verdicts
        return all(v.passed for v in verdicts), verdicts

    def _pushes_of(self, model_id: int) -> tuple[Push, ...]:
        return tuple(push for push in self._pushes if push.model_id == model_id)

    def _executions(self, events: Iterable[Event]) -> Iterable[Execution]:
        return self._rows.executions({event.execution_id for event in events}).values()

    def _record(self, run_id: str) -> RunRecord | None:
        """The record of a run, unless somebody made the folder forget it."""
        known = (RootFolder(self._root).run_path(run_id) / "run.json").exists()
        return load_run(self._root, run_id) if known else None

    def _config(self, record: RunRecord | None) -> Mapping[str, Any] | None:
        if record is None or record.config_hash is None:
            return None
        path = origins.config_path(self._root, record.config_hash)
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _pushes(rows: MetadataRows) -> Iterator[Push]:
    """All pushes, oldest first."""
    pushed = {
        number: artifact
        for number, artifact in rows.artifacts_of_type(_PUSHED_MODEL).items()
        if artifact.properties.get(DESTINATION)
    }
    makers = _first(rows.put_out(pushed))
    executions = rows.executions({event.execution_id for event in makers.values()})
    inputs = rows.inputs_of(executions)
    models = {event.execution_id: event.artifact_id for event in inputs if event.key == _CANDIDATE_KEY}
    newest: dict[Path, int | None] = {}
    for number, artifact in pushed.items():
        maker = executions[makers[number].execution_id]
        folder = Path(str(artifact.properties[DESTINATION]))
        if folder.parent not in newest:
            newest[folder.parent] = next(reversed(versions(folder.parent)), None)
        yield Push(
            version=int(folder.name),
            folder=str(folder),
            model_id=models[maker.execution_id],
            run_id=maker.run_id,
            pushed_at=_utc(artifact.created_ms),
            is_serving=newest[folder.parent] == int(folder.name),
            is_there=folder.is_dir(),
        )


def _first(events: Iterable[Event]) -> dict[int, Event]:
    """Of who put artifacts out, the one who made each: the first; later ones took it from the cache."""
    makers: dict[int, Event] = {}
    for event in events:
        makers.setdefault(event.artifact_id, event)
    return makers


def _source_digest(parameters: Mapping[str, str]) -> str | None:
    if "source_digest" in parameters:
        return parameters["source_digest"]
    found = re.search(r'"source_digest": "([0-9a-f]+)"', parameters.get("custom_config", ""))
    return found[1] if found else None


def _row_counts(statistics: Path) -> dict[str, int]:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    counts = {}
    for path in sorted(statistics.glob("Split-*/FeatureStats.pb")):
        found = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()).datasets
        # One entry a slice, all rows first; an empty split may have none.
        counts[path.parent.name.removeprefix("Split-")] = int(found[0].num_examples) if found else 0
    return counts


def _verdicts(folder: Path) -> tuple[Verdict, ...]:
    path = folder / "verdict.json"
    if not path.exists():
        return ()
    return tuple(Verdict.from_json(entry) for entry in json.loads(path.read_text(encoding="utf-8")))


def _spans_there(known: Iterable[DataOrigin]) -> str:
    spans: set[int] = set()
    for origin in known:
        if origin.first_span is not None and origin.last_span is not None:
            in_files = {file.span for file in origin.files if file.span is not None}
            spans |= in_files or set(range(origin.first_span, origin.last_span + 1))
    return f"spans that were read: {_named(map(str, sorted(spans, reverse=True)))}"


def _named(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return (", ".join(every[:_MOST_NAMED]) or "none") + more


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
