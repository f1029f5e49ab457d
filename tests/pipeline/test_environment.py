"""Environments of a pipeline: which files make one, and what is refused in them."""

from pathlib import Path

import pytest

from pipeline.config import load as load_config
from pipeline.environment import Environment, load
from pipeline.layers import ConfigError

IMAGE = "eu.gcr.io/p/i@sha256:" + "0" * 64


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with an environment `prod` above `base`; `prod.yaml` may be written anew."""
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "name: shop\ndata: {source: {kind: csv, folder: data}, split: {by: folder}}\nlabel: {column: y}\n"
    )
    folder = tmp_path / "environments"
    folder.mkdir()
    (folder / "base.yaml").write_text(
        "retries: 2\nnodes:\n  Trainer: {cpus: 8, retries: 3}\nlabels: {team: data}\n"
    )
    (folder / "prod.yaml").write_text("root: gs://bucket/r\nnodes:\n  Trainer: {cpus: 16}\n")
    return path


def prod(config: Path, text: str) -> Path:
    file = config.parent / "environments" / "prod.yaml"
    file.write_text(text)
    return file


def refused(config: Path, name: str = "prod") -> str:
    with pytest.raises(ConfigError) as caught:
        load(config, name)
    return str(caught.value)


def test_an_environment_adds_to_base(config):
    place = load(config, "prod")
    trainer = place.settings.nodes["Trainer"]
    assert (place.name, place.settings.root, place.settings.retries) == ("prod", "gs://bucket/r", 2)
    assert (trainer.cpus, trainer.retries) == (16, 3)
    assert place.settings.labels == {"team": "data"}
    folder = config.parent / "environments"
    assert place.place("nodes.Trainer.cpus") == f"{folder}/prod.yaml:3"
    assert place.place("nodes.Trainer.retries") == f"{folder}/base.yaml:3"
    assert place.place("nodes.Trainer.memory_gb") == f"{folder}/prod.yaml:3", "the group around it"


def test_base_alone_is_an_environment(config):
    place = load(config, "base", (f"image={IMAGE}",))
    assert place.settings == Environment(
        retries=2, nodes=place.settings.nodes, labels={"team": "data"}, image=IMAGE
    )
    assert place.lines["image"] == f"--set image={IMAGE}"
    assert [layer.path.name for layer in place.layers] == ["base.yaml"]


def test_its_config_changes_the_configuration(config):
    file = prod(config, "config:\n  data: {source: {folder: gs://b/data}}\n")
    project = load_config(config, layers=load(config, "prod").layers)
    assert project.values()["data"]["source"] == {"kind": "csv", "folder": "gs://b/data"}
    assert project.place("data.source.folder") == f"{file}:2"


def test_a_missing_layer_names_its_file_and_those_that_are_there(config):
    folder = config.parent / "environments"
    assert refused(config, "prdo") == f"environment prdo: no file {folder}/prdo.yaml; did you mean prod?"
    assert refused(config, "qa") == f"environment qa: no file {folder}/qa.yaml; there are base, prod"
    (folder / "prod.yaml").unlink()
    (folder / "base.yaml").unlink()
    assert f"environment prod: no file {folder}/prod.yaml; write it" in refused(config)


def test_base_is_what_all_share_and_need_not_be(config):
    (config.parent / "environments" / "base.yaml").unlink()
    assert load(config, "prod").settings.retries == Environment().retries
    assert load(config, "base").settings == Environment()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nretrys: 2", "retrys: unknown key; did you mean retries? ({file}:2)"),
        ("\nnodes:\n  Trainer: {cpu: 8}", "nodes.Trainer.cpu: unknown key; did you mean cpus? ({file}:3)"),
        ("nodes: {Trainer: {retries: 11}}", "nodes.Trainer.retries: 11: "),
        ("image: eu.gcr.io/p/i:latest", "image: 'eu.gcr.io/p/i:latest' is not of the form that is wanted"),
        ("region: europe", "region: 'europe' is not of the form that is wanted"),
        ("labels: {Team: data}", "({file}:1)"),
        ("training: {}", "training.machine: missing; this key is required ({file}:1)"),
        (
            "\nbeam: {runner: dataflow, min_workers: 3, max_workers: 2}",
            "beam: min_workers 3: want 1 to max_workers, which is 2 ({file}:2)",
        ),
        (
            "registry: {model: m, min_machines: 3, max_machines: 2}",
            "registry: min_machines 3: want 1 to max_machines, which is 2 ({file}:1)",
        ),
    ],
)
def test_a_fault_names_key_value_file_and_line(config, text, message):
    file = prod(config, text + "\n")
    assert message.format(file=file) in refused(config)


def test_a_setting_that_the_work_needs_is_asked_for_by_key_and_file(config):
    with pytest.raises(ConfigError, match=r"^region: missing; set it in .*/environments/prod\.yaml$"):
        load(config, "prod").require("region")
