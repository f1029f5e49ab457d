"""A pipeline as a job of Kubeflow Pipelines v2: what Vertex AI and Kubeflow run, and a rehearsal on this machine.

TFX compiles the graph. What it leaves out is put in afterwards: retries, caching by task, machines, where Beam's stages
run, and jobs of several machines. The same configuration, environment and code give the same bytes.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import container
from pipeline.config import BigQuerySource, ConfigError, Project, load
from pipeline.environment import Environment, NodeResources, Place
from pipeline.source_digest import code_digest

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

CODE_LABEL = "headworks-code"
PIPELINE_LABEL = "headworks-pipeline"
ENVIRONMENT_LABEL = "headworks-environment"

Runner = Literal["vertex", "kubeflow"]
Json = dict[str, Any]

_UNCACHED = frozenset(
    {
        "PreviousData",
        "DataGate",
        "Champion",
        "WarmStartModel",
        "ModelPusher",
        "DeviceModels",
        "RegistryPusher",
    }
)
"""Tasks that look at, or change, what is not among their inputs."""
_REFUSING = frozenset({"Quarantine", "DataGate", "ServingCheck", "ModelGate", "ModelPusher"})
"""What they refuse once they refuse again; and what is asked of a bucket, its client repeats."""
_MOST_ARGUMENT_BYTES = 100_000
"""Of the parameters of one task, which go to its process as one argument: Linux takes 131,072 bytes."""
_KUBERNETES_GPU = "nvidia.com/gpu"
"""Kubernetes knows accelerators as resources of its nodes, whatever their kind."""
_FIRST_PAUSE, _LONGEST_PAUSE = "60s", "3600s"


def compile_pipeline(
    config_file: Path, place: Place, runner: Runner, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Compiles a pipeline for an environment; asks nothing of the network.

    Args:
      config_file: the pipeline's YAML file.
      place: the environment, whose group `config` changes the configuration.
      runner: who is to run it.
      overrides: `dotted.key=value` assignments to the configuration.

    Returns:
      A PipelineJob: `displayName`, `labels`, `pipelineSpec` and `runtimeConfig`.

    Raises:
      ConfigError: if configuration and environment do not fit each other, or cannot be run by containers.
    """
    from cloud.site import Containers
    from pipeline import dag

    project = load(config_file, overrides, place.layers)
    image = place.require("image")
    _check_name(project)
    _check_project(place, project)
    site = Containers(place, project, mounts_buckets=runner == "vertex")
    pipeline = dag.build_for(site, project)
    job = _compiled(pipeline, image)
    spec = job["pipelineSpec"]
    for name, default in site.defaults.items():
        spec["root"]["inputDefinitions"]["parameters"][name]["defaultValue"] = default
    tasks: Mapping[str, Json] = spec["root"]["dag"]["tasks"]
    _check_nodes(place, tasks)
    executors: Mapping[str, Json] = spec["deploymentSpec"]["executors"]
    for name, task in tasks.items():
        _set_effort(task, place.settings, name, name in _UNCACHED | site.uncached)
        executor = executors[spec["components"][task["componentRef"]["name"]]["executorLabel"]]
        _complete(executor["container"], place.settings.nodes.get(name, NodeResources()), runner)
        _check_size(name, task)
    _place_beam(place, project, pipeline, executors)
    _train_elsewhere(place, project, runner, executors)
    root = place.settings.root
    return {
        "displayName": project.config.name,
        "labels": {
            **place.settings.labels,
            CODE_LABEL: code_digest(),
            PIPELINE_LABEL: project.config.name,
            ENVIRONMENT_LABEL: place.name,
        },
        "pipelineSpec": spec,
        "runtimeConfig": {
            **({"gcsOutputDirectory": f"{root.rstrip('/')}/{project.config.name}/runs"} if root else {}),
            "parameterValues": {},
        },
    }


def as_file(job: Mapping[str, Any], runner: Runner) -> str:
    """The text of the file: JSON of the job for Vertex AI, YAML of the specification alone for Kubeflow."""
    if runner == "vertex":
        return json.dumps(job, indent=1, sort_keys=True) + "\n"
    import yaml

    return str(yaml.safe_dump(job["pipelineSpec"], sort_keys=True, width=110))


def _compiled(pipeline: Pipeline, image: str) -> Json:
    from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
        KubeflowV2DagRunner,
        KubeflowV2DagRunnerConfig,
    )

    config = KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=list(container.COMMAND), use_pipeline_spec_2_1=True
    )
    return dict(KubeflowV2DagRunner(config).run(pipeline, write_out=False))


def _check_name(project: Project) -> None:
    if "_" in project.config.name:
        raise ConfigError(
            f"name: {project.config.name}: a compiled pipeline's name holds a-z, 0-9 and - only "
            f"({project.place('name')})"
        )


def _check_project(place: Place, project: Project) -> None:
    """Refuses a project for BigQuery that Dataflow would not bill: a job knows one."""
    source, beam = project.config.data.source, place.settings.beam
    if not isinstance(source, BigQuerySource) or beam is None or beam.runner != "dataflow":
        return
    if "BigQueryExampleGen" in beam.nodes and source.project != place.settings.project:
        raise ConfigError(
            f"data.source.project: {source.project}: with beam.nodes: [BigQueryExampleGen] it is Dataflow's project "
            f"that is billed, {place.settings.project} ({project.place('data.source.project')})"
        )


def _check_nodes(place: Place, tasks: Iterable[str]) -> None:
    settings = place.settings
    named = {f"nodes.{name}": name for name in settings.nodes}
    if settings.beam is not None:
        named |= {f"beam.nodes.{name}": name for name in settings.beam.nodes}
    known = sorted(tasks)
    for key, name in named.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(f"{key}: no such component; {hint} ({place.place(key)})")


def _check_size(name: str, task: Json) -> None:
    sizes = {
        key: len(json.dumps(given)) for key, given in task.get("inputs", {}).get("parameters", {}).items()
    }
    if sum(sizes.values()) > _MOST_ARGUMENT_BYTES:
        largest = max(sizes, key=lambda key: sizes[key])
        raise ConfigError(
            f"{name}: its parameters have {sum(sizes.values()):,} bytes, of which {largest} has {sizes[largest]:,}; a "
            f"container takes {_MOST_ARGUMENT_BYTES:,}: use fewer columns (features.exclude) or shorter SQL"
        )


def _set_effort(task: Json, settings: Environment, name: str, always_runs: bool) -> None:
    """Retries and caching of a task."""
    node = settings.nodes.get(name, NodeResources())
    usual = 0 if name in _REFUSING else settings.retries
    retries = usual if node.retries is None else node.retries
    if retries:
        task["retryPolicy"] = {
            "maxRetryCount": retries,
            "backoffDuration": _FIRST_PAUSE,
            "backoffFactor": 2.0,
            "backoffMaxDuration": _LONGEST_PAUSE,
        }
    caching = settings.caching if node.caching is None else node.caching
    task["cachingOptions"] = {"enableCache": True} if caching and not always_runs else {}


def _complete(spec: Json, node: NodeResources, runner: Runner) -> None:
    """The machine of a container, and the name of the run among its arguments."""
    spec["args"] += ["--run_id", "{{$.pipeline_job_name}}"]
    resources: Json = {}
    if node.cpus is not None:
        resources["cpuLimit"] = node.cpus
    if node.memory_gb is not None:
        resources["memoryLimit"] = node.memory_gb
    if node.accelerator is not None:
        kind = _KUBERNETES_GPU if runner == "kubeflow" else node.accelerator
        resources["accelerator"] = {"type": kind, "count": str(node.accelerators)}
    if resources:
        spec["resources"] = resources


def _place_beam(place: Place, project: Project, pipeline: Pipeline, executors: Mapping[str, Json]) -> None:
    """Beam's options: where the stages of a component run. TFX gives them to every component."""
    from tfx.dsl.components.base.executor_spec import BeamExecutorSpec

    from pipeline.beam_options import BEAM_ARGS

    able = {node.id for node in pipeline.components if isinstance(node.executor_spec, BeamExecutorSpec)}
    beam = place.settings.beam
    moved = beam.nodes if beam else ()
    for name in moved:
        if name not in able:
            raise ConfigError(
                f"beam.nodes: {name} has no stages of Beam; there are {', '.join(sorted(able))} "
                f"({place.place('beam.nodes')})"
            )
    elsewhere = _beam_options(place, project) if moved else []
    for node in pipeline.components:
        spec = executors[f"{node.id}_executor"]["container"]
        options = elsewhere if node.id in moved else BEAM_ARGS if node.id in able else ()
        given = {option.partition("=")[0] for option in options}
        kept = [arg for arg in spec["args"] if arg not in BEAM_ARGS and arg.partition("=")[0] not in given]
        spec["args"] = [*kept, *options]


def _beam_options(place: Place, project: Project) -> list[str]:
    from cloud.dataflow import DataflowError, DataflowSettings
    from cloud.dataflow import options as dataflow_options

    settings, beam = place.settings, place.settings.beam
    assert beam is not None, "asked before"
    if beam.runner != "dataflow":
        runner = {"flink": "FlinkRunner", "spark": "SparkRunner"}[beam.runner]
        return [
            f"--runner={runner}",
            "--environment_type=DOCKER",
            f"--environment_config={beam.image or settings.image}",
            # Without it TFX packs itself anew for every component.
            f"--sdk_container_image={beam.image or settings.image}",
            *beam.options,
        ]
    temporary = f"{place.require('root').rstrip('/')}/{project.config.name}/beam"
    try:
        dataflow = DataflowSettings(
            project=place.require("project"),
            region=place.require("region"),
            staging=f"{temporary}/staging",
            temp=f"{temporary}/temp",
            image=beam.image or place.require("image"),
            service_account=place.require("service_account"),
            machine_type=beam.machine_type,
            min_workers=beam.min_workers,
            max_workers=beam.max_workers,
            subnetwork=beam.subnetwork,
            private_ips=beam.private_ips,
            labels=settings.labels,
        )
    except DataflowError as error:
        raise ConfigError(f"beam: {error} ({place.place('beam')})") from error
    key = [f"--dataflow_kms_key={settings.kms_key}"] if settings.kms_key else []
    disk = [f"--disk_size_gb={beam.disk_gb}"] if beam.disk_gb else []
    # No name of a job: two runs at once may not have the same.
    return [*dataflow_options(dataflow, None), "--sdk_location=container", *key, *disk, *beam.options]


def _train_elsewhere(place: Place, project: Project, runner: Runner, executors: Mapping[str, Json]) -> None:
    """Trainer and Tuner as launchers of custom jobs, where the environment asks for it."""
    from cloud.custom_job import JobSettings, command
    from cloud.worker_pools import check_tuning

    settings = place.settings
    if settings.training is None:
        return
    if runner != "vertex":
        raise ConfigError(
            f"training: custom jobs are Vertex AI's; leave it out for {runner} ({place.place('training')})"
        )
    if project.config.train.cluster is not None:
        raise ConfigError(
            "train.cluster: a cluster on one machine, and training asks for machines of a custom job: leave one out "
            f"({project.place('train.cluster')})"
        )
    if "Tuner_executor" in executors:
        tune = project.config.tune
        check_tuning(
            settings.training,
            settings.tuning,
            settings.service_account,
            method=tune.method,
            workers=tune.workers,
        )
    for task in ("trainer", "tuner"):
        executor = executors.get(f"{task.capitalize()}_executor")
        if executor is None:
            continue
        job = JobSettings(
            name=f"{project.config.name}-{task}",
            task=task,
            project=place.require("project"),
            region=place.require("region"),
            image=place.require("image"),
            root=place.require("root"),
            training=settings.training,
            strategy=project.config.train.strategy,
            tuning=settings.tuning,
            service_account=settings.service_account,
            network=settings.network,
            kms_key=settings.kms_key,
            labels=dict(settings.labels),
        )
        spec = executor["container"]
        spec["command"] = [*command(job), *spec["command"]]
