"""Machine-hours: from durations that were measured, over all the machines that a task keeps busy."""

from __future__ import annotations

import json

import pytest

from cloud.api_errors import CloudError
from cloud.machine_hours import Durations, estimate, local_durations, planned, read_durations
from cloud.spec_tasks import Task, images, tasks
from pipeline.environment import BeamStages, Environment, PoolMachine, TrainingJob, TuningJob
from pipeline.runners.events import NodeResult, NodeState
from pipeline.runners.records import RunRecord, RunState, save
from tests.cloud.compiled_job import job

HOUR = Durations({"StatisticsGen": 3600.0, "Trainer": 7200.0}, "a test")


def test_the_tasks_of_a_job_say_their_machines():
    assert tasks(job("i")) == [
        Task("StatisticsGen", "i", 4.0, 16.0, retries=2),
        Task("Trainer", "i", accelerator="NVIDIA_L4", accelerators=2, retries=2),
        Task("Importer", retries=2),
    ]
    assert [task.machine for task in tasks(job("i"))] == ["4 CPUs, 16 GiB", "2 x NVIDIA_L4", "none"]
    assert images(job("i")) == ["i"]


def test_tasks_inside_of_a_condition_count():
    compiled = job("i")
    spec = compiled["pipelineSpec"]
    spec["components"]["inner"] = {"dag": {"tasks": spec["root"]["dag"]["tasks"]}}
    spec["root"]["dag"] = {"tasks": {"condition": {"componentRef": {"name": "inner"}}}}
    assert [task.name for task in tasks(compiled)] == ["StatisticsGen", "Trainer", "Importer"]


def test_a_task_alone_keeps_one_machine():
    found = estimate(planned(tasks(job("i")), Environment(), "one_machine", HOUR))
    assert (found.least, found.most, found.unknown) == (3, 3, ())


def test_machines_of_custom_jobs_and_dataflow_count_beside_the_tasks_own():
    settings = Environment(
        beam=BeamStages("dataflow", ("StatisticsGen",), max_workers=4),
        training=TrainingJob(PoolMachine("n1-standard-8", "NVIDIA_TESLA_T4", 2), workers=3),
    )
    plan = planned(tasks(job("i")), settings, "multi_worker", HOUR)
    assert [list(map(str, one.pools)) for one in plan] == [
        ["Dataflow: 1-4 x n2-standard-4"],
        [
            "custom job: 1 x n1-standard-8 with 2 x NVIDIA_TESLA_T4",
            "custom job: 3 x n1-standard-8 with 2 x NVIDIA_TESLA_T4",
        ],
        [],
    ]
    found = estimate(plan)
    assert (found.least, found.most) == ((1 + 1) + 2 * (1 + 4), (1 + 4) + 2 * (1 + 4))


def test_the_search_has_the_machines_of_the_tuner():
    settings = Environment(training=TrainingJob(PoolMachine("n1-standard-8"), workers=9), tuning=TuningJob(5))
    (tuner,) = planned([Task("Tuner", "i")], settings, "mirrored", None)
    assert [pool.most for pool in tuner.pools] == [1, 5]


def test_what_is_not_known_is_named_and_not_guessed():
    plan = planned(tasks(job("i")), Environment(), "", Durations({"Trainer": 3600.0}, "a test"))
    assert estimate(plan).unknown == ("StatisticsGen",)


def test_durations_are_those_of_tasks_that_did_their_work(tmp_path):
    nodes = {
        "StatisticsGen": {"state": "succeeded", "seconds": 5},
        "Transform": {"state": "cached", "seconds": 0.1},
        "Trainer": {"state": "failed", "seconds": 9},
    }
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"run_id": "r1", "nodes": nodes}))
    assert read_durations(file).seconds == {"StatisticsGen": 5}
    assert read_durations(file).source.startswith("run r1 of a machine like this one")
    listed = [{"name": name, **facts} for name, facts in nodes.items()]
    file.write_text(
        json.dumps({"run_id": "r2", "tasks": [*listed, {"name": "x", "state": "succeeded", "seconds": None}]})
    )
    assert read_durations(file).seconds == {"StatisticsGen": 5}
    assert read_durations(file).source.startswith("run r2 on Vertex AI")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tasks": [{}]}', '{"nodes": {"a": {"state": "failed"}}}'])
def test_a_file_without_durations_is_refused(tmp_path, text):
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(CloudError, match=r"run\.json: no "):
        read_durations(file)


def test_local_durations_are_the_latest_of_each_node(tmp_path):
    def ran(run_id, state, **nodes):
        results = {name: NodeResult(name, *facts) for name, facts in nodes.items()}
        save(
            RunRecord(run_id, "shop", "2026-01-01T00:00:00+00:00", state, nodes=results),
            tmp_path / "runs" / run_id,
        )

    assert local_durations(tmp_path) is None
    done = NodeState.SUCCEEDED
    ran("20260101T000000-aaaa", RunState.SUCCEEDED, Transform=(done, 60.0), Trainer=(done, 100.0))
    ran("20260102T000000-aaaa", RunState.SUCCEEDED, Transform=(NodeState.CACHED, 0.1), Trainer=(done, 200.0))
    ran("20260103T000000-aaaa", RunState.FAILED, Trainer=(done, 1.0))
    found = local_durations(tmp_path)
    assert found is not None
    assert found.seconds == {"Transform": 60.0, "Trainer": 200.0}
    assert "20260102T000000-aaaa" in found.source
