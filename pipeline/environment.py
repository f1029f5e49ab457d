"""Where a compiled pipeline runs: the environments of a pipeline, `base` below and `dev`, `staging`, `prod`, ... above.

An environment is a YAML file in the folder `environments` beside the configuration. `base.yaml` holds what all share;
the others add to it. Nothing secret stands there: credentials come with the service account.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from pipeline.config import STRICT, Names
from pipeline.layers import ConfigError, Layer, read

FOLDER = "environments"
BASE = "base"

_IMAGE = r"^[a-z0-9][\w./:-]*@sha256:[0-9a-f]{64}$"
_REGION = r"^[a-z]+-[a-z]+\d+$"
_ROOT = r"^(gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/.*)?|/.+)$"
_ACCOUNT = r"^[\w.-]+@[\w.-]+$"
_PROJECT = r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$"
_KEY = r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$"
_NETWORK = r"^projects/\d+/global/networks/[a-z0-9-]+$"
_ACCELERATOR = r"^[A-Z][A-Z0-9_]+$"

Count = Annotated[int, Field(ge=1)]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
LabelValue = Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,63}$")]


@dataclass(frozen=True, config=STRICT)
class NodeResources:
    """`nodes.NAME`: what one component runs on, and how hard to try."""

    cpus: Annotated[float | None, Field(gt=0, description="Processors of its machine, at least.")] = None
    memory_gb: Annotated[float | None, Field(gt=0, description="Memory of its machine in GiB, at least.")] = (
        None
    )
    accelerator: Annotated[
        str | None, Field(pattern=_ACCELERATOR, description="Kind of accelerator, such as NVIDIA_L4.")
    ] = None
    accelerators: Annotated[Count, Field(description="Number of accelerators.")] = 1
    retries: Annotated[
        int | None, Field(ge=0, le=10, description="More tries after a failure; absent: as all.")
    ] = None
    caching: Annotated[bool | None, Field(description="Reuse earlier results; absent: as all.")] = None


@dataclass(frozen=True, config=STRICT)
class PoolMachine:
    """`training.machine` and others: a machine of a custom job."""

    type: Annotated[str, Field(pattern=r"^[a-z0-9]+-[a-z0-9-]+$", description="Such as n1-standard-8.")]
    accelerator: Annotated[
        str | None, Field(pattern=_ACCELERATOR, description="Such as NVIDIA_TESLA_T4 or TPU_V3.")
    ] = None
    accelerators: Annotated[Count, Field(description="Number of accelerators of each machine.")] = 1
    tpu_topology: Annotated[str | None, Field(description="Topology of TPU v4 and later, such as 2x2x1.")] = (
        None
    )
    disk_gb: Annotated[int, Field(ge=100, le=64_000, description="Boot disk.")] = 100
    disk_type: Annotated[Literal["pd-ssd", "pd-standard"], Field(description="Kind of disk.")] = "pd-ssd"


@dataclass(frozen=True, config=STRICT)
class TrainingJob:
    """`training`: Trainer and Tuner as custom jobs. Absent: they run in the machine of their component.

    The pools follow from `train.strategy`: one machine, or chief and workers, or chief, workers and parameter servers.
    """

    machine: Annotated[PoolMachine, Field(description="Of the chief and the workers.")]
    workers: Annotated[int, Field(ge=0, le=256, description="Workers beside the chief.")] = 0
    parameter_servers: Annotated[
        int, Field(ge=0, le=64, description="Machines that hold weights; train.strategy: parameter_server.")
    ] = 0
    parameter_server_machine: Annotated[
        PoolMachine | None, Field(description="Absent: as the chief, without accelerators.")
    ] = None
    reduction_servers: Annotated[
        int,
        Field(
            ge=0, le=64, description="Machines that add up gradients of GPUs; train.strategy: multi_worker."
        ),
    ] = 0
    reduction_server_machine: Annotated[PoolMachine | None, Field(description="Absent: n1-highcpu-16.")] = (
        None
    )
    reduction_server_image: Annotated[str | None, Field(description="Image of the reduction servers.")] = None
    spot: Annotated[
        bool, Field(description="Machines that may be taken away; training goes on from its checkpoint.")
    ] = False
    timeout_hours: Annotated[float, Field(gt=0, le=168, description="Longest time of a job.")] = 24.0
    tensorboard: Annotated[
        str | None,
        Field(
            pattern=r"^projects/[^/]+/locations/[^/]+/tensorboards/[^/]+$",
            description="TensorBoard instance that shows the training.",
        ),
    ] = None


@dataclass(frozen=True, config=STRICT)
class TuningJob:
    """`tuning`: the search of the Tuner on several machines. Absent: on the machine of `training` alone."""

    workers: Annotated[
        int, Field(ge=1, le=64, description="Machines that try settings, beside the oracle.")
    ] = 1
    service: Annotated[
        bool, Field(description="Let the service's optimizer choose the settings instead of KerasTuner.")
    ] = False


@dataclass(frozen=True, config=STRICT)
class BeamStages:
    """`beam`: where Beam's stages of the components run. Absent: in the machine of each component."""

    runner: Annotated[
        Literal["dataflow", "flink", "spark"],
        Field(description="flink and spark by Beam's portable options."),
    ]
    nodes: Annotated[
        Names, Field(min_length=1, description="Components whose stages run there, by their ids.")
    ] = ("StatisticsGen", "Transform", "Evaluator")
    image: Annotated[
        str | None,
        Field(pattern=_IMAGE, description="Image of the workers. Absent: the environment's image."),
    ] = None
    machine_type: Annotated[str, Field(description="Of a Dataflow worker.")] = "n2-standard-4"
    disk_gb: Annotated[
        int | None,
        Field(ge=10, le=64_000, description="dataflow: disk of a worker. Absent: Dataflow's choice."),
    ] = None
    min_workers: Annotated[Count, Field(description="dataflow: kept even if there is little to do.")] = 1
    max_workers: Annotated[Count, Field(description="dataflow: at most.")] = 10
    subnetwork: Annotated[str | None, Field(description="dataflow: regions/REGION/subnetworks/NAME.")] = None
    private_ips: Annotated[bool, Field(description="dataflow: workers have no address on the internet.")] = (
        True
    )
    options: Annotated[
        Names, Field(description="More of Beam's options, such as --flink_master=ADDRESS.")
    ] = ()

    @model_validator(mode="after")
    def _bounds(self) -> BeamStages:
        if self.min_workers > self.max_workers:
            raise ValueError(
                f"min_workers {self.min_workers}: want 1 to max_workers, which is {self.max_workers}"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class RegistrySettings:
    """`registry`: pushed versions as versions of one model in the Model Registry. Absent: files alone."""

    model: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Id of the model, which all versions share."),
    ]
    image: Annotated[
        str | None,
        Field(pattern=_IMAGE, description="Image that serves it. Absent: the environment's image."),
    ] = None
    aliases: Annotated[Names, Field(description="Aliases that move to the newest version.")] = ()
    endpoint: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z][a-z0-9-]{0,62}$",
            description="Id of the endpoint that gets each new version. Absent: none.",
        ),
    ] = None
    traffic_percent: Annotated[
        int, Field(ge=0, le=100, description="Share of the endpoint's traffic for a new version.")
    ] = 0
    service_account: Annotated[
        str | None,
        Field(
            pattern=_ACCOUNT,
            description="Account that the endpoint's containers act as, which reads the bucket and no more. Required "
            "with endpoint.",
        ),
    ] = None
    machine_type: Annotated[str, Field(description="Of the endpoint's machines.")] = "n1-standard-2"
    min_machines: Annotated[Count, Field(description="At least.")] = 1
    max_machines: Annotated[Count, Field(description="At most.")] = 1

    @model_validator(mode="after")
    def _account(self) -> RegistrySettings:
        # Without one the containers would act as the account that runs pipelines, and might do all that it may.
        if self.endpoint is not None and self.service_account is None:
            raise ValueError(
                f"service_account: missing; endpoint {self.endpoint} needs the account that its containers act as"
            )
        return self

    @model_validator(mode="after")
    def _bounds(self) -> RegistrySettings:
        if self.min_machines > self.max_machines:
            raise ValueError(
                f"min_machines {self.min_machines}: want 1 to max_machines, which is {self.max_machines}"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class Environment:
    """Settings of one environment."""

    project: Annotated[str | None, Field(pattern=_PROJECT, description="Google Cloud project.")] = None
    region: Annotated[str | None, Field(pattern=_REGION, description="Such as europe-west1.")] = None
    root: Annotated[
        str | None,
        Field(
            pattern=_ROOT,
            description="Folder for all that runs write: gs://BUCKET/FOLDER, or a path that all containers mount.",
        ),
    ] = None
    image: Annotated[
        str | None,
        Field(pattern=_IMAGE, description="Image of all components, by digest: HOST/PATH@sha256:..."),
    ] = None
    service_account: Annotated[
        str | None, Field(pattern=_ACCOUNT, description="Account that runs act as; there is no default.")
    ] = None
    network: Annotated[
        str | None, Field(pattern=_NETWORK, description="projects/NUMBER/global/networks/NAME.")
    ] = None
    kms_key: Annotated[
        str | None, Field(pattern=_KEY, description="Key that encrypts what the service keeps.")
    ] = None
    labels: Annotated[dict[Label, LabelValue], Field(description="By which costs are told apart.")] = Field(
        default_factory=dict
    )
    caching: Annotated[bool, Field(description="Reuse results of earlier runs with the same inputs.")] = True
    retries: Annotated[int, Field(ge=0, le=10, description="More tries after a component's failure.")] = 1
    nodes: Annotated[dict[str, NodeResources], Field(description="By component id, e.g. Trainer.")] = Field(
        default_factory=dict
    )
    beam: Annotated[BeamStages | None, Field(description="Beam's stages elsewhere.")] = None
    training: Annotated[TrainingJob | None, Field(description="Trainer and Tuner as custom jobs.")] = None
    tuning: Annotated[TuningJob | None, Field(description="The Tuner's search on several machines.")] = None
    registry: Annotated[RegistrySettings | None, Field(description="Model Registry and endpoint.")] = None
    config: Annotated[
        dict[str, Any], Field(description="What this environment changes in the configuration.")
    ] = Field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """An environment by its name, with the lines it was read from.

    Attributes:
      name: `dev`, for example.
      settings: of the environment.
      file: its own file; there may be none for `base`.
      layers: files whose group `config` changes the configuration.
      lines: where each dotted key was set.
    """

    name: str
    settings: Environment
    file: Path
    layers: tuple[Layer, ...]
    lines: Mapping[str, str]

    def require(self, key: str) -> str:
        """A setting that the work at hand needs.

        Raises:
          ConfigError: naming the key and the file, if it is not set.
        """
        value = getattr(self.settings, key)
        if value is None:
            raise ConfigError(f"{key}: missing; set it in {self.file}")
        return str(value)

    def place(self, key: str) -> str:
        """Where a dotted key, or the nearest group around it, was set."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return self.lines.get(key, str(self.file))


def load(config_file: str | Path, name: str, overrides: tuple[str, ...] = ()) -> Place:
    """Reads the environment of a configuration.

    Args:
      config_file: the pipeline's YAML file.
      name: of the environment; `base` alone is one, too, also where it has no file.
      overrides: `dotted.key=value` assignments.

    Raises:
      ConfigError: if there is no such environment, or something is wrong in it.
    """
    if not Path(config_file).is_file():
        raise ConfigError(f"{config_file}: no such file; name the pipeline's configuration")
    folder = Path(config_file).parent / FOLDER
    own = folder / f"{name}.yaml"
    if name != BASE and not own.is_file():
        there = sorted(path.stem for path in folder.glob("*.yaml"))
        close = difflib.get_close_matches(name, there, n=1)
        listed = f"there are {', '.join(there)}" if there else "write it; docs/environments.md has every key"
        raise ConfigError(
            f"environment {name}: no file {own}; {f'did you mean {close[0]}?' if close else listed}"
        )
    files = [file for file in dict.fromkeys((folder / f"{BASE}.yaml", own)) if file.is_file()]
    found = read(Environment, [Layer(file, may_be_empty=True) for file in files], overrides)
    layers = tuple(Layer(file, "config", may_be_empty=True) for file in files)
    return Place(name, found.value, own, layers, found.lines)
