"""The day a bad batch is found: which models saw it. And the other way: what made this model."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import lineage
from pipeline.config import load
from pipeline.lineage import LineageError
from pipeline.lineage_answers import DataLineage, ModelLineage
from pipeline.metadata_rows import MetadataReadError
from pipeline.runners import fork_server, local
from pipeline.runners.records import RunRecord

_CONFIG = """
name: daily
data:
  source: {kind: query, tables: {rows: "rows-{SPAN}.csv", towns: towns.csv}, sql: rows.sql}
  split: {by: hash, columns: [id], validation_fraction: 0.3, test_fraction: 0.3}
  span: {last: latest, window: 2}
label: {column: sold}
output: output
"""


@dataclass(frozen=True)
class Daily:
    """A pipeline on daily files and the runs it has made, by name."""

    folder: Path
    runs: dict[str, RunRecord]

    @property
    def root(self) -> Path:
        return self.folder / "output"

    def file(self, span: int) -> Path:
        return self.folder / f"rows-{span}.csv"

    def deliver(self, span: int) -> None:
        rows = "".join(f"{100 * span + row},{row % 2}\n" for row in range(60))
        self.file(span).write_text(f"id,sold\n{rows}")

    def run(self, name: str, seed: int = 0, refuses: int = 0) -> None:
        config = str(self.folder / "pipeline.yaml")
        spec = local.RunSpec(
            root=self.root,
            name="daily",
            factory="tests.pipeline.spanned_pipeline:build",
            factory_kwargs={"config_file": config, "seed": seed, "refuses": refuses},
            config_hash=load(config).digest(),
        )
        self.runs[name] = local.run(spec)

    def model(self, name: str) -> int:
        [output] = [o for o in self.runs[name].nodes["Trainer"].outputs if o.key == "model"]
        return output.artifact_id

    def names(self, run_ids: list[str]) -> list[str]:
        by_id = {record.run_id: name for name, record in self.runs.items()}
        return [by_id[run_id] for run_id in run_ids]

    def ask(self, what: str | Path) -> DataLineage:
        found = lineage.ask(self.root, str(what))
        assert isinstance(found, DataLineage)
        return found

    def ask_model(self, what: str | Path) -> ModelLineage:
        found = lineage.ask(self.root, str(what))
        assert isinstance(found, ModelLineage)
        return found


@pytest.fixture(scope="module")
def daily(tmp_path_factory: pytest.TempPathFactory) -> Daily:
    """Five runs: clean; with the bad span 2; from the cache of that; a refused one; and one without span 2."""
    fork_server.start()
    daily = Daily(tmp_path_factory.mktemp("daily"), {})
    (daily.folder / "pipeline.yaml").write_text(_CONFIG)
    (daily.folder / "rows.sql").write_text("SELECT rows.* FROM rows, towns")
    (daily.folder / "towns.csv").write_text("town\nOld Town\n")
    daily.deliver(1)
    daily.run("before")
    daily.deliver(2)
    daily.run("bad")
    daily.run("from cache", seed=1)
    daily.run("refused", seed=2, refuses=1)
    daily.file(2).unlink()
    daily.deliver(3)
    daily.run("after")
    return daily


def test_a_bad_file_names_exactly_the_models_that_saw_it_also_through_the_cache(daily: Daily) -> None:
    found = daily.ask(daily.file(2))
    assert [model.model_id for model in found.models] == [
        daily.model("refused"),
        daily.model("from cache"),
        daily.model("bad"),
    ]
    assert [[push.version for push in model.pushes] for model in found.models] == [[], [3], [2]]
    assert not any(model.is_serving for model in found.models)


def test_the_runs_that_read_it_are_told_with_what_became_of_them(daily: Daily) -> None:
    readers = daily.ask("span:2").readers
    assert daily.names([reader.run_id for reader in readers]) == ["refused", "from cache", "bad"]
    assert [reader.from_cache for reader in readers] == [True, True, False]
    assert [reader.failed_nodes for reader in readers] == [("Gate",), (), ()]


def test_a_champion_that_was_judged_on_the_data_but_not_trained_is_told_apart(daily: Daily) -> None:
    assert [model.model_id for model in daily.ask("span:2").judged] == [daily.model("before")]


def test_what_serves_now_is_said(daily: Daily) -> None:
    found = daily.ask("span:3")
    assert [(model.model_id, model.is_serving) for model in found.models] == [(daily.model("after"), True)]


def test_a_table_without_spans_was_seen_by_all(daily: Daily) -> None:
    assert len(daily.ask(daily.folder / "towns.csv").models) == 5


def test_a_file_is_known_by_its_content_wherever_it_lies(daily: Daily, tmp_path: Path) -> None:
    copy = shutil.copyfile(daily.file(3), tmp_path / "attachment.csv")
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    for what in (copy, f"sha256:{digest}"):
        assert [model.model_id for model in daily.ask(what).models] == [daily.model("after")]


def test_runs_whose_data_were_not_recorded_are_named_as_in_doubt(daily: Daily, tmp_path: Path) -> None:
    assert daily.ask("span:2").unrecorded == ()
    root = tmp_path / "output"
    shutil.copytree(daily.root, root)
    for record in (root / "plans").glob("*.data.json"):
        if "rows-2.csv" not in record.read_text():
            record.unlink()
    found = lineage.ask(root, "span:2")
    assert isinstance(found, DataLineage)
    assert daily.names(list(found.unrecorded)) == ["after", "before"]
    with pytest.raises(LineageError, match="what these runs read was not recorded"):
        lineage.ask(root, "span:3")


def test_a_path_that_holds_something_else_now_names_what_it_held(daily: Daily) -> None:
    daily.file(2).write_text("id,sold\n1,0\n")
    try:
        found = daily.ask(daily.file(2))
    finally:
        daily.file(2).unlink()
    [file] = found.found
    assert file.sha256 != found.digest
    assert daily.model("bad") in [model.model_id for model in found.models]


def test_a_pushed_version_names_its_data_with_digests_run_config_and_pushes(daily: Daily) -> None:
    found = daily.ask_model("2")
    assert found.model_id == daily.model("bad")
    assert daily.names([found.run_id]) == ["bad"]
    [data] = found.data
    assert data.origin is not None
    assert [(f.table, f.span, Path(f.paths[0]).name) for f in data.origin.files] == [
        ("rows", 1, "rows-1.csv"),
        ("rows", 2, "rows-2.csv"),
        ("towns", None, "towns.csv"),
    ]
    assert data.origin.files[0].sha256 == hashlib.sha256(daily.file(1).read_bytes()).hexdigest()
    assert data.origin.sql == "SELECT rows.* FROM rows, towns"
    assert found.config is not None
    assert found.config["data"]["span"] == {"last": "latest", "window": 2}
    assert [(push.version, push.is_serving) for push in found.pushes] == [(2, False)]
    assert [push.version for push in found.champions] == [1]
    assert [(j.node_id, j.passed) for j in found.judgements] == [("Gate", True)]


def test_a_model_from_the_cache_has_steps_of_the_run_that_executed_them(daily: Daily) -> None:
    steps = {step.node_id: step for step in daily.ask_model("3").steps}
    assert daily.names([steps["QueryExampleGen"].run_id, steps["Trainer"].run_id]) == ["bad", "from cache"]


def test_a_refused_model_is_asked_by_its_artifact_and_tells_the_refusal(daily: Daily) -> None:
    found = daily.ask_model(f"model:{daily.model('refused')}")
    assert found.pushes == ()
    [judgement] = found.judgements
    assert not judgement.passed
    assert [verdict.reason for verdict in judgement.verdicts] == ["the model is bland"]


@pytest.mark.parametrize("place", ["{root}/serving/2", "{uri}", "{uri}/Format-Serving", "{copy}"])
def test_a_model_is_found_by_any_of_its_folders_and_by_a_copy(
    daily: Daily, tmp_path: Path, place: str
) -> None:
    copy = shutil.copytree(daily.root / "serving" / "2", tmp_path / "elsewhere")
    [uri] = daily.runs["bad"].nodes["Trainer"].uris("model")
    found = daily.ask_model(place.format(root=daily.root, uri=uri, copy=copy))
    assert found.model_id == daily.model("bad")


def test_a_pushed_version_that_was_tampered_with_is_said(daily: Daily) -> None:
    file = daily.root / "serving" / "1" / "saved_model.pb"
    before = file.read_text()
    file.write_text("another model")
    try:
        found = daily.ask_model("1")
    finally:
        file.write_text(before)
    assert found.damaged == {str(file.parent): ("saved_model.pb",)}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("9", r"9: no version of this number was pushed .*pushed were 1 \(.*serving/1\), 2"),
        ("span:9", "span 9: no run in .* read it; spans that were read: 3, 2, 1"),
        ("span:x", "'x': want the number of a span"),
        ("model:1", "model:1: no such model in .*; artifact 1 is of the kind Examples; models are 2"),
        ("nowhere.csv", r"no such file, model or pushed version .* files that were read: .*towns\.csv"),
        ("sha256:00", "no run in .* read a file with this content"),
    ],
)
def test_what_is_not_there_is_answered_with_what_there_is(daily: Daily, what: str, message: str) -> None:
    with pytest.raises(LineageError, match=message):
        lineage.ask(daily.root, what)


def test_a_model_that_was_not_made_here_is_said_to_be_so(daily: Daily, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_text("a stranger")
    with pytest.raises(LineageError, match=r"a model that was not made here: it has no manifest\.json"):
        lineage.ask(daily.root, str(tmp_path))


def test_a_store_of_another_version_is_refused(daily: Daily, tmp_path: Path) -> None:
    with pytest.raises(MetadataReadError, match="nothing has run in this folder yet"):
        lineage.ask(tmp_path, "1")
    store = shutil.copyfile(daily.root / "metadata.sqlite", tmp_path / "metadata.sqlite")
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE MLMDEnv SET schema_version = 11")
    with pytest.raises(MetadataReadError, match="of version 11; this Headworks reads version 10"):
        lineage.ask(tmp_path, "1")
    store.write_text("not a database, but long enough to be looked at")
    with pytest.raises(MetadataReadError, match="not a database"):
        lineage.ask(tmp_path, "1")
