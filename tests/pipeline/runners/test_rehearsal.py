"""Compiled jobs run as they are: small ones whose containers are `python -c`, and one of TFX's own making."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.runners.pipeline_spec import load
from pipeline.runners.rehearsal import rehearse
from tests.pipeline.runners.small_specs import WRITE, content, pipeline, run, states, step, uri, write

REPOSITORY = Path(__file__).resolve().parents[3]
OUT = {"out": "tfx.Any"}
FAIL = "print('the disk is full'); raise SystemExit(3)"
DUMP = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
SAY = """
import json, sys, pathlib
call, said = json.loads(sys.argv[1]), json.loads(sys.argv[2])
pathlib.Path(call['outputs']['outputFile']).write_text(json.dumps(said))
"""


@pytest.fixture(autouse=True, scope="session")
def loaded_fork_server() -> None:
    """Nothing here forks from a process that has loaded TFX."""


def writer(text: str = "hello", **more: Any) -> dict[str, Any]:
    return step(WRITE, uri("out"), text, **{"makes": OUT, **more})


def test_a_command_reads_what_the_one_before_it_wrote(tmp_path):
    result = run(
        tmp_path,
        {
            "Copy": step(
                WRITE,
                uri("out"),
                "{{$.inputs.artifacts['in'].value}} from {{$.inputs.artifacts['in'].uri}}",
                takes={"in": "Make.out"},
                makes=OUT,
            ),
            "Make": writer(),
        },
    )

    made = result.folder / "Make" / "out"
    assert states(result) == {"Make": "succeeded", "Copy": "succeeded"}
    assert content(result, "Copy") == f"hello from {made}"
    assert made.is_relative_to(tmp_path / "root" / "rehearsal")


def test_a_command_gets_the_executor_input_that_the_service_would_pass(tmp_path):
    result = run(
        tmp_path,
        {
            "Make": step(
                SAY,
                "{{$}}",
                json.dumps({"artifacts": {"out": {"artifacts": [{"metadata": {"rows": 3}}]}}}),
                makes={"out": "tfx.Examples"},
            ),
            "Look": step(
                DUMP,
                uri("seen"),
                "{{$}}",
                takes={"in": "Make.out"},
                given={
                    "epochs": 5.0,
                    "rate": 0.5,
                    "name": "{{$.pipeline_task_name}}",
                    "span": {"componentInputParameter": "span"},
                },
                declares={"epochs": "NUMBER_INTEGER", "rate": "NUMBER_DOUBLE", "span": "NUMBER_INTEGER"},
                makes={"seen": "tfx.Any"},
                returns={"count": "NUMBER_INTEGER"},
            ),
        },
        "span=7",
        parameters={"span": {"parameterType": "NUMBER_INTEGER"}},
    )

    seen = json.loads(content(result, "Look", "seen"))
    folder = result.folder / "Look"
    (given,) = seen["inputs"]["artifacts"]["in"]["artifacts"]
    assert given == {
        "name": result.tasks["Make"].outputs.artifacts["out"][0].name,
        "type": {"instanceSchema": "title: tfx.Examples\ntype: object\n"},
        "uri": str(result.folder / "Make" / "out"),
        "metadata": {"rows": 3},
    }
    assert seen["inputs"]["parameterValues"] == {"epochs": 5, "rate": 0.5, "name": "Look", "span": 7}
    assert seen["inputs"]["parameters"]["epochs"] == {"intValue": 5}
    assert seen["outputs"]["artifacts"]["seen"]["artifacts"][0]["uri"] == str(folder / "seen")
    assert seen["outputs"]["outputFile"] == str(folder / "executor_output.json")
    assert Path(seen["outputs"]["parameters"]["count"]["outputFile"]).parent.is_dir()


def test_what_a_command_says_of_its_outputs_goes_to_those_after_it(tmp_path):
    said = {
        "artifacts": {"out": {"artifacts": [{"uri": "/elsewhere", "metadata": {"rows": 3}}]}},
        "parameterValues": {"count": 4},
    }
    from_output = {"taskOutputParameter": {"producerTask": "Make", "outputParameterKey": "count"}}
    from_file = {"taskOutputParameter": {"producerTask": "Make", "outputParameterKey": "is_good"}}
    result = run(
        tmp_path,
        {
            "Make": step(
                SAY + "pathlib.Path(sys.argv[3]).write_text('True')",
                "{{$}}",
                json.dumps(said),
                "{{$.outputs.parameters['is_good'].output_file}}",
                makes=OUT,
                returns={"count": "NUMBER_INTEGER", "is_good": "BOOLEAN"},
            ),
            "Use": step(
                WRITE,
                uri("out"),
                f"{uri('in', 'inputs')} {{{{$.inputs.artifacts['in'].metadata['rows']}}}} "
                "{{$.inputs.parameters['count']}} {{$.inputs.parameters['is_good']}}",
                takes={"in": "Make.out"},
                given={"count": from_output, "is_good": from_file},
                declares={"count": "NUMBER_INTEGER", "is_good": "BOOLEAN"},
                makes=OUT,
            ),
        },
    )

    assert content(result, "Use") == "/elsewhere 3.0 4 true"


def test_commands_run_here_with_this_code_and_are_told_that_it_is_a_rehearsal(tmp_path):
    code = (
        "import os, sys, pathlib, pipeline; pathlib.Path(sys.argv[1]).write_text('|'.join("
        "(sys.executable, os.environ['HEADWORKS_REHEARSAL'], os.environ['TF_USE_LEGACY_KERAS'], os.environ['MINE'])))"
    )
    mine = {"env": [{"name": "MINE", "value": "{{$.pipeline_root}}"}]}
    result = run(tmp_path, {"Make": step(code, uri("out"), makes=OUT, container=mine)})

    assert content(result, "Make") == f"{sys.executable}|1|1|{tmp_path / 'root'}"


def test_places_below_the_pipeline_root_are_places_below_the_folder(tmp_path):
    texts = ["gs://bucket/root/serving", '{"home": "gs://bucket/root"}', "gs://bucket/rooted"]
    result = run(tmp_path, {"Make": step(WRITE, uri("out"), " ".join(texts), makes=OUT)})

    root = tmp_path / "root"
    assert content(result, "Make") == f'{root}/serving {{"home": "{root}"}} gs://bucket/rooted'


def test_a_failure_is_told_with_the_end_of_its_log_and_stops_what_depends_on_it(tmp_path):
    ended = []
    result = run(
        tmp_path,
        {
            "Bad": step(FAIL, makes=OUT),
            "After": step(takes={"in": "Bad.out"}, dependentTasks=["Bad"]),
            "Last": step(dependentTasks=["After"]),
            "Other": writer(),
        },
        on_end=lambda task: ended.append(task.task),
    )

    assert states(result) == {"Bad": "failed", "After": "skipped", "Last": "skipped", "Other": "succeeded"}
    (failed,) = result.failed
    assert "exit code 3" in failed.error
    assert "the disk is full" in failed.error
    assert str(failed.log) in failed.error
    assert sorted(ended) == sorted(result.tasks)


def test_a_command_that_says_nonsense_of_its_outputs_fails(tmp_path):
    result = run(
        tmp_path,
        {
            "Text": step("import sys; open(sys.argv[1], 'w').write('{')", "{{$.outputs.output_file}}"),
            "Other": step(SAY, "{{$}}", json.dumps({"artifacts": {"model": {"artifacts": [{}]}}}), makes=OUT),
            "Kind": step(SAY, "{{$}}", '{"parameterValues": {"n": "many"}}', returns={"n": "NUMBER_INTEGER"}),
        },
    )

    assert set(states(result).values()) == {"failed"}
    assert "not an ExecutorOutput" in result.tasks["Text"].error
    assert "model, which the component does not declare" in result.tasks["Other"].error
    assert "n: 'many' is not of type NUMBER_INTEGER" in result.tasks["Kind"].error


def test_a_retry_policy_is_kept(tmp_path):
    flaky = "import sys, os; p = sys.argv[1]; n = os.path.exists(p); open(p, 'w'); raise SystemExit(0 if n else 1)"
    policy: dict[str, Any] = {"retryPolicy": {"maxRetryCount": 2, "backoffDuration": "0.01s"}}
    result = run(
        tmp_path,
        {"Flaky": step(flaky, str(tmp_path / "tried"), **policy), "Bad": step(FAIL, **policy)},
    )

    assert states(result) == {"Bad": "failed", "Flaky": "succeeded"}
    assert (result.tasks["Flaky"].attempts, result.tasks["Bad"].attempts) == (2, 3)


def test_a_false_condition_leaves_out_a_task_and_those_after_it_and_is_no_failure(tmp_path):
    blessing = step(
        SAY,
        "{{$}}",
        json.dumps({"artifacts": {"out": {"artifacts": [{"metadata": {"blessed": 1}}]}}}),
        makes=OUT,
    )
    metadata = "inputs.artifacts['_Gate.out'].artifacts[0].metadata"

    def when(condition: str, **more: Any) -> dict[str, Any]:
        return step(takes={"_Gate.out": "Gate.out"}, triggerPolicy={"condition": condition}, **more)

    result = run(
        tmp_path,
        {
            "Gate": blessing,
            "Yes": when(
                f"({metadata}['blessed'] == 1.0) && inputs.parameter_values['n'] > 2",
                given={"n": 3},
                declares={"n": "NUMBER_INTEGER"},
            ),
            "No": when(f"!({metadata}['blessed'] == 1.0)"),
            "Wrong": when(f"{metadata}['absent'] == 1.0"),
            "After": step(dependentTasks=["No"]),
        },
    )

    assert states(result) == {
        "Gate": "succeeded",
        "Yes": "succeeded",
        "No": "condition false",
        "Wrong": "failed",
        "After": "skipped",
    }
    assert "absent" in result.tasks["Wrong"].error


def dag(steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"task": more.pop("task", {}), "dag": steps, **more}


def exit_handler() -> dict[str, Any]:
    return step(
        WRITE,
        uri("out"),
        "{{$.inputs.parameters['status']}}",
        given={"status": {"taskFinalStatus": {"producerTask": "tfx-dag"}}},
        makes=OUT,
        dependentTasks=["tfx-dag"],
        triggerPolicy={"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
    )


def test_an_exit_handler_runs_at_the_end_and_is_told_how_the_rest_ended(tmp_path):
    steps = {"tfx-dag": dag({"Make": writer(), "Bad": step(FAIL)}), "Exit": exit_handler()}
    result = run(tmp_path, steps)

    status = json.loads(content(result, "Exit"))
    assert states(result) == {
        "tfx-dag/Bad": "failed",
        "tfx-dag/Make": "succeeded",
        "tfx-dag": "failed",
        "Exit": "succeeded",
    }
    assert status["state"] == "FAILED"
    assert status["error"]["message"] == "Bad failed"
    assert status["pipelineJobName"] == result.job

    fine = run(tmp_path, {"tfx-dag": dag({"Make": writer()}), "Exit": exit_handler()})
    assert json.loads(content(fine, "Exit"))["state"] == "SUCCEEDED"


def test_an_inner_dag_takes_inputs_and_gives_outputs(tmp_path):
    inner = step(
        WRITE,
        uri("out"),
        f"{{{{$.inputs.parameters['word']}}}} {uri('in', 'inputs')}",
        given={"word": {"componentInputParameter": "word"}},
        makes=OUT,
    )
    inner["task"]["inputs"]["artifacts"] = {"in": {"componentInputArtifact": "data"}}
    outer = step(takes={"data": "Make.out"}, given={"word": "read"})
    steps = {
        "Make": writer(),
        "Inner": dag(
            {"Read": inner},
            task=outer["task"],
            component=outer["component"]
            | {"outputDefinitions": {"artifacts": {"result": {"artifactType": {"schemaTitle": "t"}}}}},
            outputs={
                "artifacts": {
                    "result": {"artifactSelectors": [{"producerSubtask": "Read", "outputArtifactKey": "out"}]}
                }
            },
        ),
        "Use": step(
            WRITE,
            uri("out"),
            "{{$.inputs.artifacts['in'].value}}",
            takes={"in": "Inner.result"},
            makes=OUT,
        ),
        "Never": dag({"Inside": step(FAIL)}, task={"triggerPolicy": {"condition": "1 == 2"}}, component={}),
    }
    result = run(tmp_path, steps)

    assert content(result, "Use") == f"read {result.folder / 'Make' / 'out'}"
    assert states(result)["Never"] == "condition false"
    assert "Never/Inside" not in states(result)


def resolver(key: str, text: str, **more: Any) -> dict[str, Any]:
    query = {"resolver": {"outputArtifactQueries": {key: {"filter": text}}}}
    return step(executor=query, makes={key: "tfx.Any"}, **more)


def test_a_resolver_finds_the_latest_of_earlier_rehearsals_and_nothing_of_failed_tasks(tmp_path):
    find = {
        "Find": resolver("model", 'schema_title="tfx.Model" AND state=LIVE'),
        "Use": step(WRITE, uri("out"), "{{$}}", takes={"model": "Find.model"}, makes=OUT),
    }

    def found() -> list[str]:
        seen = json.loads(content(run(tmp_path, find), "Use"))
        return [artifact["uri"] for artifact in seen["inputs"]["artifacts"]["model"]["artifacts"]]

    assert found() == []
    train = {"Train": writer(makes={"out": "tfx.Model"}), "Other": writer(makes={"out": "tfx.Schema"})}
    run(tmp_path, train)
    second = run(tmp_path, train)
    run(tmp_path, {"Train": step(FAIL, makes={"out": "tfx.Model"})})
    assert found() == [str(second.folder / "Train" / "out")]


def test_a_resolver_finds_the_model_that_the_latest_blessing_names(tmp_path):
    bless = """
import json, sys, pathlib
call = json.loads(sys.argv[1])
model = call['inputs']['artifacts']['model']['artifacts'][0]['name']
metadata = {'blessed': int(sys.argv[2]), 'current_model_id': model}
said = {'artifacts': {'blessing': {'artifacts': [{'metadata': metadata}]}}}
pathlib.Path(call['outputs']['outputFile']).write_text(json.dumps(said))
"""

    def trained(blessed: str) -> dict[str, Any]:
        return {
            "Train": writer(makes={"out": "tfx.Model"}),
            "Bless": step(
                bless, "{{$}}", blessed, takes={"model": "Train.out"}, makes={"blessing": "tfx.ModelBlessing"}
            ),
        }

    # As TFX compiles LatestBlessedModelStrategy.
    find = {
        "Blessing": resolver(
            "blessing", 'schema_title="tfx.ModelBlessing" AND state=LIVE AND metadata.blessed.number_value=1'
        ),
        "Model": resolver(
            "model",
            'schema_title="tfx.Model" AND state=LIVE AND '
            "name=\"{{$.inputs.artifacts['input'].metadata['current_model_id']}}\"",
            takes={"input": "Blessing.blessing"},
        ),
    }

    assert run(tmp_path, find).tasks["Model"].outputs.artifacts["model"] == ()
    good = run(tmp_path, trained("1"))
    run(tmp_path, trained("0"))
    (model,) = run(tmp_path, find).tasks["Model"].outputs.artifacts["model"]
    assert model == good.tasks["Train"].outputs.artifacts["out"][0]


def test_an_import_is_an_artifact_with_the_given_type_and_metadata(tmp_path):
    importer = {
        "importer": {
            "artifactUri": {"runtimeParameter": "artifact_uri"},
            "typeSchema": {"instanceSchema": "title: tfx.Schema\n"},
            "metadata": {"who": "{{$.inputs.parameters['owner']}}"},
        }
    }
    steps = {
        "Import": step(
            executor=importer, makes={"result": "tfx.Schema"}, given={"artifact_uri": "/data", "owner": "me"}
        )
    }
    first, second = (run(tmp_path, steps).tasks["Import"].outputs.artifacts["result"][0] for _ in range(2))

    assert (first.uri, first.metadata, first.schema_title) == ("/data", {"who": "me"}, "tfx.Schema")
    assert second == first


CACHED: dict[str, Any] = {"cachingOptions": {"enableCache": True}}


def test_a_result_is_used_again_while_inputs_parameters_code_and_outputs_are_as_they_were(tmp_path):
    parameters = {"word": {"parameterType": "STRING"}}

    def again(word: str = "hello", **settings: Any) -> dict[str, str]:
        steps = {
            "Make": writer(
                "{{$.inputs.parameters['word']}}",
                given={"word": {"componentInputParameter": "word"}},
                **CACHED,
            ),
            "Use": writer("used", takes={"in": "Make.out"}, **CACHED),
            "Always": writer(),
        }
        result = run(tmp_path, steps, f"word={word}", parameters=parameters, **settings)
        folders.append(result.folder)
        return states(result)

    folders: list[Path] = []
    ran = {"Make": "succeeded", "Use": "succeeded", "Always": "succeeded"}
    reused = {"Make": "cached", "Use": "cached", "Always": "succeeded"}
    assert again() == ran
    assert again() == reused
    assert again("bye") == ran
    assert again(use_cache=False) == ran
    assert again(code="other") == ran
    for folder in folders:
        (folder / "Use" / "out").unlink(missing_ok=True)
    assert again() == reused | {"Use": "succeeded"}


def test_the_hook_before_the_cache_check_sets_parameters_and_so_decides_what_is_cached(tmp_path):
    data = tmp_path / "data"
    driver = """
import json, sys, pathlib
call = json.loads(sys.argv[1])
said = {'parameterValues': {'fingerprint': pathlib.Path(sys.argv[2]).read_text()},
        'artifacts': {'out': {'artifacts': [{'metadata': {'span': 2}}]}}}
pathlib.Path(call['outputs']['outputFile']).write_text(json.dumps(said))
"""
    steps = {
        "Read": step(
            WRITE,
            uri("out"),
            "{{$.inputs.parameters['fingerprint']}} {{$.outputs.artifacts['out'].metadata['span']}}",
            makes=OUT,
            container={
                "lifecycle": {
                    "preCacheCheck": {"command": ["python", "-c", driver], "args": ["{{$}}", str(data)]}
                }
            },
            **CACHED,
        )
    }

    data.write_text("first")
    result = run(tmp_path, steps)
    assert content(result, "Read") == "first 2.0"
    assert result.tasks["Read"].outputs.artifacts["out"][0].metadata == {"span": 2}
    assert states(run(tmp_path, steps)) == {"Read": "cached"}
    data.write_text("second")
    assert content(run(tmp_path, steps), "Read") == "second 2.0"


def test_independent_tasks_run_side_by_side_where_asked_for(tmp_path):
    meet = """
import sys, time, pathlib
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
for _ in range(2000):
    if other.exists():
        sys.exit(0)
    time.sleep(0.01)
sys.exit(1)
"""
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    result = run(tmp_path, {"A": step(meet, a, b), "B": step(meet, b, a)}, jobs=2)

    assert set(states(result).values()) == {"succeeded"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_interrupts_it_ends_all_that_it_has_started(tmp_path, number):
    pids = tmp_path / "pids"
    hang = (
        "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '600']); "
        "open(sys.argv[1], 'w').write(f'{os.getpid()} {child.pid}\\n'); time.sleep(600)"
    )
    file = write(tmp_path, pipeline({"Hang": step(hang, str(pids))}))
    arguments = [str(file), "--root", str(tmp_path / "root"), "--any-code"]
    # A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start.
    heed = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from cli.rehearse import rehearse; rehearse(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=REPOSITORY) as process:
        while not (pids.exists() and pids.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=30) != 0

    assert not any(_is_alive(int(pid)) for pid in pids.read_text().split())


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_tfx_compiles_goes_through(tmp_path):
    from tests.pipeline.runners.compiled_by_tfx import compile_to

    file, schema, root = tmp_path / "tfx.json", tmp_path / "schema", tmp_path / "root"
    schema.mkdir()
    (schema / "schema.txt").write_text("imported")
    compile_to(str(file), str(schema))
    model = writer(makes={"out": "tfx.Model"})
    earlier = run(tmp_path, {"Train": model}).tasks["Train"].outputs.artifacts["out"]

    result = rehearse(load(file, str(root)).with_parameters(["word=rehearsed"]), root)

    assert states(result) == {
        "Import": "succeeded",
        "Latest": "succeeded",
        "Other": "succeeded",
        "Produce": "succeeded",
        "Never": "condition false",
    }, [failed.error for failed in result.failed]
    made = result.tasks["Produce"].outputs.artifacts
    assert content(result, "Produce", "said") == "imported rehearsed 4"
    assert made["model"][0].metadata["epochs"] == 3
    assert result.tasks["Latest"].outputs.artifacts["model"] == earlier
