"""A streaming job that writes to BigQuery, as far as bqemulator is it."""

from typing import Any

import pytest
from apache_beam.runners.direct.executor import _ExecutorService

from beam_jobs.streaming import Sinks, StreamJob, start_locally
from cloud.bigquery import TableName
from cloud.bigquery_rows import DeadLetterTable, IdempotentTable
from tests.beam_jobs.pubsub_emulator import until
from tests.beam_jobs.pushed_model import chance, push
from tests.beam_jobs.scripted_subscription import NAME, Subscription

ROWS: list[dict[str, Any]] = [{"day": f"d{n}", "humidity": n} for n in range(30)]
BAD = [{"day": "none", "humidity": None}, {"day": "wet", "humidity": "wet"}]


def test_the_whole_input_twice_leaves_the_tables_as_they_were(emulator, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(_ExecutorService._ExecutorServiceWorker, "TIMEOUT", 0.1)
    push(tmp_path, with_warm_up=False)
    predictions, letters = (TableName.parse(f"{dataset}.{name}") for name in ("predictions", "letters"))
    sinks = Sinks(
        IdempotentTable(predictions, emulator.connection), DeadLetterTable(letters, emulator.connection)
    )
    subscription = Subscription(0)
    subscription.publish([*ROWS, *BAD])
    job = StreamJob(str(tmp_path), NAME, sinks, batch_rows=16, batch_age_s=0.01)
    result, runner = start_locally(job, lambda name: subscription)
    client = emulator.connection.client()

    def table():
        rows = client.query(f"SELECT * FROM {predictions.sql} ORDER BY prediction_id").result()
        return [dict(row.items()) for row in rows]

    until(lambda: len(subscription.acknowledged) == 32, 60)
    once = table()
    subscription.publish(ROWS)
    until(lambda: len(subscription.acknowledged) == 62, 60)
    result.cancel()
    runner.close()
    assert table() == once
    assert {row["day"]: row["probability_wet_day"] for row in once} == {
        row["day"]: pytest.approx(chance(row["humidity"])) for row in ROWS
    }
    [counted] = client.query(f"SELECT COUNT(*) FROM {letters.sql}").result()
    assert counted[0] == len(BAD)
