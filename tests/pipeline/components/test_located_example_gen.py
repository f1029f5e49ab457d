"""A compiled pipeline reads the rows that a local run reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from ingest.errors import DataError
from ingest.plan import fingerprint, save
from pipeline import data_plan
from pipeline.components import located_example_gen, query_example_gen
from pipeline.components.located_example_gen import AS_CONFIGURED, packed
from pipeline.config import ConfigError, load
from pipeline.mounts import MOUNTS, MountError
from tests.shop import HEADER, ROWS, Shop, text


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """The shop, whose table is named by an absolute path."""
    shop = Shop(tmp_path / "shop")
    shop.edit("pipeline.yaml", "orders: orders.csv", f"orders: {shop.orders}")
    return shop


@pytest.fixture
def days(shop: Shop) -> Shop:
    """The shop with a file of a hundred rows for each of three spans."""
    for span in (1, 2, 3):
        (shop.folder / f"orders-{span}.csv").write_text(text(HEADER, ROWS[100 * span - 100 : 100 * span]))
    shop.edit("pipeline.yaml", f"{shop.orders}", f"'{shop.folder}/orders-{{SPAN}}.csv'")
    shop.edit("pipeline.yaml", "  split:", "  span: {window: 2}\n  split:")
    shop.edit(
        "pipeline.yaml",
        "by: time, column: bought, validation_from: 2024-01-13, test_from: 2024-01-17",
        "by: hash, columns: [id], validation_fraction: 0.2, test_fraction: 0.2",
    )
    return shop


def local(shop: Shop, folder: Path, *overrides: str) -> standard_artifacts.Examples:
    """As a run on this machine reads."""
    plan = data_plan.plan(load(shop.config, overrides))
    digest = fingerprint(plan)
    properties = {
        "plan": str(save(plan, folder / "plans", digest)),
        "fingerprint": digest,
        "source_digest": "",
    }
    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "local")
    query_example_gen.Executor().Do({}, {"examples": [examples]}, properties)
    return examples


def located(source: str, folder: Path, span: int | None = None) -> standard_artifacts.Examples:
    """As a container reads."""
    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "located")
    properties = {"source": source, "source_digest": "", **({} if span is None else {"span": span})}
    located_example_gen.Executor().Do({}, {"examples": [examples]}, properties)
    return examples


def records(examples: standard_artifacts.Examples) -> dict[str, list[bytes]]:
    """Every record by split, as it was written."""
    import tensorflow as tf

    return {
        folder.name: [
            bytes(record)
            for file in sorted(folder.iterdir())
            for record in tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator()
        ]
        for folder in Path(examples.uri).iterdir()
    }


def described(examples: standard_artifacts.Examples) -> str:
    """All that the artifact says, but where it is."""
    examples.uri = ""
    return str(examples.mlmd_artifact)


def test_its_rows_are_those_of_a_local_run(shop, tmp_path):
    source = packed(load(shop.config))
    ours, theirs = located(source, tmp_path), local(shop, tmp_path)
    assert records(ours) == records(theirs)
    assert {name: len(rows) for name, rows in records(ours).items()} == {
        "Split-train": 180,
        "Split-validation": 60,
        "Split-test": 60,
    }
    assert described(ours) == described(theirs), "the fingerprint, too"


@pytest.mark.parametrize(
    ("span", "override", "newest"),
    [
        (2, "data.span.last=2", 2),
        (AS_CONFIGURED, "data.span.last=latest", 3),
        (None, "data.span.last=latest", 3),
    ],
)
def test_a_run_may_say_which_span_is_the_newest(days, tmp_path, span, override, newest):
    ours = located(packed(load(days.config)), tmp_path, span)
    theirs = local(days, tmp_path, override)
    assert sum(len(rows) for rows in records(ours).values()) == 200
    assert records(ours) == records(theirs)
    assert ours.span == newest
    assert described(ours) == described(theirs)


def test_it_needs_nothing_that_lies_beside_the_configuration(shop, tmp_path):
    project = load(shop.config)
    source = packed(project)
    orders = tmp_path / "elsewhere.csv"
    shutil.move(shop.orders, orders)
    shutil.rmtree(shop.folder)
    assert str(shop.config) not in source
    assert records(located(source.replace(str(shop.orders), str(orders)), tmp_path))["Split-test"]


def test_a_table_in_a_bucket_is_read_where_the_bucket_is_mounted(shop, tmp_path, monkeypatch):
    theirs = local(shop, tmp_path)
    (tmp_path / "gcs" / "b").mkdir(parents=True)
    shutil.copy(shop.orders, tmp_path / "gcs" / "b" / "orders.csv")
    source = packed(load(shop.config, ["data.source.tables.orders=gs://b/orders.csv"]))
    with pytest.raises(MountError, match=r"^gs://b/orders\.csv: the bucket is not mounted at /gcs/b"):
        located(source, tmp_path)
    monkeypatch.setitem(MOUNTS, "gs://", f"{tmp_path}/gcs/")
    assert records(located(source, tmp_path)) == records(theirs)


def test_equal_configurations_are_packed_alike_and_other_rows_otherwise(shop, tmp_path):
    source = packed(load(shop.config))
    copy = Shop(tmp_path / "copy")
    moved = packed(load(copy.config, [f"data.source.tables.orders={shop.orders}", "train.epochs=9"]))
    assert moved == source, "neither the folder nor what comes later matters"
    shop.edit("orders.sql", "FROM orders", "FROM orders WHERE id < 200")
    assert packed(load(shop.config)) != source
    assert "id < 200" in json.loads(packed(load(shop.config)))["sql"]


def test_a_table_beside_the_configuration_is_refused(tmp_path):
    shop = Shop(tmp_path / "shop")
    with pytest.raises(
        ConfigError, match=rf"^data\.source\.tables\.orders: orders\.csv is beside .*{shop.config}:5"
    ):
        packed(load(shop.config))


def test_data_that_is_not_there_is_told(shop, tmp_path):
    source = packed(load(shop.config))
    shop.orders.unlink()
    with pytest.raises(DataError, match="orders"):
        located(source, tmp_path)
