"""One builder a stage: from the checked configuration to a configured TFX component."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2, wrappers_pb2
from tfx.components import (
    ExampleValidator,
    FileBasedExampleGen,
    SchemaGen,
    StatisticsGen,
    Trainer,
    Transform,
)
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.csv_example_gen import executor as csv_executor
from tfx.components.example_gen.import_example_gen import executor as import_executor
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.dsl.components.common.resolver import Resolver
from tfx.proto import example_gen_pb2, range_config_pb2, trainer_pb2, transform_pb2
from tfx.types import Channel, standard_artifacts

import ingest.plan
from gates.settings import Override
from ingest.splits import SPLITS
from pipeline import data_plan, hyperparameters, infra_validation, origins
from pipeline.beam_options import BEAM_ARGS
from pipeline.components import parquet_executor
from pipeline.components.base_model import BaseModelStrategy
from pipeline.components.champion import ChampionStrategy
from pipeline.components.data_gate import DataGate
from pipeline.components.evaluator import Evaluator
from pipeline.components.model_gate import ModelGate
from pipeline.components.model_pusher import ModelPusher
from pipeline.components.previous_statistics import PreviousStatisticsStrategy
from pipeline.components.quarantine import Quarantine
from pipeline.components.query_example_gen import QueryExampleGen
from pipeline.components.serving_check import ServingCheck
from pipeline.components.tuner import Tuner
from pipeline.config import CHAMPION, HashSplit, Project, QuerySource, Split
from pipeline.evaluation import EXTRACTORS, eval_config
from pipeline.file_source import file_input
from pipeline.home import label_of
from pipeline.source_digest import source_digest
from schemas.features import FeatureSet, column_types, load_schema, units

PREPROCESSING = "transforms.preprocessing"
TRAINER = "models.trainer"
TUNER = "models.tuner"

_BUCKETS = 1000
"""Hash buckets of a stock ExampleGen's split: shares are exact to a thousandth."""


def example_gen(project: Project) -> BaseNode:
    """Raw rows to `examples` with the splits train, validation and test."""
    origins.write(project)
    return _EXAMPLE_GENS[project.config.data.source.kind](project)


def _query_example_gen(project: Project) -> BaseNode:
    plan = data_plan.plan(project)
    digest = ingest.plan.fingerprint(plan)
    path = ingest.plan.save(plan, project.root / "plans", digest)
    return QueryExampleGen(str(path), digest, source_digest("pipeline.components.query_example_gen"))


def _file_example_gen(project: Project) -> BaseNode:
    """TFX's own component for the kind of files.

    It takes files for unchanged whose names, sizes and whole-second times are; the digest of their content, which no
    executor reads, is therefore part of its parameters.
    """
    source = project.config.data.source
    found = file_input(project)
    span = found.span
    content = any_pb2.Any()
    digests = (data_plan.fingerprint(project), source_digest("pipeline.components.parquet_executor"))
    content.Pack(wrappers_pb2.StringValue(value=" ".join(digests)))
    return FileBasedExampleGen(
        input_base=str(found.base),
        input_config=example_gen_pb2.Input(
            splits=[
                example_gen_pb2.Input.Split(name=part.name, pattern=part.pattern) for part in found.splits
            ]
        ),
        output_config=stock_splits(project.config.data.split),
        range_config=None
        if span is None
        else range_config_pb2.RangeConfig(
            static_range=range_config_pb2.StaticRange(start_span_number=span, end_span_number=span)
        ),
        custom_config=example_gen_pb2.CustomConfig(custom_config=content),
        custom_executor_spec=BeamExecutorSpec(FILE_EXECUTORS[source.kind]),
    ).with_id(FILE_EXAMPLE_GENS[source.kind])


def _bigquery_example_gen(project: Project) -> BaseNode:
    from pipeline.components import bigquery_example_gen

    return bigquery_example_gen.build(project, BEAM_ARGS)


_EXAMPLE_GENS: Mapping[str, Callable[[Project], BaseNode]] = {
    "query": _query_example_gen,
    "csv": _file_example_gen,
    "parquet": _file_example_gen,
    "tfrecord": _file_example_gen,
    "bigquery": _bigquery_example_gen,
}

FILE_EXAMPLE_GENS = {"csv": "CsvExampleGen", "parquet": "ParquetExampleGen", "tfrecord": "ImportExampleGen"}
"""Ids of the stock components by kind of file."""

FILE_EXECUTORS: Mapping[str, type[BaseExampleGenExecutor]] = {
    "csv": csv_executor.Executor,
    "parquet": parquet_executor.Executor,
    "tfrecord": import_executor.Executor,
}


def stock_splits(split: Split) -> example_gen_pb2.Output | None:
    """How a stock ExampleGen splits; None where sub-folders are the splits."""
    if not isinstance(split, HashSplit):
        return None
    validation, test = (round(_BUCKETS * share) for share in (split.validation_fraction, split.test_fraction))
    buckets = dict(zip(SPLITS, (_BUCKETS - validation - test, validation, test), strict=True))
    return example_gen_pb2.Output(
        split_config=example_gen_pb2.SplitConfig(
            splits=[
                example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=count)
                for name, count in buckets.items()
            ],
            partition_feature_name=split.columns[0],
        )
    )


def statistics_gen(examples: BaseNode) -> BaseNode:
    """Statistics of every split."""
    node = StatisticsGen(examples=examples.outputs["examples"])
    return node.with_beam_pipeline_args([*BEAM_ARGS, "--tfxio_use_byte_size_batching"])


def schema_gen(statistics: BaseNode) -> BaseNode:
    """A schema inferred from the statistics, for the first run of a pipeline that has none."""
    return SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=False)


def schema_importer(project: Project) -> BaseNode:
    """The curated schema as an artifact.

    TFX would not notice an edit of the file, so it imports a copy that is named after its content.
    """
    text = project.schema_file.read_bytes()
    copy = project.root / "plans" / f"schema-{hashlib.sha256(text).hexdigest()[:16]}" / "schema.pbtxt"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_suffix(".partial")
        shutil.copyfile(project.schema_file, partial)
        partial.replace(copy)
    return ImportSchemaGen(schema_file=str(copy))


def example_validator(statistics: BaseNode, schema: BaseNode) -> BaseNode:
    """Anomalies of every split against the schema."""
    return ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])


def quarantine(project: Project, examples: BaseNode, schema: BaseNode) -> BaseNode | None:
    """Sets bad rows aside, where a rule says so."""
    gate = project.config.data_gate
    if not any(rule.action == "quarantine" for rule in gate.rules):
        return None
    return Quarantine(
        rows=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        rules=json.dumps([dataclasses.asdict(rule) for rule in gate.rules]),
        max_quarantined=json.dumps(gate.max_quarantined),
        overrides=_overrides(project),
        source_digest=source_digest("pipeline.components.quarantine"),
    )


def previous_data(examples: BaseNode) -> BaseNode:
    """Statistics of the data that the data gate has accepted last, other than the present."""
    return Resolver(
        strategy_class=PreviousStatisticsStrategy,
        statistics=Channel(type=standard_artifacts.ExampleStatistics),
        examples=examples.outputs["examples"],
    ).with_id("PreviousData")


def data_gate(
    project: Project,
    features: FeatureSet,
    examples: BaseNode,
    statistics: BaseNode,
    anomalies: BaseNode,
    schema: BaseNode,
    previous: BaseNode,
) -> BaseNode:
    """Stops the run on bad data."""
    return DataGate(
        examples=examples.outputs["examples"],
        statistics=statistics.outputs["statistics"],
        anomalies=anomalies.outputs["anomalies"],
        schema=schema.outputs["schema"],
        previous_statistics=previous.outputs["statistics"],
        settings=_json(project.config.data_gate),
        overrides=_overrides(project),
        features=features.to_json(),
        key=json.dumps(project.config.data.key),
        time=json.dumps(project.config.data.order_column),
        source_digest=source_digest("pipeline.components.data_gate"),
    )


def transform(project: Project, features: FeatureSet, examples: BaseNode, schema: BaseNode) -> BaseNode:
    """The preprocessing graph, analysed on the training split alone."""
    materialize = project.config.transform.materialize
    return Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn=f"{PREPROCESSING}.preprocessing_fn",
        splits_config=transform_pb2.SplitsConfig(
            analyze=["train"], transform=list(SPLITS) if materialize else []
        ),
        materialize=materialize,
        disable_statistics=True,
        custom_config={"features": features.to_json(), "source_digest": source_digest(PREPROCESSING)},
    )


def tuner(project: Project, features: FeatureSet, examples: BaseNode, transform: BaseNode) -> BaseNode | None:
    """The hyperparameter search, where it is enabled."""
    if not project.config.tune.enabled:
        return None
    return Tuner(
        tuner_fn=f"{TUNER}.tuner_fn",
        **learning_inputs(project, examples, transform),
        custom_config={
            **_learning_settings(project, features),
            "tune": _plain(project.config.tune),
            "source_digest": source_digest(TUNER, "pipeline.components.tuner"),
        },
    )


def warm_start_model(
    project: Project, features: FeatureSet, examples: BaseNode, transform: BaseNode
) -> BaseNode | None:
    """The champion to begin training with, where the configuration asks for it."""
    if not begins_with_champion(project):
        return None
    return Resolver(
        strategy_class=BaseModelStrategy,
        config={"label": label_of(features)},
        model=Channel(type=standard_artifacts.Model),
        examples=learning_inputs(project, examples, transform)["examples"],
    ).with_id("WarmStartModel")


def begins_with_champion(project: Project) -> bool:
    """Whether training begins with the weights of the model that serves."""
    warm_start = project.config.train.warm_start
    return warm_start is not None and warm_start.source == CHAMPION


def _warm_start_folder(project: Project) -> dict[str, str]:
    """The SavedModel to begin training with, where the configuration names one, and what tells it from others."""
    weights = project.warm_start_weights()
    if weights is None:
        return {}
    # The index holds a checksum of every weight.
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {"base_model": str(weights.parents[1]), "base_model_digest": digest}


def trainer(
    project: Project,
    features: FeatureSet,
    examples: BaseNode,
    transform: BaseNode,
    tuner: BaseNode | None,
    warm_start_model: BaseNode | None = None,
) -> BaseNode:
    """The trained model with its signatures."""
    tuned = {"hyperparameters": tuner.outputs["best_hyperparameters"]} if tuner else {}
    base = {"base_model": warm_start_model.outputs["model"]} if warm_start_model else {}
    return Trainer(
        run_fn=f"{TRAINER}.run_fn",
        **learning_inputs(project, examples, transform),
        **tuned,
        **base,
        custom_config={
            **_learning_settings(project, features),
            **_warm_start_folder(project),
            "source_digest": source_digest(TRAINER),
        },
    )


def champion(features: FeatureSet, trainer: BaseNode) -> BaseNode:
    """The model pushed last, other than the candidate."""
    return Resolver(
        strategy_class=ChampionStrategy,
        config={"label": label_of(features)},
        model=Channel(type=standard_artifacts.Model),
        pushed=Channel(type=standard_artifacts.PushedModel),
        candidate=trainer.outputs["model"],
    ).with_id("Champion")


def infra_validator(project: Project, examples: BaseNode, trainer: BaseNode) -> BaseNode | None:
    """TFX's own check with TensorFlow Serving in Docker, where the configuration asks for it."""
    settings = project.config.serving_check
    if not settings.docker:
        return None
    return infra_validation.infra_validator(
        trainer.outputs["model"], examples.outputs["examples"], settings.max_load_seconds
    )


def serving_check(
    project: Project,
    features: FeatureSet,
    examples: BaseNode,
    transform: BaseNode,
    trainer: BaseNode,
    infra_validator: BaseNode | None,
) -> BaseNode:
    """Stops the run if the exported model, alone in a fresh process, does not answer as the trained network."""
    return ServingCheck(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        infra_blessing=infra_validator.outputs["blessing"] if infra_validator else None,
        settings=_json(project.config.serving_check),
        overrides=_overrides(project),
        features=features.to_json(),
        source_digest=source_digest("pipeline.components.serving_check"),
    )


def evaluator(
    project: Project, features: FeatureSet, examples: BaseNode, trainer: BaseNode, champion: BaseNode
) -> BaseNode:
    """Metrics on the test split, of the candidate and of the champion on the same rows, and the blessing."""
    return Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=champion.outputs["model"],
        eval_config=eval_config(project.config.evaluate, features.label),
        example_splits=["test"],
        module_path=EXTRACTORS,
    )


def model_gate(
    project: Project,
    features: FeatureSet,
    examples: BaseNode,
    transform: BaseNode,
    trainer: BaseNode,
    serving_check: BaseNode,
    champion: BaseNode,
    evaluator: BaseNode,
) -> BaseNode:
    """Blesses a model for which every check on the test split holds."""
    materialized = project.config.transform.materialize
    return ModelGate(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        champion=champion.outputs["model"],
        pushed=champion.outputs["pushed"],
        evaluation=evaluator.outputs["evaluation"],
        serving_verdict=serving_check.outputs["verdict"],
        transformed_examples=transform.outputs["transformed_examples"] if materialized else None,
        settings=_json(project.config.model_gate),
        slices=json.dumps(project.config.evaluate.slices),
        overrides=_overrides(project),
        features=features.to_json(),
        time=json.dumps(project.config.data.order_column),
        source_digest=source_digest("pipeline.components.model_gate"),
    )


def pusher(project: Project, features: FeatureSet, trainer: BaseNode, gate: BaseNode) -> BaseNode:
    """A blessed model to the serving folder, as the next version."""
    facts = {**push_facts(project, features), "data_fingerprint": data_plan.fingerprint(project)}
    return ModelPusher(
        model=trainer.outputs["model"],
        model_blessing=gate.outputs["blessing"],
        verdict=gate.outputs["verdict"],
        facts=str(_write_facts(project.root / "plans" / "facts.json", facts)),
        label=label_of(features),
        folder=str(project.serving_folder),
        source_digest=source_digest("pipeline.components.model_pusher"),
    )


def push_facts(project: Project, features: FeatureSet) -> dict[str, Any]:
    """What the manifest of a pushed version says of the configuration and of the rows that the model takes."""
    source = project.config.data.source
    return {
        "pipeline": project.config.name,
        "config_hash": project.digest(),
        "rows": {
            "features": json.loads(features.to_json()),
            "columns": column_types(load_schema(str(project.schema_file))),
            "key": project.config.data.key,
            "null_values": source.null_values if isinstance(source, QuerySource) else ("",),
        },
    }


def device_models(
    project: Project,
    features: FeatureSet,
    examples: BaseNode,
    transform: BaseNode,
    trainer: BaseNode,
    pusher: BaseNode,
) -> BaseNode | None:
    """LiteRT files of the pushed version, where the configuration asks for them."""
    if not project.config.tflite.enabled:
        return None
    # Loaded here, because it brings the converter and the quantizer, which other pipelines need not wait for.
    from pipeline.components.device_models import DeviceModels

    return DeviceModels(
        pushed_model=pusher.outputs["pushed_model"],
        model_run=trainer.outputs["model_run"],
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        name=project.config.name,
        settings=_json(project.config.tflite),
        overrides=_overrides(project),
        features=features.to_json(),
        units=json.dumps(units(load_schema(str(project.schema_file)))),
        order_column=json.dumps(project.config.data.order_column),
        folder=str(project.device_folder),
        source_digest=source_digest("pipeline.components.device_models", "pipeline.device_script"),
    )


def _write_facts(path: Path, facts: Mapping[str, Any]) -> Path:
    """Writes what the manifest will say of this run, under a name that stays the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
    return partial.replace(path)


def _overrides(project: Project) -> str:
    """The overrides that count today, as JSON: one that has run out changes the parameters of the gates."""
    today = datetime.now(UTC).date().isoformat()
    return overrides_as_json([o for o in project.config.overrides if o.until is None or o.until >= today])


def overrides_as_json(overrides: Sequence[Override]) -> str:
    """As the gates take them."""
    return json.dumps([dataclasses.asdict(override) for override in overrides], sort_keys=True)


def learning_inputs(project: Project, examples: BaseNode, transform: BaseNode) -> dict[str, Any]:
    """What Trainer and Tuner read."""
    materialized = project.config.transform.materialize
    rows = transform.outputs["transformed_examples"] if materialized else examples.outputs["examples"]
    return {
        "examples": rows,
        "transform_graph": transform.outputs["transform_graph"],
        "train_args": trainer_pb2.TrainArgs(splits=["train"]),
        "eval_args": trainer_pb2.EvalArgs(splits=["validation"]),
    }


def _learning_settings(project: Project, features: FeatureSet) -> dict[str, Any]:
    config = project.config
    return {
        "features": features.to_json(),
        "model": _plain(config.model),
        "train": _plain(config.train),
        "best": hyperparameters.stored(project),
        "training_folder": str(project.root / "training"),
        **({"order_column": config.data.order_column} if config.train.recency_half_life else {}),
        "materialized": config.transform.materialize,
    }


def _plain(settings: Any) -> dict[str, Any]:
    return dict(json.loads(_json(settings)))


def _json(settings: Any) -> str:
    return json.dumps(dataclasses.asdict(settings), sort_keys=True)
