"""Settings in several files: what is merged, what is replaced, and which line is told."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pipeline.config import load
from pipeline.layers import ConfigError, Layer, Read, read


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Bound:
    metric: str
    min: float | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Source:
    kind: str
    sql: str
    tables: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Settings:
    source: Source
    epochs: int = 1
    bounds: tuple[Bound, ...] = ()


BASE = """\
epochs: 2
source:
  kind: files
  sql: base.sql
  tables: {a: a.csv, b: b.csv}
bounds:
  - {metric: auc, min: 0.5}
"""

Files = Callable[..., Read[Settings]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Reads texts as layers: `0.yaml` below, `1.yaml` above it, and so on."""

    def of(*texts: str, overrides: tuple[str, ...] = ()) -> Read[Settings]:
        layers = []
        for number, text in enumerate(texts):
            layers.append(Layer(tmp_path / f"{number}.yaml"))
            layers[-1].path.write_text(text)
        return read(Settings, layers, overrides)

    return of


def refused(files: Files, *texts: str, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        files(*texts, **more)
    return str(caught.value)


def test_groups_merge_key_by_key_and_lists_are_replaced(files):
    found = files(BASE, "source: {tables: {b: other.csv}}\nbounds: []\n").value
    assert found.source == Source("files", "base.sql", {"a": "a.csv", "b": "other.csv"})
    assert (found.epochs, found.bounds) == (2, ())


def test_a_group_of_another_kind_is_replaced_whole(files):
    found = files(BASE, "source: {kind: cloud, sql: cloud.sql}\n", "source: {tables: {c: c}}\n").value
    assert found.source == Source("cloud", "cloud.sql", {"c": "c"})


def test_the_same_kind_said_again_merges(files):
    assert files(BASE, "source: {kind: files, sql: other.sql}\n").value.source.tables == {
        "a": "a.csv",
        "b": "b.csv",
    }


def test_the_line_told_is_that_of_the_last_file_that_sets_the_key(files, tmp_path):
    lines = files(
        BASE,
        "# why\nepochs: 3\nsource: {sql: x.sql}\n",
        "source: {tables: {a: z.csv}}\n",
        overrides=("bounds=[]",),
    ).lines
    assert lines["epochs"] == f"{tmp_path}/1.yaml:2"
    assert lines["source.kind"] == f"{tmp_path}/0.yaml:3"
    assert lines["source.sql"] == f"{tmp_path}/1.yaml:3"
    assert lines["source.tables.a"] == f"{tmp_path}/2.yaml:1"
    assert lines["source.tables.b"] == f"{tmp_path}/0.yaml:5"
    assert lines["bounds"] == "--set bounds=[]"


def test_what_was_replaced_is_not_blamed(files, tmp_path):
    # Both files below say `sql` or `metric`, and are right; what stands above them lacks it.
    assert f"source.sql: missing; this key is required ({tmp_path}/1.yaml:2)" in refused(
        files, BASE, "epochs: 3\nsource: {kind: cloud}\n"
    )
    assert f"bounds.0.metric: missing; this key is required ({tmp_path}/1.yaml:2)" in refused(
        files, BASE, "bounds:\n  - {min: 0.7}\n"
    )


def test_a_fault_below_is_told_where_it_stands(files, tmp_path):
    assert f"epoch: unknown key; did you mean epochs? ({tmp_path}/0.yaml:1)" in refused(
        files, BASE.replace("epochs", "epoch"), "source: {sql: x.sql}\n"
    )


def test_every_layer_must_be_a_group_of_keys(files, tmp_path):
    assert f"{tmp_path}/1.yaml: the file must hold keys and values, not list" in refused(files, BASE, "- a\n")
    assert f"{tmp_path}/1.yaml: the file is empty" in refused(files, BASE, "# nothing\n")


def test_a_group_of_a_file_is_a_layer_and_its_lines_are_those_of_that_file(tmp_path):
    config, environment, silent = (tmp_path / name for name in ("pipeline.yaml", "prod.yaml", "base.yaml"))
    config.write_text("name: shop\ndata: {source: {kind: csv, folder: data}}\nlabel: {column: y}\n")
    silent.write_text("retries: 2\n")
    environment.write_text("retries: 3\nconfig:\n  data:\n    split: {by: folder}\n  label: {columm: z}\n")
    layers = (Layer(silent, "config"), Layer(environment, "config"))
    with pytest.raises(
        ConfigError, match=rf"label\.columm: unknown key; did you mean column\? \({environment}:5\)"
    ):
        load(config, layers=layers)
    environment.write_text(environment.read_text().replace("columm", "column"))
    project = load(config, ["label.column=w"], layers)
    assert project.config.label.column == "w", "the command line decides"
    assert project.place("data.split.by") == f"{environment}:4"
    environment.write_text("config: nothing\n")
    with pytest.raises(ConfigError, match=rf"config: 'nothing' is a str; it must be a group .*{environment}"):
        load(config, layers=layers)
