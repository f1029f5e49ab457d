"""What a container of a compiled pipeline does around an executor."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tfx.dsl.components.base import base_beam_executor, base_executor

from gates.verdict import Outcome, Verdict
from pipeline import container, mounts
from pipeline.components.gate_output import REFUSED_FOLDER, read_verdicts, write_or_stop

Json = dict[str, Any]

STORAGE = "gs://b/runs/1"
INPUT, OUTPUT, OUTPUT_FILE = f"{STORAGE}/made/model", f"{STORAGE}/task/copy", f"{STORAGE}/task/output.json"

BEAM = "--sdk_container_image=local"

seen: list[Any] = []
"""What the executors below were given."""


class Copy(base_executor.BaseExecutor):
    """Copies a file, and says what it was given."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's interface)
        """Fails after it wrote, where its parameter says so."""
        seen.append((input_dict, exec_properties, os.environ[container.RUN_ID]))
        [target] = output_dict["copy"]
        folder = Path(target.uri, "Format-Serving")
        folder.mkdir(parents=True)
        for given in input_dict["model"]:
            (folder / "saved_model.pb").write_text(Path(given.uri, "saved_model.pb").read_text())
        target.set_string_custom_property("place", target.uri)
        assert not Path(mounts.local_path(OUTPUT)).exists(), "nothing is seen before it is whole"
        if exec_properties.get("word") == "fail":
            raise OSError("the disk is full")


class Refuse(base_executor.BaseExecutor):
    """A gate that refuses."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's interface)
        """Stops the run."""
        refused = Verdict("taste", Outcome.REFUSED, "bland", "tasty", "the model is bland")
        write_or_stop((refused,), None, Path(output_dict["copy"][0].uri))


class Refer(base_executor.BaseExecutor):
    """Puts out what lies elsewhere."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's interface)
        """Refers to the model by its path, and to a URI."""
        output_dict["copy"][0].uri = input_dict["model"][0].uri
        output_dict["other"][0].uri = "gs://other/model"


class Beam(base_beam_executor.BaseBeamExecutor):
    """An executor whose stages may run on other machines."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's interface)
        """Says what it was given."""
        seen.append((input_dict["model"][0].uri, output_dict["copy"][0].uri, self._beam_pipeline_args))


@dataclass(frozen=True)
class Buckets:
    """The buckets as folders, with a model in one."""

    folder: Path

    def path(self, uri: str) -> Path:
        return Path(mounts.local_path(uri))

    def output(self, file: str = OUTPUT_FILE) -> Json:
        """What the container told about its outputs."""
        return dict(json.loads(self.path(file).read_text())["artifacts"])

    def files(self, uri: str) -> list[str]:
        folder = self.path(uri)
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buckets:
    for scheme, name in (("gs://", "gcs"), ("minio://", "minio"), ("s3://", "s3")):
        monkeypatch.setitem(mounts.MOUNTS, scheme, f"{tmp_path}/{name}/")
        model = Path(mounts.local_path(INPUT.replace("gs://", scheme)))
        model.mkdir(parents=True)
        (model / "saved_model.pb").write_text("a model")
    for name in ("TF_CONFIG", container.RUN_ID, REFUSED_FOLDER):
        monkeypatch.setenv(name, "")
    seen.clear()
    return Buckets(tmp_path)


def artifact(uri: str, metadata: Mapping[str, Any] | None = None) -> Json:
    kind = {"instanceSchema": "title: tfx.Model\ntype: object\n"}
    return {"artifacts": [{"name": "1", "type": kind, "uri": uri, "metadata": dict(metadata or {})}]}


def run(executor: type[Any], *, model: Json | None = None, word: str = "hello", **places: str) -> None:
    """Runs an executor as the service would."""
    outputs = {"copy": artifact(places.get("output", OUTPUT))}
    if "other" in places:
        outputs["other"] = artifact(places["other"])
    call = {
        "inputs": {
            "artifacts": {"model": model or artifact(INPUT)},
            "parameterValues": {"word": word},
        },
        "outputs": {"artifacts": outputs, "outputFile": places.get("output_file", OUTPUT_FILE)},
    }
    inputs = {"parameters": {"word": {"parameterType": "STRING"}}}
    container.main(
        [
            "--executor_class_path",
            f"{__name__}.{executor.__name__}",
            "--json_serialized_invocation_args",
            json.dumps(call),
            "--json_serialized_inputs_spec_args",
            json.dumps(inputs),
            "--run_id",
            "shop-1",
            BEAM,
        ]
    )


@pytest.mark.parametrize("scheme", ["gs://", "minio://", "s3://"])
def test_our_executors_see_folders_and_the_pipeline_sees_uris(buckets, scheme):
    places = [uri.replace("gs://", scheme) for uri in (INPUT, OUTPUT, OUTPUT_FILE)]
    run(Copy, model=artifact(places[0]), output=places[1], output_file=places[2])
    [(inputs, properties, run_id)] = seen
    assert inputs["model"][0].uri == str(buckets.path(places[0]))
    assert (properties, run_id) == ({"word": "hello"}, "shop-1")
    assert buckets.files(places[1]) == ["Format-Serving/saved_model.pb"]
    [made] = buckets.output(places[2])["copy"]["artifacts"]
    assert made["uri"] == places[1]
    scratch = made["metadata"]["place"]
    assert not Path(scratch).exists(), "made on the machine's disk, which is left clean"
    assert Path(scratch).name == "copy"
    assert not scratch.startswith(str(buckets.folder))


def test_folders_of_this_machine_stay_what_they_are(buckets):
    model, copy, file = (str(buckets.folder / name) for name in ("model", "copy", "task/output.json"))
    Path(model).mkdir()
    Path(model, "saved_model.pb").write_text("a model")
    run(Copy, model=artifact(model), output=copy, output_file=file)
    assert buckets.files(copy) == ["Format-Serving/saved_model.pb"]
    assert buckets.output(file)["copy"]["artifacts"][0]["uri"] == copy


def test_nothing_is_copied_when_the_executor_fails(buckets):
    with pytest.raises(OSError, match="the disk is full"):
        run(Copy, word="fail")
    assert buckets.files(STORAGE) == ["made/model/saved_model.pb"]


def test_what_a_gate_refused_is_kept_beside_the_output_file(buckets, capsys):
    with pytest.raises(Exception, match="the model is bland"):
        run(Refuse)
    assert [found.name for found in read_verdicts(buckets.path(f"{STORAGE}/task/refused"))] == ["taste"]
    assert not buckets.path(OUTPUT_FILE).exists()
    assert f"what was found: {STORAGE}/task/refused\n" in capsys.readouterr().err


def test_what_an_executor_refers_to_is_told_by_its_uri(buckets):
    run(Refer, other=f"{STORAGE}/task/other")
    told = buckets.output()
    assert told["copy"]["artifacts"][0]["uri"] == INPUT
    assert told["other"]["artifacts"][0]["uri"] == "gs://other/model"
    assert not buckets.path(OUTPUT).exists()


def test_an_artifact_that_stands_for_none_is_no_input(buckets):
    run(Copy, model=artifact(INPUT, {container.ABSENT: 1}))
    [(inputs, _, _)] = seen
    assert inputs["model"] == []
    assert buckets.files(OUTPUT) == []


def test_beams_executors_get_uris_of_gs_and_paths_of_what_beam_does_not_know(buckets):
    file = str(buckets.folder / "output.json")
    run(Beam, output_file=file)
    run(
        Beam,
        model=artifact(INPUT.replace("gs://", "minio://")),
        output=OUTPUT.replace("gs://", "minio://"),
        output_file=file.replace("output", "other"),
    )
    (remote, local) = seen
    assert remote[:2] == (INPUT, OUTPUT)
    assert BEAM in remote[2]
    assert local[0] == str(buckets.path(INPUT.replace("gs://", "minio://")))
    assert not local[1].startswith("minio://")


@pytest.mark.parametrize(("kind", "index", "publishes"), [("chief", 0, True), ("worker", 0, False)])
def test_of_machines_that_train_together_the_chief_tells_what_was_made(
    buckets, monkeypatch, kind, index, publishes
):
    cluster = {"chief": ["a:1"], "worker": ["b:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
    monkeypatch.setattr(Copy, "Do", _where)
    run(Copy)
    assert seen == [str(buckets.path(OUTPUT))], "they see each other's files"
    assert buckets.path(OUTPUT_FILE).exists() == publishes
    if publishes:
        assert buckets.output()["copy"]["artifacts"][0]["uri"] == OUTPUT


def _where(_self: Any, _inputs: Any, outputs: Any, _properties: Any) -> None:
    seen.append(outputs["copy"][0].uri)


def test_the_names_that_gates_and_containers_agree_on_are_one():
    assert container._REFUSED_FOLDER == REFUSED_FOLDER
