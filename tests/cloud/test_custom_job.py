"""The real client library against a Vertex AI on the loopback: what is submitted, how the launcher ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.types import AcceleratorType, Scheduling

from cloud.custom_job import (
    CustomJobError,
    JobSettings,
    command,
    custom_job,
    for_run,
    main,
    run,
    stopped_by_signals,
)
from cloud.worker_pools import REDUCTION_SERVER_IMAGE
from pipeline.environment import PoolMachine, TrainingJob, TuningJob
from pipeline.layers import ConfigError
from tests.cloud.job_service import serving

PLACE = "projects/my-project/locations/europe-west1"
NAME = f"{PLACE}/customJobs/1"
IMAGE = "europe-west1-docker.pkg.dev/my-project/images/headworks@sha256:" + "0" * 64
BOARD = f"{PLACE}/tensorboards/7"
CALL = json.dumps({"inputs": {"parameterValues": {"epochs": 3}}, "outputs": {"outputFile": "gs://b/run/1"}})
INNER = ["python", "-m", "pipeline.container", "--json_serialized_invocation_args", CALL, "--run_id", "r-1"]
GPU = PoolMachine("n1-standard-8", "NVIDIA_TESLA_T4", 1)
SETTINGS = JobSettings(
    name="flights-trainer",
    task="trainer",
    project="my-project",
    region="europe-west1",
    image=IMAGE,
    root="gs://bucket/headworks",
    training=TrainingJob(
        GPU, workers=2, reduction_servers=3, spot=True, timeout_hours=1.5, tensorboard=BOARD
    ),
    strategy="multi_worker",
    service_account="trainer@my-project.iam.gserviceaccount.com",
    network="projects/12345/global/networks/private",
    kms_key="projects/p/locations/l/keyRings/r/cryptoKeys/k",
    labels={"team": "rain"},
)
DONE = {"state": "JOB_STATE_SUCCEEDED"}


@pytest.fixture
def server():
    with serving() as served:
        yield served


def launched(server, settings=SETTINGS, states=(DONE,), told=None, stop=None, inner=INNER):
    server.states = list(states)
    connection = {
        "credentials": AnonymousCredentials(),
        "client_options": {"api_endpoint": server.endpoint},
    }
    tell = told.append if told is not None else lambda _: None
    return run(settings, inner, tell, stop or threading.Event(), connection, poll_seconds=0.01)


def machine(count, spec, image=IMAGE, **container):
    return {
        "machineSpec": spec,
        "replicaCount": str(count),
        "diskSpec": {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 100},
        "containerSpec": {"imageUri": image, **container},
    }


def test_a_job_is_submitted_as_the_service_takes_it(server):
    assert launched(server)
    [post] = server.asked
    assert post.path.partition("?")[0] == f"/v1/{PLACE}/customJobs"
    digest = post.body["labels"]["headworks_task"]
    gpus = {
        "machineType": "n1-standard-8",
        "acceleratorType": AcceleratorType.NVIDIA_TESLA_T4.value,
        "acceleratorCount": 1,
    }
    ours = {"command": INNER[:3], "args": INNER[3:]}
    assert post.body == {
        "displayName": f"flights-trainer-{digest}",
        "labels": {"team": "rain", "headworks_task": digest},
        "encryptionSpec": {"kmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"},
        "jobSpec": {
            "workerPoolSpecs": [
                machine(1, gpus, **ours),
                machine(2, gpus, **ours),
                machine(3, {"machineType": "n1-highcpu-16"}, REDUCTION_SERVER_IMAGE),
            ],
            "scheduling": {
                "timeout": "5400s",
                "strategy": Scheduling.Strategy.SPOT.value,
                "restartJobOnWorkerRestart": True,
            },
            "serviceAccount": "trainer@my-project.iam.gserviceaccount.com",
            "network": "projects/12345/global/networks/private",
            "tensorboard": BOARD,
            "baseOutputDirectory": {"outputUriPrefix": f"gs://bucket/headworks/tensorboard/{digest}"},
        },
    }


def test_what_is_not_set_is_not_sent(server):
    bare = JobSettings(
        "f", "trainer", "my-project", "europe-west1", IMAGE, "gs://b", TrainingJob(GPU), "auto"
    )
    launched(server, bare)
    [post] = server.asked
    assert post.body["jobSpec"].keys() == {"workerPoolSpecs", "scheduling"}
    assert post.body["jobSpec"]["scheduling"] == {"timeout": "86400s"}
    assert "encryptionSpec" not in post.body


def test_a_job_is_awaited_and_every_state_is_told_once(server):
    told: list[str] = []
    states = [{}, {"state": "JOB_STATE_RUNNING"}, {}, DONE]
    assert launched(server, states=states, told=told)
    first, *rest = told
    assert first.startswith(
        f"Vertex AI: {NAME}: submitted; logs: https://console.cloud.google.com/logs/query;query="
    )
    assert rest == [f"Vertex AI: {NAME}: {state}" for state in ("pending", "running", "succeeded")]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"state": "JOB_STATE_FAILED", "error": {"code": 3, "message": "replica 0 exited with 1"}},
            "failed: replica 0",
        ),
        (
            {"state": "JOB_STATE_FAILED", "error": {"code": 8, "message": "NVIDIA_T4_GPUS exceeded"}},
            "failed: NVIDIA_T4_GPUS exceeded; a quota is used up: ask for more",
        ),
        ({"state": "JOB_STATE_CANCELLED"}, "cancelled: the service gives no reason"),
        ({"state": "JOB_STATE_EXPIRED"}, "expired: "),
    ],
)
def test_a_job_that_does_not_succeed_is_named_with_its_reason_and_its_logs(server, facts, said):
    with pytest.raises(CustomJobError, match=said) as raised:
        launched(server, states=[facts])
    assert str(raised.value).startswith(NAME)
    assert str(raised.value).endswith("query=resource.labels.job_id%3D%221%22?project=my-project")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUCCEEDED"])
def test_a_launcher_that_is_started_again_takes_up_its_job(server, state):
    launched(server)
    server.jobs[NAME]["state"] = f"JOB_STATE_{state}"
    told: list[str] = []
    assert launched(server, told=told)
    assert told[0] == f"Vertex AI: {NAME}: taken up, for it is this task's"
    assert len(server.asked) == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED"])
def test_a_retry_after_a_failure_submits_a_new_job(server, state):
    launched(server)
    server.jobs[NAME]["state"] = f"JOB_STATE_{state}"
    assert launched(server)
    assert len(server.asked) == 2


def test_the_same_task_of_another_run_is_another_job(server):
    launched(server)
    launched(server, inner=[*INNER[:-1], "r-2"])
    assert len(server.asked) == 2


def test_a_submission_whose_answer_got_lost_is_not_repeated(server, monkeypatch):
    monkeypatch.setattr(threading.Event, "wait", lambda *_: False)
    launched(server)
    server.jobs[NAME]["state"] = "JOB_STATE_PENDING"
    server.refusals["GET"] = [(503, "UNAVAILABLE", "try again")]
    assert launched(server)
    assert len(server.asked) == 1


def test_a_launcher_that_is_asked_to_end_cancels_the_job(server):
    told: list[str] = []
    with stopped_by_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert not launched(server, states=[{"state": "JOB_STATE_RUNNING"}], told=told, stop=stop)
    assert [call.path.partition("?")[0] for call in server.asked][1:] == [f"/v1/{NAME}:cancel"]
    assert told[-1] == f"Vertex AI: {NAME}: cancelled, as this task was"


def test_a_refusal_says_what_to_do(server):
    server.refusals["POST"] = [(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.actAs' denied")]
    with pytest.raises(CustomJobError, match=r"actAs.*roles/iam\.serviceAccountUser") as raised:
        launched(server)
    assert str(raised.value).startswith(PLACE)
    assert "\n" not in str(raised.value)


def test_a_search_over_machines_hands_the_service_to_the_chief(server):
    settings = replace(SETTINGS, task="tuner", tuning=TuningJob(workers=4, service=True))
    launched(server, settings)
    chief, workers = server.asked[0].body["jobSpec"]["workerPoolSpecs"]
    assert (chief["replicaCount"], workers["replicaCount"]) == ("1", "4")
    [given] = chief["containerSpec"]["env"]
    assert given["name"] == "HEADWORKS_TUNING_SERVICE"
    assert json.loads(given["value"]) == {"parent": PLACE, "source": "cloud.tuning_job.open_study"}


def test_settings_survive_the_way_through_the_specification():
    assert JobSettings.from_json(SETTINGS.to_json()) == SETTINGS
    assert command(SETTINGS) == ["python", "-m", "cloud.custom_job", "--settings", SETTINGS.to_json(), "--"]
    with pytest.raises(CustomJobError, match=r"--settings: colour.*compile the pipeline again"):
        JobSettings.from_json(json.dumps({**json.loads(SETTINGS.to_json()), "colour": "red"}))


def test_machines_that_cannot_train_are_refused_when_the_pipeline_is_compiled():
    with pytest.raises(ConfigError, match=r"training\.workers: 2, but train\.strategy is none"):
        command(replace(SETTINGS, strategy="none"))
    with pytest.raises(ConfigError, match=r"training\.tensorboard: needs service_account"):
        command(replace(SETTINGS, service_account=None))


def test_a_run_may_give_another_strategy_if_the_machines_can_train_by_it():
    def given(strategy: str) -> list[str]:
        return [
            "c",
            "--json_serialized_invocation_args",
            json.dumps({"inputs": {"parameterValues": {"strategy": strategy}}}),
        ]

    alone = replace(SETTINGS, training=TrainingJob(GPU), strategy="auto")
    assert for_run(alone, given("mirrored")).strategy == "mirrored"
    assert for_run(alone, INNER).strategy == "auto"
    with pytest.raises(
        CustomJobError, match=r"strategy tpu: the pipeline was compiled for auto:\ntraining\.machine"
    ):
        for_run(alone, given("tpu"))


def test_a_rehearsal_shows_the_job_and_runs_the_command_alone():
    told = (
        "import os; print(os.environ['HEADWORKS_STRATEGY'], 'TF_CONFIG' in os.environ); raise SystemExit(3)"
    )
    arguments = [*command(SETTINGS)[1:], sys.executable, "-c", told]
    environment = {**os.environ, "HEADWORKS_REHEARSAL": "1", "TF_CONFIG": "{}"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    shown, _, after = done.stdout.partition("rehearsal: the command runs once, on this machine alone: ")
    job = json.loads(shown.removeprefix("rehearsal: no custom job is submitted; it would be "))
    assert len(job["jobSpec"]["workerPoolSpecs"]) == 3
    assert after.splitlines() == ["train.strategy is auto instead of multi_worker", "auto False"]


def test_a_launcher_without_a_command_says_so(capsys):
    assert main(["--settings", SETTINGS.to_json()]) == 1
    assert capsys.readouterr().err == "no command: write it after --\n"


def test_tfxs_own_client_gives_all_pools_its_command_and_drops_the_labels_and_this_does_not(monkeypatch):
    from tfx.extensions.google_cloud_ai_platform.training_clients import VertexJobClient

    monkeypatch.setattr(VertexJobClient, "create_client", lambda self: None)
    images = (IMAGE, IMAGE, REDUCTION_SERVER_IMAGE)
    pools = [{"container_spec": {"image_uri": image, "command": ["own"]}} for image in images]
    given = {"worker_pool_specs": pools}
    theirs = VertexJobClient("europe-west1").create_training_job(
        {}, {}, {}, "a.B", given, None, {"team": "rain"}
    )
    commands = [pool["container_spec"]["command"] for pool in theirs["job_spec"]["worker_pool_specs"]]
    assert commands[0] == commands[1] == commands[2] != ["own"]
    assert "team" not in theirs["labels"]

    ours = custom_job(SETTINGS, INNER)
    containers = [pool["containerSpec"] for pool in ours["jobSpec"]["workerPoolSpecs"]]
    assert [container.get("command") for container in containers] == [INNER[:3], INNER[:3], None]
    assert ours["labels"]["team"] == "rain"
