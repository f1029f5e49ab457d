"""The batch job from one BigQuery table to another, through the real clients and the emulator."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs import batch
from beam_jobs.batch import BatchJob, TableSource
from beam_jobs.pushed import PushedModel
from cloud.bigquery import TableName
from cloud.bigquery_sink import JobTable
from cloud.bigquery_source import ReadBatches, Reading
from cloud.prediction_table import PredictionTable
from tests.beam_jobs.pushed_model import chance, push

DAYS = {"day": ["mon", "tue", "wed"], "humidity": [40.0, None, 80.0], "gusts": [3, 1, None]}


@pytest.fixture
def days(emulator, dataset, tmp_path):
    """A table of days, one without the humidity that the model requires."""
    name = TableName.parse(f"{dataset}.days")
    table = pa.table(DAYS)
    pq.write_table(table, tmp_path / "days.parquet")
    JobTable(name, table.schema, "load", emulator.connection).replace([str(tmp_path / "days.parquet")])
    return name


def test_a_table_is_scored_into_a_table_and_again_replaces_its_rows(emulator, dataset, days, tmp_path):
    push(tmp_path / "serving", with_warm_up=False)
    model = PushedModel.read(str(tmp_path / "serving"))
    scored = TableName.parse(f"{dataset}.scored")
    job = BatchJob(
        model,
        (),
        str(tmp_path / "out"),
        table=TableSource(str(days), lambda: ReadBatches(days, Reading(emulator.connection))),
        destination=PredictionTable(scored, emulator.connection, model.key),
        job_id="daily",
        max_bad_fraction=0.5,
    )
    for _ in range(2):
        summary = batch.run(job)
        assert (summary.rows_read, summary.predicted, summary.dead_letters) == (3, 2, 1)
    found = emulator.connection.client().query(f"SELECT * FROM {scored.sql} ORDER BY day").result()
    assert [(row["day"], row["job_id"], row["probability_wet_day"]) for row in found] == [
        ("mon", "daily", pytest.approx(chance(40, 3), abs=1e-6)),
        ("wed", "daily", pytest.approx(chance(80), abs=1e-6)),
    ]
    [letters] = (tmp_path / "out" / "daily" / "dead_letters").iterdir()
    assert '"tue"' in letters.read_text().replace("\\", "")
