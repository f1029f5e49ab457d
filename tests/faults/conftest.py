from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def taxi_project():
    from pipeline.config import load
    from tests.taxi import EXAMPLE

    return load(EXAMPLE)


@pytest.fixture(scope="session")
def schema(taxi_project):
    from schemas.features import load_schema

    return load_schema(str(taxi_project.schema_file))


@pytest.fixture(scope="session")
def rows(first_run, schema):
    """The taxi example's rows by split, as its first run read them."""
    from tests.faults.data_bench import SPLITS, read_examples

    examples: Path = first_run.output("QueryExampleGen", "examples")
    return {split: read_examples(examples / f"Split-{split}", schema) for split in SPLITS}


@pytest.fixture(scope="session")
def known_statistics():
    """Of the frames that tests share: each is counted once, though many tests are about it."""
    return {}


@pytest.fixture
def data_gate(taxi_project, schema, tmp_path, monkeypatch, known_statistics):
    """The real data gate, with the settings of the example and fewer rows for its quick models."""
    from tests.faults.data_bench import DataBench

    overrides = taxi_project.config.overrides
    return DataBench(tmp_path, schema, taxi_project.feature_set(), overrides, monkeypatch, known_statistics)
