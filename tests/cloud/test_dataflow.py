"""The real Dataflow runner against a Dataflow and a Cloud Storage on the loopback: what reaches the wire."""

import json
from dataclasses import replace

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud import dataflow_v1beta3
from google.protobuf import json_format

import cloud.dataflow
from cloud.dataflow import DataflowError, DataflowSettings, SubmittedJob, job_name, options, submit
from tests.cloud.dataflow_service import serving

IMAGE = "europe-west1-docker.pkg.dev/my-project/headworks/worker@sha256:" + "ab" * 32
SETTINGS = DataflowSettings(
    project="my-project",
    region="europe-west1",
    staging="gs://my-bucket/staging",
    temp="gs://my-bucket/temp",
    image=IMAGE,
    service_account="worker@my-project.iam.gserviceaccount.com",
    machine_type="n2-highmem-8",
    min_workers=2,
    max_workers=20,
    subnetwork="regions/europe-west1/subnetworks/private",
    labels={"team": "flights", "cost-centre": "7"},
)


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr(cloud.dataflow, "_BACKOFF_S", 0.001)
    with serving() as served:
        yield served


def staged(storage):
    """Objects of the bucket by name."""
    return {blob.name: blob.download_as_bytes() for blob in storage.list_blobs("my-bucket")}


@pytest.fixture
def settings(service):
    return replace(SETTINGS, endpoint=service.dataflow)


def sent(service):
    """The one job that was asked for, read by the API's own types: a field that it lacks would be an error."""
    (body,) = service.jobs
    request = body.pop("request")
    job = json_format.MessageToDict(dataflow_v1beta3.Job.pb(dataflow_v1beta3.Job.from_json(json.dumps(body))))
    return {"request": request, **job}


def steps(pipeline):
    _ = pipeline | "Numbers" >> beam.Create([1, 2]) | "Twice" >> beam.Map(lambda x: 2 * x)


def endless(pipeline):
    _ = pipeline | "Messages" >> beam.io.ReadFromPubSub(
        subscription="projects/my-project/subscriptions/flights"
    )


def test_a_batch_job_asks_for_the_workers_that_the_settings_say(service, storage, settings):
    submitted = submit(steps, settings, "flights-1-abc")
    job = sent(service)
    assert submitted == SubmittedJob(settings, "flights-1-abc", "job-1")
    assert job["request"] == "projects/my-project/locations/europe-west1/jobs"
    assert job["name"] == "flights-1-abc"
    assert job["type"] == "JOB_TYPE_BATCH"
    assert job["labels"] == {"team": "flights", "cost-centre": "7"}
    environment = job["environment"]
    assert environment["serviceAccountEmail"] == "worker@my-project.iam.gserviceaccount.com"
    assert "use_runner_v2" in environment["experiments"]
    assert not {one for one in environment["experiments"] if "streaming_engine" in one}
    assert environment["serviceOptions"] == ["min_num_workers=2"]
    (pool,) = environment["workerPools"]
    assert pool["machineType"] == "n2-highmem-8"
    assert pool["numWorkers"] == 2
    assert pool["autoscalingSettings"] == {"algorithm": "AUTOSCALING_ALGORITHM_BASIC", "maxNumWorkers": 20}
    assert pool["subnetwork"] == "regions/europe-west1/subnetworks/private"
    assert pool["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]


def test_the_pipeline_is_staged_and_nothing_that_workers_would_have_to_install(service, storage, settings):
    submit(steps, settings, "flights")
    job = sent(service)
    url = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    assert url.startswith("gs://my-bucket/staging/flights.")
    objects = staged(storage)
    pipeline = beam_runner_api_pb2.Pipeline.FromString(objects[url.removeprefix("gs://my-bucket/")])
    assert {"Numbers", "Twice"} <= {one.unique_name for one in pipeline.components.transforms.values()}
    assert {name.rpartition("/")[2] for name in objects} <= {
        "pipeline.pb",
        "flights.submission.json",
        "submission_environment_dependencies.txt",
    }
    record = json.loads(objects["staging/flights.submission.json"])
    assert record["image"] == IMAGE
    assert job["environment"]["sdkPipelineOptions"]["options"]["save_main_session"] is False


def test_a_streaming_job_runs_on_the_streaming_engine(service, storage, settings):
    submit(endless, settings, "live", streaming=True)
    job = sent(service)
    assert job["type"] == "JOB_TYPE_STREAMING"
    assert {"enable_streaming_engine", "enable_windmill_service"} <= set(job["environment"]["experiments"])
    assert job["environment"]["sdkPipelineOptions"]["options"]["enable_streaming_engine"] is True


def test_a_fixed_number_of_workers_is_not_scaled(service, storage, settings):
    submit(steps, replace(settings, min_workers=3, max_workers=3, private_ips=False), "fixed")
    (pool,) = sent(service)["environment"]["workerPools"]
    assert pool["autoscalingSettings"]["algorithm"] == "AUTOSCALING_ALGORITHM_NONE"
    assert pool["numWorkers"] == 3
    assert pool["ipConfiguration"] == "WORKER_IP_PUBLIC"


def test_waiting_tells_each_state_and_ends_with_the_job(service, settings):
    service.states = [f"JOB_STATE_{state}" for state in ("PENDING", "RUNNING", "RUNNING", "DONE")]
    # A job that was just made may not be known at once.
    service.refuse("GET .*/jobs/", 404, "NOT_FOUND", "no such job", times=2)
    told: list[str] = []
    assert SubmittedJob(settings, "flights", "job-1").wait(told.append, poll_s=0) == "done"
    assert told == ["pending", "running", "done"]


def test_a_failed_job_says_what_a_worker_raised_and_where_to_look(service, settings):
    service.states = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"]
    service.messages = [
        {
            "id": "1",
            "messageImportance": "JOB_MESSAGE_ERROR",
            "messageText": "Traceback (most recent call last):\nPredictionError: model: no manifest.json",
        },
        {
            "id": "2",
            "messageImportance": "JOB_MESSAGE_ERROR",
            "messageText": "Workflow failed. The work item was attempted 4 times.",
        },
    ]
    with pytest.raises(
        DataflowError, match=r"job flights failed: .*model: no manifest\.json; see https://"
    ) as raised:
        SubmittedJob(settings, "flights", "job-1").wait(poll_s=0)
    assert "\n" not in str(raised.value)
    service.states, service.messages = ["JOB_STATE_CANCELLED"], []
    with pytest.raises(DataflowError, match="job flights cancelled: the service says no more"):
        SubmittedJob(settings, "flights", "job-1").wait(poll_s=0)


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        (403, "PERMISSION_DENIED", r"was not started: not allowed: .*roles/dataflow\.developer"),
        (404, "NOT_FOUND", "was not started: not found: .*whether the Dataflow API is enabled"),
        (409, "ALREADY_EXISTS", "was not started: a job of this name is running; wait for it"),
        (429, "RESOURCE_EXHAUSTED", "was not started: a quota is used up"),
    ],
)
def test_a_job_that_is_not_taken_is_one_sentence(service, storage, settings, code, status, message):
    service.refuse("POST .*/jobs$", code, status, "The service says no.")
    with pytest.raises(DataflowError, match=f"job flights in my-project/europe-west1 {message}") as raised:
        submit(steps, settings, "flights")
    assert "\n" not in str(raised.value)
    assert service.jobs == []


def test_a_staging_bucket_that_is_not_there_stops_the_job_at_once(service, storage, settings):
    elsewhere = replace(settings, staging="gs://no-bucket/staging")
    with pytest.raises(DataflowError, match="not started: staging folder gs://no-bucket/staging: not found"):
        submit(steps, elsewhere, "flights")
    assert service.requests == []


def test_lacking_credentials_are_told_before_beam_looks_for_them(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(DataflowError, match=r"nothing was started in .*: no credentials: .*gcloud auth"):
        cloud.dataflow.check_staging(SETTINGS)


def test_a_staging_folder_that_may_not_be_written_to_stops_the_job_at_once(service, settings, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.address)
    service.refuse("/upload/storage/", 403, "forbidden", "storage.objects.create denied")
    with pytest.raises(
        DataflowError, match=r"gs://my-bucket/staging: not allowed: storage\.objects\.create denied"
    ):
        submit(steps, settings, "flights")
    assert service.jobs == []


def test_a_job_that_runs_and_cannot_be_asked_for_is_said_to_run_on(service, settings):
    service.refuse("GET .*/jobs/", 403, "PERMISSION_DENIED", "dataflow.jobs.get denied")
    with pytest.raises(DataflowError, match=r"job flights was submitted and runs on .*denied"):
        SubmittedJob(settings, "flights", "job-1").wait(poll_s=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "gcr.io/my-project/worker:latest"}, "name it by digest .* a tag can be moved"),
        ({"image": "gcr.io/my-project/worker"}, "name it by digest"),
        ({"staging": "/tmp/staging"}, "staging '/tmp/staging': want gs://BUCKET/FOLDER"),
        ({"temp": "gs://"}, "temp 'gs://': want"),
        ({"service_account": ""}, "service_account '': want NAME@PROJECT"),
        ({"region": "Europe"}, "region 'Europe': want such as europe-west1"),
        ({"subnetwork": "private"}, "subnetwork 'private': want regions/"),
        ({"labels": {"Team": "x"}}, "labels 'Team': want small letters"),
        ({"labels": {"team": "Flights"}}, r"labels\.team 'Flights': want"),
        ({"min_workers": 5, "max_workers": 4}, "min_workers 5: want 1 to max_workers, which is 4"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_asked(change, message):
    with pytest.raises(DataflowError, match=message):
        replace(SETTINGS, **change)


def test_one_id_has_one_name_and_ids_that_look_alike_have_different_ones():
    assert job_name("flights-1-abc") == "flights-1-abc"
    assert job_name("Flights 2026_01") == job_name("Flights 2026_01")
    names = {job_name(text) for text in ("a b", "a_b", "A-b", "a-b", "é", "7", "x" * 200)}
    assert len(names) == 7
    assert all(cloud.dataflow._NAME.fullmatch(name) for name in names)


def test_options_ask_nothing_of_the_network_and_never_for_public_workers():
    given = options(SETTINGS, "flights")
    assert "--no_use_public_ips" in given
    assert f"--sdk_container_image={IMAGE}" in given
    assert not [one for one in given if "endpoint" in one or "no_auth" in one]


def test_the_batch_job_itself_is_taken_with_the_image_for_every_step(service, storage, settings, tmp_path):
    from datetime import UTC, datetime

    from beam_jobs.batch import BatchJob, build
    from beam_jobs.outputs import JobFolder
    from beam_jobs.pushed import PushedModel
    from beam_jobs.readers import InputFile
    from tests.beam_jobs.pushed_model import push

    push(tmp_path, with_warm_up=False)
    job = BatchJob(PushedModel.read(str(tmp_path)), ("gs://my-bucket/rows.csv",), "gs://my-bucket/out")
    files = [InputFile("gs://my-bucket/rows.csv", "csv", 10)]
    folder = JobFolder(job.output, job.name)
    submit(lambda pipeline: build(pipeline, job, files, folder, datetime.now(UTC)), settings, job.name)
    (graph,) = (content for name, content in staged(storage).items() if name.endswith("/pipeline.pb"))
    pipeline = beam_runner_api_pb2.Pipeline.FromString(graph)
    steps_ = {one.unique_name for one in pipeline.components.transforms.values()}
    assert {"Read", "Score", "WritePredictions", "WriteDeadLetters", "Records"} <= steps_
    images = {
        beam_runner_api_pb2.DockerPayload.FromString(one.payload).container_image
        for one in pipeline.components.environments.values()
    }
    assert images == {IMAGE}
    assert not [one for one in pipeline.components.environments.values() if one.dependencies]
    assert len(graph) < 1 << 20, "no model and no code travels with the job"
