"""A compiled pipeline's place: containers on Vertex AI or Kubeflow, which find everything when they run.

Nothing of this machine is in what is built here: no path, and no file but by its content.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from tfx.components import FileBasedExampleGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec, ExecutorClassSpec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import standard_component_specs

from cloud.bucket_pusher import BucketPusher
from ingest.splits import SPLITS
from pipeline import data_plan, file_source, stages
from pipeline.beam_options import BEAM_ARGS
from pipeline.components import trainer
from pipeline.components.given_schema import GivenSchema
from pipeline.components.located_example_gen import AS_CONFIGURED, LocatedExampleGen, packed
from pipeline.components.remembered import Champion, PreviousData, WarmStartModel
from pipeline.config import (
    NO_SNAPSHOT,
    BigQuerySource,
    ConfigError,
    FilesSource,
    FolderSplit,
    Project,
    QuerySource,
)
from pipeline.environment import Place
from pipeline.home import label_of
from pipeline.mounts import is_remote
from pipeline.source_digest import source_digest
from schemas.features import FeatureSet

HOME = "home"
SPAN = "span"
EPOCHS = "epochs"
STRATEGY = "strategy"
SNAPSHOT_TIME = "snapshot_time"

_CONFIG = standard_component_specs.CUSTOM_CONFIG_KEY


class Containers:
    """Builds the stages of a pipeline that is compiled for an environment."""

    def __init__(self, place: Place, project: Project, mounts_buckets: bool) -> None:
        """Describes the parameters that a run may give.

        Args:
          place: the environment.
          project: the configuration, with what the environment changes in it.
          mounts_buckets: whether its containers see every bucket as a folder.

        Raises:
          ConfigError: if the configuration names what is on this machine only.
        """
        _check_paths(project)
        root = place.settings.root
        home = f"{root.rstrip('/')}/{project.config.name}" if root else None
        self._place = place
        self._mounts_buckets = mounts_buckets
        self.defaults: dict[str, str | int] = {}
        """Of the parameters of a run, by name; one without is required."""
        self.uncached: frozenset[str] = frozenset()
        """Nodes of this configuration that no cache may answer for."""
        self._home = self._parameter(HOME, str, home)
        span = project.config.data.span
        newest = AS_CONFIGURED if span and span.last == "latest" else span and span.last
        self._span = self._parameter(SPAN, int, newest) if span else None

    def _parameter(self, name: str, kind: type, default: Any) -> RuntimeParameter:
        # TFX leaves defaults out of what it compiles.
        if default is not None:
            self.defaults[name] = default
        return RuntimeParameter(name=name, ptype=kind, default=default)

    def example_gen(self, project: Project) -> BaseNode:
        """See `pipeline.site.Site`."""
        builders: Mapping[str, Callable[[Project], BaseNode]] = {
            "query": self._query,
            "bigquery": self._bigquery,
        }
        return builders.get(project.config.data.source.kind, self._files)(project)

    def _query(self, project: Project) -> BaseNode:
        source = project.config.data.source
        assert isinstance(source, QuerySource), "chosen by its kind"
        for name, location in source.tables.items():
            if is_remote(location) and not self._mounts_buckets:
                key = f"data.source.tables.{name}"
                raise ConfigError(
                    f"{key}: {location}: containers of Kubeflow see no bucket but those of artifacts: use source.kind: "
                    f"bigquery, or mount the files and name an absolute path ({project.place(key)})"
                )
        if any(is_remote(location) for location in source.tables.values()):
            # Files in a bucket may change under their names; those in the image may not, whose digest is in the key.
            self.uncached = frozenset({"QueryExampleGen"})
        digest = source_digest("pipeline.components.located_example_gen")
        return LocatedExampleGen(packed(project), self._span, digest).with_id("QueryExampleGen")

    def _bigquery(self, project: Project) -> BaseNode:
        from pipeline.components import bigquery_example_gen

        source = project.config.data.source
        assert isinstance(source, BigQuerySource), "chosen by its kind"
        if source.snapshot == NO_SNAPSHOT:
            self.uncached = frozenset({"BigQueryExampleGen"})
        # Without a default: with the same one every time, a run would take yesterday's rows from the cache.
        snapshot = (
            self._parameter(SNAPSHOT_TIME, str, source.snapshot)
            if data_plan.reads_at_snapshot(project, source)
            else None
        )
        return bigquery_example_gen.build(project, BEAM_ARGS, span=self._span, snapshot_time=snapshot)

    def _files(self, project: Project) -> BaseNode:
        source = project.config.data.source
        assert isinstance(source, FilesSource), "chosen by its kind"
        if not is_remote(source.folder) and not PurePosixPath(source.folder).is_absolute():
            raise ConfigError(
                f"data.source.folder: {source.folder} is beside the configuration on this machine, where no container "
                f"finds it: name a gs:// folder ({project.place('data.source.folder')})"
            )
        if self._span is not None:
            raise ConfigError(
                f"data.span: a compiled pipeline reads spans with source.kind: query or bigquery, not "
                f"{source.kind} ({project.place('data.span')})"
            )
        suffix = file_source.SUFFIXES[source.kind][0]
        by_folder = isinstance(project.config.data.split, FolderSplit)
        patterns = (
            {name: f"{name}/*{suffix}*" for name in SPLITS} if by_folder else {file_source.ALL: f"*{suffix}*"}
        )
        return FileBasedExampleGen(
            input_base=source.folder.rstrip("/"),
            input_config=example_gen_pb2.Input(
                splits=[
                    example_gen_pb2.Input.Split(name=name, pattern=pattern)
                    for name, pattern in patterns.items()
                ]
            ),
            output_config=stages.stock_splits(project.config.data.split),
            custom_executor_spec=BeamExecutorSpec(stages.FILE_EXECUTORS[source.kind]),
        ).with_id(stages.FILE_EXAMPLE_GENS[source.kind])

    def schema(self, project: Project) -> BaseNode:
        """See `pipeline.site.Site`."""
        return GivenSchema(project.schema_file.read_text(encoding="utf-8")).with_id("ImportSchemaGen")

    def previous_data(self, examples: BaseNode) -> BaseNode:
        """See `pipeline.site.Site`."""
        return PreviousData(examples.outputs["examples"], self._home)

    def champion(self, project: Project, features: FeatureSet, trainer: BaseNode) -> BaseNode:
        """See `pipeline.site.Site`."""
        return Champion(trainer.outputs["model"], self._home, label_of(features), _serving(project))

    def warm_start_model(
        self, project: Project, features: FeatureSet, examples: BaseNode, transform: BaseNode
    ) -> BaseNode | None:
        """See `pipeline.site.Site`."""
        if not stages.begins_with_champion(project):
            return None
        rows = stages.learning_inputs(project, examples, transform)["examples"]
        return WarmStartModel(rows, self._home, label_of(features), _serving(project))

    def pusher(
        self, project: Project, features: FeatureSet, examples: BaseNode, trainer: BaseNode, gate: BaseNode
    ) -> BaseNode:
        """See `pipeline.site.Site`."""
        return BucketPusher(
            model=trainer.outputs["model"],
            model_blessing=gate.outputs["blessing"],
            verdict=gate.outputs["verdict"],
            examples=examples.outputs["examples"],
            facts=json.dumps(stages.push_facts(project, features), sort_keys=True),
            label=label_of(features),
            home=self._home,
            folder=_serving(project) or "",
            source_digest=source_digest("cloud.bucket_pusher"),
        ).with_id("ModelPusher")

    def finish(self, project: Project, nodes: Sequence[BaseNode]) -> Sequence[BaseNode]:
        """See `pipeline.site.Site`."""
        if any(override.until is not None for override in project.config.overrides):
            # Which of them count is decided when the gate runs, so it has to run.
            self.uncached |= {node.id for node in nodes if "overrides" in node.exec_properties}
        for node in nodes:
            if "overrides" in node.exec_properties:
                node.exec_properties["overrides"] = stages.overrides_as_json(project.config.overrides)
            if node.id in _LEARNERS:
                self._give_parameters(project, node)
            elif node.id == "DataGate":
                node.exec_properties[HOME] = self._home
            elif node.id == "DeviceModels":
                self._push_devices(project, node)
        return [*nodes, *self._registry({node.id: node for node in nodes})]

    def _registry(self, nodes: Mapping[str, BaseNode]) -> Sequence[BaseNode]:
        """What enters the pushed version into the Model Registry, where the environment asks for it."""
        settings = self._place.settings
        if settings.registry is None:
            return ()
        from cloud.registry_pusher import RegistryPusher

        return (
            RegistryPusher(
                pushed_model=nodes["ModelPusher"].outputs["pushed_model"],
                verdict=nodes["ModelGate"].outputs["verdict"],
                settings=json.dumps(dataclasses.asdict(settings.registry), sort_keys=True),
                project=self._place.require("project"),
                region=self._place.require("region"),
                image=settings.registry.image or self._place.require("image"),
                kms_key=settings.kms_key,
                labels=json.dumps(settings.labels, sort_keys=True),
                source_digest=source_digest("cloud.registry_pusher"),
            ),
        )

    def _push_devices(self, project: Project, node: BaseNode) -> None:
        if not self._mounts_buckets:
            raise ConfigError(
                "tflite.enabled: device models are made of the pushed version, whose bucket containers of Kubeflow do "
                f"not see ({project.place('tflite.enabled')})"
            )
        # Loaded here, because it brings the converter and the quantizer.
        from cloud import device_pusher

        properties: dict[str, Any] = node.exec_properties
        properties["folder"] = _elsewhere(project, "tflite.folder", project.config.tflite.folder) or ""
        properties[HOME] = self._home
        node.executor_spec = ExecutorClassSpec(device_pusher.Executor)

    def _give_parameters(self, project: Project, node: BaseNode) -> None:
        """Lets a run give settings of the training, and the place of its checkpoints."""
        properties: dict[str, Any] = node.exec_properties
        config = json.loads(properties[_CONFIG])
        del config["training_folder"]
        properties[_CONFIG] = json.dumps(config, sort_keys=True)
        properties[trainer.HOME] = self._home
        train = project.config.train
        properties[trainer.STRATEGY] = self._parameter(STRATEGY, str, train.strategy)
        if node.id == "Trainer":
            properties[trainer.EPOCHS] = self._parameter(EPOCHS, int, train.epochs)
        node.executor_spec = ExecutorClassSpec(_LEARNERS[node.id])


_LEARNERS = {"Trainer": trainer.Executor, "Tuner": trainer.TunerExecutor}


def _check_paths(project: Project) -> None:
    """Refuses what is on this machine only."""
    config = project.config
    if config.train.warm_start is not None and not stages.begins_with_champion(project):
        raise ConfigError(
            f"train.warm_start.source: {config.train.warm_start.source} is a folder of this machine; a compiled "
            f"pipeline begins with the champion ({project.place('train.warm_start.source')})"
        )
    for name, override in config.features.overrides.items():
        if override.encoder is not None and not PurePosixPath(override.encoder).is_absolute():
            key = f"features.overrides.{name}.encoder"
            raise ConfigError(
                f"{key}: {override.encoder} is beside the configuration on this machine: name an absolute path in the "
                f"image ({project.place(key)})"
            )
    if config.serving_check.docker:
        raise ConfigError(
            "serving_check.docker: containers of a pipeline start no others: set it to false in the environment "
            f"({project.place('serving_check.docker')})"
        )


def _serving(project: Project) -> str | None:
    return _elsewhere(project, "push.folder", project.config.push.folder)


def _elsewhere(project: Project, key: str, folder: str | None) -> str | None:
    """A folder for what is pushed, where it is not below the pipeline's home.

    Raises:
      ConfigError: if it is a folder beside the configuration.
    """
    if folder is None or is_remote(folder) or PurePosixPath(folder).is_absolute():
        return folder
    raise ConfigError(
        f"{key}: {folder} is beside the configuration on this machine: name a gs:// folder ({project.place(key)})"
    )
