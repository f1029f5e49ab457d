"""As of when a job reads its tables: said by a run, by the job, or by every start of it."""

from __future__ import annotations

import copy
from datetime import datetime

import pytest

from cloud.snapshots import at_every_start, is_open, minute, uncached_at_start
from tests.cloud.compiled_job import bigquery_job, job

IMAGE = "europe-west1-docker.pkg.dev/my-project/images/headworks@sha256:" + "0" * 64
GIVEN = {"span": 3, "snapshot_time": "2026-01-31"}


def with_default():
    made = bigquery_job(IMAGE)
    declared = made["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
    declared["snapshot_time"]["defaultValue"] = "2026-01-31"
    return made


@pytest.mark.parametrize(
    ("made", "values", "expected"),
    [
        (bigquery_job(IMAGE), {"span": 3}, True),
        (bigquery_job(IMAGE), GIVEN, False),
        (with_default(), {"span": 3}, False),
        (job(IMAGE), {"span": 3}, False),
    ],
)
def test_only_what_nobody_says_is_open_and_left_to_every_start(made, values, expected):
    assert is_open(made, values) is expected
    assert at_every_start(made, values) == ({**values, "snapshot_time": "start"} if expected else values)


def test_no_cache_answers_for_a_task_that_reads_at_its_start_and_nothing_else_changes():
    compiled = bigquery_job(IMAGE)
    before = copy.deepcopy(compiled)
    found = uncached_at_start(compiled, {"snapshot_time": "start"})
    assert compiled == before
    expected = copy.deepcopy(before)
    expected["pipelineSpec"]["root"]["dag"]["tasks"]["StatisticsGen"]["cachingOptions"] = {}
    assert found == expected


@pytest.mark.parametrize("values", [GIVEN, {"span": 3}])
def test_a_cache_may_answer_for_a_time_that_is_known(values):
    assert uncached_at_start(bigquery_job(IMAGE), values) == bigquery_job(IMAGE)


def test_a_minute_is_told_in_utc():
    assert minute(datetime.fromisoformat("2026-01-31T01:30:59.5+02:00")) == "2026-01-30T23:30:00+00:00"
