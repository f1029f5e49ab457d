"""Faults of compiled pipelines are told before anything runs, and both schemas read alike."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.runners.pipeline_spec import SpecError, load
from pipeline.runners.spec_checks import check
from tests.pipeline.runners.small_specs import pipeline, step, write

SPAN: dict[str, Any] = {
    "span": {"parameterType": "NUMBER_INTEGER", "defaultValue": 1},
    "strategy": {"parameterType": "STRING"},
}


@pytest.fixture(autouse=True, scope="session")
def loaded_fork_server() -> None:
    """Nothing here forks from a process that has loaded TFX."""


def fault(tmp_path: Path, job: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        check(load(write(tmp_path, job), "/root"))
    return str(caught.value)


def test_a_job_and_a_specification_alone_read_alike_as_json_and_as_yaml(tmp_path):
    job = pipeline({"Make": step(makes={"out": "tfx.Any"}), "Use": step(takes={"in": "Make.out"})}, SPAN)
    job["labels"] = {"headworks-code": "0123456789abcdef"}
    alone = tmp_path / "pipeline.yaml"
    alone.write_text(yaml.safe_dump(job["pipelineSpec"]) + "---\nplatforms: {}\n")

    whole, spec = load(write(tmp_path, job), "/root"), load(alone, "/root")

    assert [task.path for task in whole.tasks] == ["Make", "Use"]
    assert [task.spec for task in whole.tasks] == [task.spec for task in spec.tasks]
    assert whole.parameters == spec.parameters == {"span": 1}
    assert (dict(whole.labels), spec.labels) == (job["labels"], {})


def test_the_older_schema_reads_as_the_newer(tmp_path):
    job = pipeline({"Make": step()}, {"span": {"type": "INT"}, "word": {"type": "STRING"}})
    job["pipelineSpec"]["schemaVersion"] = "2.0.0"
    job["runtimeConfig"] = {"parameters": {"span": {"intValue": "3"}, "word": {"stringValue": "a"}}}

    read = load(write(tmp_path, job), "/root")

    assert read.parameters == {"span": 3, "word": "a"}
    assert read.with_parameters(["span=4"]).parameters["span"] == 4
    with pytest.raises(SpecError, match="NUMBER_INTEGER"):
        read.with_parameters(["span=four"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2]", "holds list"),
        ("{", "neither JSON nor YAML"),
        ("a: [", "neither JSON nor YAML"),
        ('{"name": "flights"}', "not a compiled pipeline"),
        ('{"pipelineSpec": []}', "not a compiled pipeline"),
        ('{"root": {}, "deploymentSpec": {}, "schemaVersion": "3.0.0"}', "want 2.0.0 or 2.1.0"),
        ('{"root": {"dags": {}}, "deploymentSpec": {}}', 'no field named "dags"'),
    ],
)
def test_a_file_that_is_no_specification_is_refused(tmp_path, text, told):
    file = tmp_path / "job.json"
    file.write_text(text)
    with pytest.raises(SpecError, match=str(file)) as caught:
        load(file, "/root")
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SpecError, match="No such file"):
        load(tmp_path / "none.json", "/root")


def test_faults_of_parameters_are_told_together(tmp_path):
    read = load(write(tmp_path, pipeline({"Make": step()}, SPAN)), "/root")

    with pytest.raises(SpecError) as caught:
        read.with_parameters(["spam=3", "span=3.5", "epochs"])

    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "--parameter spam" in lines[0]
    assert "did you mean span?" in lines[0]
    assert "span=3.5: want a value of type NUMBER_INTEGER" in lines[1]
    assert "want NAME=VALUE" in lines[2]
    assert "strategy (STRING) has no value; give --parameter strategy=VALUE" in lines[3]


def test_values_in_the_job_are_checked_too(tmp_path):
    told = fault(tmp_path, pipeline({"Make": step()}, SPAN, values={"span": "one", "epoch": 3}))
    assert "parameter span: 'one' is not of type NUMBER_INTEGER" in told
    assert "parameter epoch, which the pipeline lacks" in told


def test_a_job_older_than_the_code_is_refused(tmp_path):
    job = pipeline({"Make": step()})
    job["labels"] = {"headworks-code": "0123456789abcdef"}
    read = load(write(tmp_path, job), "/root")

    read.check_code("0123456789abcdef")
    with pytest.raises(SpecError, match="compile it again, or give --any-code"):
        read.check_code("fedcba9876543210")


def test_what_cannot_be_rehearsed_is_named(tmp_path):
    steps = {"Train": step(executor={"customJob": {"customJob": {}}})}
    assert "Train_executor is a customJob, which cannot be rehearsed" in fault(tmp_path, pipeline(steps))
    each: dict[str, Any] = {"parameterIterator": {"items": {"raw": "[1]"}, "itemInput": "x"}}
    assert "task Each: runs once for each item" in fault(tmp_path, pipeline({"Each": step(**each)}))


def test_tasks_that_wait_for_each_other_are_refused(tmp_path):
    steps = {"A": step(dependentTasks=["B"]), "B": step(dependentTasks=["A"])}
    assert "wait for each other: " in fault(tmp_path, pipeline(steps))


def test_what_nobody_makes_is_refused(tmp_path):
    unknown = {"taskOutputParameter": {"producerTask": "Make_task", "outputParameterKey": "n"}}
    steps = {
        "Make": step(makes={"model": "tfx.Model"}),
        "Wrong": step(takes={"in": "Make.modle"}, given={"n": unknown}, dependentTasks=["Mike"]),
        "Asks": step(given={"span": {"componentInputParameter": "span"}}),
    }

    told = fault(tmp_path, pipeline(steps))

    assert "input in is modle of Make, which has no such output; did you mean model?" in told
    assert "input n comes from Make_task, which is no task; did you mean Make?" in told
    assert "waits for Mike, which is no task; did you mean Make?" in told
    assert "input span is parameter span, which is not there" in told


def test_missing_components_and_executors_are_named(tmp_path):
    job = pipeline({"Make": step(), "Use": step()})
    del job["pipelineSpec"]["components"]["Make"]
    del job["pipelineSpec"]["deploymentSpec"]["executors"]["Use_executor"]

    told = fault(tmp_path, job)

    assert "task Make: no component Make" in told
    assert "task Use: no executor Use_executor" in told


def command(*parts: str) -> dict[str, Any]:
    return step(executor={"container": {"image": "x", "command": list(parts)}})


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (command("python", "-m", "pipeline.contaner"), "runs module pipeline.contaner, which is not found"),
        (command("no-such-program"), "runs no-such-program, which is not on this machine"),
        (command(), "runs the entry point of image x"),
        (
            command("python", "-m", "pipeline.check", "--executor_class_path", "pipeline.gone.Executor"),
            "runs module pipeline.gone",
        ),
        (command("true", "{{$.inputs.parameter['x']}}"), "{{$.inputs.parameter['x']}}: not a placeholder"),
        (command("true", '{"IfPresent": {}}'), "Concat or IfPresent"),
        (step(triggerPolicy={"condition": "inputs."}), "condition inputs.: not an expression of CEL"),
        (
            step(
                executor={"resolver": {"outputArtifactQueries": {"a": {"filter": 'state=LIVE OR name="a"'}}}}
            ),
            "is not understood",
        ),
    ],
)
def test_what_would_fail_late_is_found_first(tmp_path, made, told):
    assert told in fault(tmp_path, pipeline({"Make": made}))


def test_commands_that_can_run_pass(tmp_path):
    steps = {
        "Ours": command("python", "-m", "pipeline.check", "{{$}}", "{{$.pipeline_job_name}}"),
        "Packages": command("python", "-m", "google.protobuf.json_format"),
        "Shell": command("sh", "-c", "echo"),
    }
    check(load(write(tmp_path, pipeline(steps)), "/root"))


def test_the_home_of_our_jobs_is_the_folder_too(tmp_path):
    home = {"home": {"parameterType": "STRING", "defaultValue": "gs://bucket"}}
    steps = {"Push": step(given={"folder": "gs://bucket/serving", "data": "gs://bucket-of-others/serving"})}

    read = load(write(tmp_path, pipeline(steps, home)), "/here")
    given = read.tasks[0].spec.inputs.parameters
    assert read.parameters == {"home": "/here"}
    assert given["folder"].runtime_value.constant.string_value == "/here/serving"
    assert given["data"].runtime_value.constant.string_value == "gs://bucket-of-others/serving"

    del home["home"]["defaultValue"]
    assert load(write(tmp_path, pipeline(steps, home)), "/here").parameters == {"home": "/here"}


def test_json_text_in_the_spec_moves_with_the_pipeline_root(tmp_path):
    text = json.dumps({"home": "gs://bucket/root/flights"})
    read = load(write(tmp_path, pipeline({"Make": step(given={"config": text})})), "/here")
    (task,) = read.tasks
    assert task.spec.inputs.parameters["config"].runtime_value.constant.string_value == text.replace(
        "gs://bucket/root", "/here"
    )
