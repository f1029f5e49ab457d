"""Tables and queries read through the Storage Read API of an emulator, by the real client."""

from dataclasses import replace

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from cloud.bigquery import BigQueryError, TableName
from cloud.bigquery_source import ReadBatches, Reading

ROWS = 30_000
"""More than a megabyte: smaller tables come in one stream."""


@pytest.fixture
def table(emulator, dataset):
    emulator.connection.client().query(
        f"""CREATE TABLE `{dataset}.flights` AS
        SELECT n AS id, n * 0.5 AS delay, IF(n = 3, NULL, CONCAT('JFK', n)) AS origin,
          TIMESTAMP_SECONDS(n) AS at, [n, n + 1] AS legs
        FROM UNNEST(GENERATE_ARRAY(1, {ROWS})) AS n"""
    ).result()
    return TableName.parse(f"{dataset}.flights")


@pytest.fixture
def reading(emulator):
    return Reading(emulator.connection, rows=1024, streams=1)


def read(reading, source):
    return [batch for stream in reading.begin(source) for batch in reading.read(stream)]


def test_a_table_comes_in_batches_of_bounded_size_with_numbered_rows_of_its_own_types(table, reading):
    batches = read(reading, table)
    assert {batch.source for batch in batches} == {str(table)}
    assert max(map(len, batches)) <= 1024
    assert [n for batch in batches for n in batch.positions] == list(range(1, ROWS + 1))
    first = batches[0]
    row = {name: column[2].as_py() for name, column in first.columns.items()}
    number = row["id"]
    assert row["delay"] == number / 2
    assert row["legs"] == [number, number + 1]
    assert row["at"].timestamp() == number
    origins = {v for batch in batches for v in batch.columns["origin"].to_pylist()}
    assert None in origins
    assert len(origins) == ROWS


def test_several_workers_read_each_row_once_and_say_where_it_was(table, reading):
    batches = read(replace(reading, streams=4), table)
    positions = [position for batch in batches for position in batch.positions]
    assert len(set(positions)) == ROWS
    assert {position.split("/")[0] for position in positions} == {"1", "2", "3", "4"}
    assert sorted(n for batch in batches for n in batch.columns["id"].to_pylist()) == list(range(1, ROWS + 1))


def test_only_those_columns_are_read_that_are_asked_for_and_there(table, reading):
    batches = read(replace(reading, columns=("delay", "gusts")), table)
    assert {*batches[0].columns} == {"delay"}
    with pytest.raises(BigQueryError, match="has none of the columns gusts; it has at, delay, id"):
        read(replace(reading, columns=("gusts",)), table)


def test_beam_reads_a_table_in_its_workers(table, reading):
    options = PipelineOptions(["--runner=FnApiRunner"])
    with beam.Pipeline(options=options) as pipeline:
        ids = (
            pipeline
            | ReadBatches(table, replace(reading, streams=3))
            | beam.FlatMap(lambda batch: batch.columns["id"].to_pylist())
            | beam.CombineGlobally(sum)
        )
        assert_that(ids, equal_to([ROWS * (ROWS + 1) // 2]))


def test_a_row_of_a_batch_can_become_a_dead_letter(table, reading):
    letter = read(reading, table)[0].dead_letter(4, "too late")
    assert (letter.source, letter.position, letter.reason) == (str(table), "5", "too late")
    assert b'"legs": [' in letter.raw


def test_a_table_without_rows_gives_no_batches(emulator, dataset, reading):
    emulator.connection.client().query(f"CREATE TABLE `{dataset}.none` (id INT64)").result()
    assert read(reading, TableName.parse(f"{dataset}.none")) == []


def test_a_missing_table_is_one_sentence(table, reading):
    with pytest.raises(BigQueryError, match=r"table .*\.nothing: not found: .*nothing") as raised:
        read(reading, table.beside("nothing"))
    assert "\n" not in str(raised.value)
