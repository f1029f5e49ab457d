import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tfx.components.util import examples_utils
from tfx.types import artifact_utils, standard_artifacts

from ingest.errors import DataError
from ingest.locations import Spans, Table
from ingest.plan import Plan, fingerprint, save
from ingest.splits import SPLITS, HashSplit
from pipeline.components.query_example_gen import Executor, QueryExampleGen

ROWS = 400
EMPTY = "pickup_census_tract"
"""A column without a value in any row, which the stock component lets pass."""


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """The first rows of the taxi data that ships with TFX: numbers, texts and many missing values."""
    spec = importlib.util.find_spec("tfx.components")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], "testdata", "external", "csv", "data.csv")
    path = tmp_path / "csv" / "taxi.csv"
    path.parent.mkdir()
    with source.open() as lines:
        path.write_text("".join(itertools.islice(lines, ROWS + 1)))
    return path


@pytest.fixture
def plan(csv: Path) -> Plan:
    sql = f"SELECT * EXCLUDE ({EMPTY}) FROM trips"
    return Plan((Table("trips", (csv,)),), sql, "taxi.sql", HashSplit(("fare", "trip_miles"), 0.2, 0.2))


def run(plan: Plan, folder: Path, digest: str | None = None) -> standard_artifacts.Examples:
    digest = digest or fingerprint(plan)
    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    properties = {
        "plan": str(save(plan, folder / "plans", digest)),
        "fingerprint": digest,
        "source_digest": "x",
    }
    Executor().Do({}, {"examples": [examples]}, properties)
    return examples


def rows(examples: Any, *splits: str) -> list[tuple[tuple[str, str], ...]]:
    """Every row as sorted (feature, values) pairs, decoded as StatisticsGen does.

    A missing text is an empty list in the stock component's records; ours have no value, as both have
    for a missing number.
    """
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    folders = [Path(artifact_utils.get_split_uri([examples], split)) for split in splits]
    files = [str(path) for folder in folders for path in folder.iterdir()]
    records = list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())
    return sorted(
        tuple(sorted((name, repr(value or [])) for name, value in row.items() if name != EMPTY))
        for row in ExamplesToRecordBatchDecoder().DecodeBatch(records).to_pylist()
    )


def run_stock(csv: Path, folder: Path) -> standard_artifacts.Examples:
    from tfx.components.example_gen.csv_example_gen.executor import Executor as StockExecutor
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    properties = {
        "input_base": str(csv.parent),
        "input_config": '{"splits": [{"name": "all", "pattern": "*.csv"}]}',
        "output_config": "{}",
        "output_data_format": 6,
        "output_file_format": 5,
    }
    context = BaseBeamExecutor.Context(beam_pipeline_args=["--runner=FnApiRunner"])
    StockExecutor(context).Do({}, {"examples": [examples]}, properties)
    return examples


def test_the_examples_are_those_of_csv_example_gen(csv: Path, plan: Plan, tmp_path: Path) -> None:
    ours, stock = run(plan, tmp_path), run_stock(csv, tmp_path / "stock")

    assert len(rows(ours, *SPLITS)) == ROWS
    assert rows(ours, *SPLITS) == rows(stock, "all")
    for describe in (examples_utils.get_payload_format_string, examples_utils.get_file_format):
        assert describe(ours) == describe(stock)


def test_the_artifact_says_what_it_holds(plan: Plan, tmp_path: Path) -> None:
    examples = run(replace(plan, spans=Spans(3, 7)), tmp_path)

    assert artifact_utils.decode_split_names(examples.split_names) == list(SPLITS)
    assert examples.span == examples.get_int_custom_property("span") == 7
    assert examples.get_string_custom_property("input_fingerprint")


def test_data_that_changed_after_planning_is_refused(csv: Path, plan: Plan, tmp_path: Path) -> None:
    digest = fingerprint(plan)
    csv.write_text(csv.read_text().replace("Cash", "Coin"))

    with pytest.raises(DataError, match=r"the data changed .*taxi\.csv.*run again"):
        run(plan, tmp_path, digest)
    assert not (tmp_path / "examples").exists()


def test_the_parameters_name_no_data_file(plan: Plan, tmp_path: Path) -> None:
    digest = fingerprint(plan)
    component = QueryExampleGen(str(save(plan, tmp_path, digest)), digest, "source")

    assert component.exec_properties == {
        "plan": str(tmp_path / f"{digest}.json"),
        "fingerprint": digest,
        "source_digest": "source",
    }
