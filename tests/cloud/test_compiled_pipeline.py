"""What a pipeline is compiled to: the same everywhere, as the environment says, and refused where it could not run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cli.main import main
from cloud.compiled_pipeline import Runner, as_file, compile_pipeline
from pipeline.environment import load
from pipeline.layers import ConfigError
from pipeline.source_digest import ROOT, code_digest
from tests.cloud.readable_job import readable
from tests.shop import Shop

Json = dict[str, Any]

FLIGHTS = ROOT / "examples" / "flights" / "pipeline.yaml"
GOLDEN = Path(__file__).with_name("golden")
RENEW = "RENEW_GOLDEN"
IMAGE = "eu.gcr.io/my-project/headworks@sha256:" + "0" * 64
SECRET = "do-not-tell"
BASE = f"""\
project: my-project
region: europe-west1
root: gs://my-bucket/headworks/
service_account: runs@my-project.iam.gserviceaccount.com
image: {IMAGE}
"""
FULL = """\
kms_key: projects/my-project/locations/europe-west1/keyRings/ring/cryptoKeys/key
labels: {team: data}
retries: 2
nodes:
  Trainer: {cpus: 8, memory_gb: 32, accelerator: NVIDIA_L4, accelerators: 2, retries: 3}
  DataGate: {retries: 0, caching: true}
  Transform: {memory_gb: 16, caching: false}
beam:
  runner: dataflow
  nodes: [Transform, StatisticsGen]
  max_workers: 5
  disk_gb: 200
  subnetwork: regions/europe-west1/subnetworks/inside
  options: [--experiments=shuffle_mode=service]
training:
  machine: {type: n1-standard-8}
  workers: 3
registry:
  {model: shop, aliases: [newest], endpoint: front, service_account: server@my-project.iam.gserviceaccount.com}
"""


@dataclass(frozen=True)
class Compiler:
    """The shop, whose table is in the image, and its environment `base`."""

    shop: Shop

    def __call__(self, environment: str = "", *overrides: str, runner: Runner = "vertex") -> Json:
        """Compiles it for BASE and the text; for the text alone where that begins with a comment."""
        file = self.shop.folder / "environments" / "base.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(environment if environment.startswith("#") else BASE + environment)
        return compile_pipeline(self.shop.config, load(self.shop.config, "base"), runner, overrides)


def shop_compiler(folder: Path) -> Compiler:
    shop = Shop(folder / "shop")
    # Nothing is there: a container's files are not this machine's.
    shop.edit("pipeline.yaml", "orders: orders.csv", "orders: /data/orders.csv")
    shop.orders.unlink()
    return Compiler(shop)


@pytest.fixture
def compiled(tmp_path: Path) -> Compiler:
    return shop_compiler(tmp_path)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """The shop's job for an environment that says much."""
    shop = shop_compiler(tmp_path_factory.mktemp("full"))
    return shop(FULL, "train.strategy=multi_worker")


@dataclass(frozen=True)
class Elsewhere:
    """A process that compiles."""

    process: subprocess.Popen[str]
    file: Path

    def job(self) -> tuple[str, str]:
        """What it printed, and what it wrote."""
        output, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors
        return output, self.file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """The flights example, copied and compiled in another folder by another process with a secret around it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(FLIGHTS.parent, folder / "copy", ignore=shutil.ignore_patterns("output"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "7",
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / SECRET),
        "HEADWORKS_TOKEN": SECRET,
    }
    command = [sys.executable, "-m", "cli.main", "compile", "copy/pipeline.yaml", "--env", "prod"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    yield Elsewhere(process, folder / "flights.prod.json")
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def prod(elsewhere: Elsewhere) -> Json:
    """The flights example for Vertex AI; `elsewhere` works meanwhile."""
    return compile_pipeline(FLIGHTS, load(FLIGHTS, "prod"), "vertex")


def tasks(job: Json) -> Json:
    return dict(job["pipelineSpec"]["root"]["dag"]["tasks"])


def parameters(job: Json) -> Json:
    return dict(job["pipelineSpec"]["root"]["inputDefinitions"]["parameters"])


def container(job: Json, node: str) -> Json:
    return dict(job["pipelineSpec"]["deploymentSpec"]["executors"][f"{node}_executor"]["container"])


def constant(job: Json, node: str, name: str) -> Any:
    return tasks(job)[node]["inputs"]["parameters"][name]["runtimeValue"]["constant"]


def is_golden(job: Json, name: str) -> None:
    """Compares with a golden file; RENEW_GOLDEN=1 writes it, and fails so that one looks at it."""
    file, found = GOLDEN / f"{name}.json", readable(job)
    if os.environ.get(RENEW):
        file.write_text(found, encoding="utf-8")
        pytest.fail(f"{file} was written: look at what changed, and run again without {RENEW}")
    assert found == file.read_text(encoding="utf-8"), (
        f"if this is meant: {RENEW}=1 pytest {Path(__file__).relative_to(ROOT)}"
    )


def test_flights_for_vertex_is_as_it_was(prod):
    is_golden(prod, "flights.prod.vertex")


def test_flights_for_kubeflow_is_as_it_was(tmp_path):
    file = tmp_path / "flights.yaml"
    options = ["--runner", "kubeflow", "--image", IMAGE, "--output", str(file)]
    told = CliRunner().invoke(main, ["compile", str(FLIGHTS), *options])
    assert told.exit_code == 0, told.output
    assert f"{file}: 13 components for kubeflow, environment base\n" in told.output
    assert "  parameter epochs: 4\n  parameter home: required\n" in told.output
    is_golden(yaml.safe_load(file.read_text()), "flights.base.kubeflow")


def test_another_process_in_another_folder_compiles_the_same_bytes(prod, elsewhere):
    output, text = elsewhere.job()
    assert text == as_file(prod, "vertex")
    assert "flights.prod.json: 14 components for vertex, environment prod\n" in output
    assert "next: headworks rehearse flights.prod.json --root FOLDER" in output
    words = (str(ROOT), str(Path.home()), "/tmp", sys.prefix, SECRET)
    assert [word for word in words if word in text] == [], "nothing of this machine, and no secret"


def test_it_says_whose_it_is_by_labels(full):
    assert full["displayName"] == "shop"
    assert full["labels"] == {
        "team": "data",
        "headworks-code": code_digest(),
        "headworks-pipeline": "shop",
        "headworks-environment": "base",
    }
    assert full["runtimeConfig"] == {
        "gcsOutputDirectory": "gs://my-bucket/headworks/shop/runs",
        "parameterValues": {},
    }


def test_every_container_runs_our_entry_point_in_the_image(full):
    for executor in full["pipelineSpec"]["deploymentSpec"]["executors"].values():
        spec = executor["container"]
        assert spec["image"] == IMAGE
        assert spec["command"][-3:] == ["python", "-m", "pipeline.container"]
        assert spec["args"][0] == "--executor_class_path"
        place = spec["args"].index("--run_id")
        assert spec["args"][place + 1] == "{{$.pipeline_job_name}}"


def test_retries_are_those_of_the_node_or_of_all(full):
    found = {name: task.get("retryPolicy", {}).get("maxRetryCount") for name, task in tasks(full).items()}
    assert found.pop("Trainer") == 3
    refusing = {"DataGate", "ServingCheck", "ModelGate", "ModelPusher"}
    assert {found.pop(name) for name in refusing} == {None}, "what they refuse once they refuse again"
    assert set(found.values()) == {2}
    assert tasks(full)["Trainer"]["retryPolicy"]["backoffDuration"] == "60s"


def test_what_looks_outside_of_its_inputs_is_never_cached(full):
    cached = {name for name, task in tasks(full).items() if task["cachingOptions"].get("enableCache")}
    looking = {"PreviousData", "DataGate", "Champion", "ModelPusher", "RegistryPusher"}
    assert cached == set(tasks(full)) - looking - {"Transform"}, "Transform as its node says"


def test_machines_are_those_of_the_node(full):
    assert container(full, "Trainer")["resources"] == {
        "cpuLimit": 8,
        "memoryLimit": 32,
        "accelerator": {"type": "NVIDIA_L4", "count": "2"},
    }
    assert container(full, "Transform")["resources"] == {"memoryLimit": 16}
    assert "resources" not in container(full, "Evaluator")


def test_beams_stages_run_where_the_environment_says(full):
    for node in ("Transform", "StatisticsGen"):
        args = container(full, node)["args"]
        for option in (
            "--runner=DataflowRunner",
            "--project=my-project",
            "--region=europe-west1",
            "--temp_location=gs://my-bucket/headworks/shop/beam/temp",
            f"--sdk_container_image={IMAGE}",
            "--sdk_location=container",
            "--service_account_email=runs@my-project.iam.gserviceaccount.com",
            "--max_num_workers=5",
            "--disk_size_gb=200",
            "--no_use_public_ips",
            "--subnetwork=regions/europe-west1/subnetworks/inside",
            "--labels=team=data",
            "--experiments=shuffle_mode=service",
        ):
            assert option in args
        assert any(arg.startswith("--dataflow_kms_key=projects/my-project/") for arg in args)
        assert not any(arg.startswith("--job_name") for arg in args), "two runs at once need two names"
        assert "--runner=FnApiRunner" not in args
    assert "--runner=FnApiRunner" in container(full, "Evaluator")["args"]
    for node in ("Trainer", "ModelGate", "QueryExampleGen"):
        assert not any(arg.startswith(("--runner", "--sdk")) for arg in container(full, node)["args"])


def test_a_cluster_of_flink_is_reached_by_portable_options(compiled):
    options = "beam: {runner: flink, nodes: [Transform], options: ['--flink_master=flink:8081']}\n"
    args = container(compiled(options, runner="kubeflow"), "Transform")["args"]
    assert args[-5:] == [
        "--runner=FlinkRunner",
        "--environment_type=DOCKER",
        f"--environment_config={IMAGE}",
        f"--sdk_container_image={IMAGE}",
        "--flink_master=flink:8081",
    ]


def test_beams_workers_may_have_an_image_of_their_own(compiled):
    image = IMAGE.replace("headworks@", "beam@")
    job = compiled(f"beam: {{runner: dataflow, nodes: [Transform], image: '{image}'}}\n")
    assert f"--sdk_container_image={image}" in container(job, "Transform")["args"]
    assert container(job, "Transform")["image"] == IMAGE


def test_kubernetes_knows_gpus_by_another_name(compiled):
    job = compiled("nodes: {Trainer: {accelerator: NVIDIA_L4, accelerators: 2}}\n", runner="kubeflow")
    assert container(job, "Trainer")["resources"]["accelerator"] == {"type": "nvidia.com/gpu", "count": "2"}


def test_a_training_of_several_machines_is_a_custom_job(full):
    command = container(full, "Trainer")["command"]
    assert command[:4] == ["python", "-m", "cloud.custom_job", "--settings"]
    settings = json.loads(command[4])
    assert (settings["name"], settings["strategy"]) == ("shop-trainer", "multi_worker")
    assert settings["training"]["workers"] == 3
    assert settings["kms_key"].endswith("/ring/cryptoKeys/key")
    assert command[5:] == ["--", "python", "-m", "pipeline.container"]
    assert container(full, "ModelGate")["command"] == ["python", "-m", "pipeline.container"]


def test_a_pushed_version_enters_the_registry(full):
    assert json.loads(constant(full, "RegistryPusher", "settings"))["endpoint"] == "front"
    assert set(tasks(full)["RegistryPusher"]["dependentTasks"]) == {"ModelPusher", "ModelGate"}


def test_a_run_may_give_what_the_configuration_has_as_defaults(full):
    assert parameters(full) == {
        "epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 1},
        "home": {"parameterType": "STRING", "defaultValue": "gs://my-bucket/headworks/shop"},
        "strategy": {"parameterType": "STRING", "defaultValue": "multi_worker"},
    }
    given = tasks(full)["Trainer"]["inputs"]["parameters"]
    for name in ("epochs", "home", "strategy"):
        assert given[name] == {"componentInputParameter": name}
    assert "training_folder" not in json.loads(constant(full, "Trainer", "custom_config"))


@pytest.mark.parametrize(("last", "default"), [("latest", -1), ("7", 7)])
def test_a_run_may_name_the_span_of_its_data(compiled, last, default):
    job = compiled(
        "", f"data.span={{last: {last}, window: 2}}", "data.source.tables.orders=gs://b/{SPAN}/orders.csv"
    )
    assert parameters(job)["span"] == {"parameterType": "NUMBER_INTEGER", "defaultValue": default}
    assert tasks(job)["QueryExampleGen"]["inputs"]["parameters"]["span"] == {
        "componentInputParameter": "span"
    }
    assert tasks(job)["QueryExampleGen"]["cachingOptions"] == {}, "files in a bucket may change"


def test_the_snapshot_of_a_table_has_no_default(prod):
    assert parameters(prod)["snapshot_time"] == {"parameterType": "STRING"}


def test_without_a_root_a_run_has_to_name_its_home(compiled):
    job = compiled(f"# nothing but the image\nimage: {IMAGE}\n", runner="kubeflow")
    assert job["runtimeConfig"] == {"parameterValues": {}}
    assert parameters(job)["home"] == {"parameterType": "STRING"}


def test_a_warm_start_looks_for_the_champion_when_it_runs(compiled):
    job = compiled("", "train.warm_start={}")
    base = tasks(job)["Trainer"]["inputs"]["artifacts"]["base_model"]["taskOutputArtifact"]
    assert base == {"producerTask": "WarmStartModel", "outputArtifactKey": "model"}
    assert tasks(job)["WarmStartModel"]["cachingOptions"] == {}


def test_overrides_that_have_run_out_travel_along(compiled):
    # Which of them count is decided when a gate runs: a schedule outlives its day of compilation.
    given = {"check": "rows in *", "owner": "ada", "reason": "a small shop", "until": "2020-01-01"}
    job = compiled("", f"overrides=[{json.dumps(given)}]")
    for gate in ("DataGate", "ServingCheck", "ModelGate"):
        assert json.loads(constant(job, gate, "overrides")) == [given]


def test_an_environment_may_push_elsewhere(compiled):
    job = compiled("config: {push: {folder: gs://models/shop}}\n")
    assert constant(job, "ModelPusher", "folder") == "gs://models/shop"
    assert constant(job, "Champion", "serving") == "gs://models/shop"


@pytest.mark.parametrize(
    ("environment", "overrides", "runner", "message"),
    [
        (
            "nodes: {Trianer: {cpus: 2}}",
            (),
            "vertex",
            "nodes.Trianer: no such component; did you mean Trainer? ({environment}:6)",
        ),
        (
            "nodes:\n  Warehouse: {cpus: 2}",
            (),
            "vertex",
            "nodes.Warehouse: no such component; there are Champion, DataGate, Evaluator,",
        ),
        (
            "beam: {runner: dataflow, nodes: [Transfrom]}",
            (),
            "vertex",
            "beam.nodes.Transfrom: no such component; did you mean Transform? ({environment}:6)",
        ),
        (
            "beam:\n  runner: flink\n  nodes: [Trainer]",
            (),
            "vertex",
            "beam.nodes: Trainer has no stages of Beam; there are Evaluator, StatisticsGen, Transform "
            "({environment}:8)",
        ),
        (
            f"# no root\nimage: {IMAGE}\nbeam: {{runner: dataflow}}",
            (),
            "vertex",
            "root: missing; set it in {environment}",
        ),
        ("# no image", (), "vertex", "image: missing; set it in {environment}"),
        ("#\nregion: europe-west1", (), "vertex", "image: missing; set it in {environment}"),
        (
            "#\nimage: eu.gcr.io/p/i:latest",
            (),
            "vertex",
            "image: 'eu.gcr.io/p/i:latest' is not of the form that is wanted: Image",
        ),
        ("cashing: false", (), "vertex", "cashing: unknown key; did you mean caching? ({environment}:6)"),
        (
            "training: {machine: {type: n1-standard-8}}",
            (),
            "kubeflow",
            "training: custom jobs are Vertex AI's; leave it out for kubeflow ({environment}:6)",
        ),
        (
            "training: {machine: {type: n1-standard-8}, parameter_servers: 1}",
            (),
            "vertex",
            "training.parameter_servers: ",
        ),
        (
            "training: {machine: {type: n1-standard-8}}",
            ("train.cluster={workers: 2}", "train.strategy=multi_worker"),
            "vertex",
            "train.cluster: a cluster on one machine, and training asks for machines of a custom job: leave one out "
            "(--set train.cluster=",
        ),
        (
            "config:\n  data: {source: {tables: {orders: gs://b/orders.csv}}}",
            (),
            "kubeflow",
            "data.source.tables.orders: gs://b/orders.csv: containers of Kubeflow see no bucket but those of "
            "artifacts: use source.kind: bigquery, or mount the files and name an absolute path ({environment}:7)",
        ),
        (
            "",
            ("data.source.tables.orders=orders.csv",),
            "vertex",
            "data.source.tables.orders: orders.csv is beside the configuration on this machine, where no container "
            "finds it: name a gs:// location, an absolute path in the image, or package:// "
            "(--set data.source.tables.orders=orders.csv)",
        ),
        (
            "",
            ("train.warm_start={source: ../old}",),
            "vertex",
            "train.warm_start.source: ../old is a folder of this machine; a compiled pipeline begins with the "
            "champion (--set ",
        ),
        (
            "config: {push: {folder: serving}}",
            (),
            "vertex",
            "push.folder: serving is beside the configuration on this machine: name a gs:// folder ({environment}:6)",
        ),
        (
            "config: {serving_check: {docker: true}}",
            (),
            "vertex",
            "serving_check.docker: containers of a pipeline start no others: set it to false in the environment "
            "({environment}:6)",
        ),
        (
            "",
            ("name=my_shop",),
            "vertex",
            "name: my_shop: a compiled pipeline's name holds a-z, 0-9 and - only (--set name=my_shop)",
        ),
        (
            "",
            ("data.source={kind: csv, folder: data}", "data.split={by: folder}"),
            "vertex",
            "data.source.folder: data is beside the configuration on this machine, where no container finds it: "
            "name a gs:// folder (--set data.source=",
        ),
        (
            "",
            (
                "data.source={kind: csv, folder: 'gs://b/{SPAN}'}",
                "data.split={by: folder}",
                "data.span={window: 1}",
            ),
            "vertex",
            "data.span: a compiled pipeline reads spans with source.kind: query or bigquery, not csv (--set ",
        ),
    ],
)
def test_what_could_not_run_is_refused_with_its_key_and_line(
    compiled, environment, overrides, runner, message
):
    with pytest.raises(ConfigError) as caught:
        compiled(f"{environment}\n", *overrides, runner=runner)
    file = compiled.shop.folder / "environments" / "base.yaml"
    assert str(caught.value).startswith(message.replace("{environment}", str(file)))
