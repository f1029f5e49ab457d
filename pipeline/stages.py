"""One builder a stage: from the checked configuration to a configured TFX component."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tfx.components import (
    Evaluator,
    ExampleValidator,
    StatisticsGen,
    Trainer,
    Transform,
    Tuner,
)
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.proto import trainer_pb2, transform_pb2, tuner_pb2
from tfx.types import Channel, standard_artifacts

import ingest.plan
from ingest.splits import SPLITS
from pipeline import data_plan
from pipeline.components.champion import ChampionStrategy
from pipeline.components.data_gate import DataGate
from pipeline.components.model_pusher import ModelPusher
from pipeline.components.query_example_gen import QueryExampleGen
from pipeline.config import ConfigError, Project, QuerySource
from pipeline.evaluation import eval_config
from pipeline.source_digest import source_digest
from schemas.features import FeatureSet

BEAM_ARGS = ("--runner=FnApiRunner", "--direct_num_workers=1")
"""Without a named runner Beam downloads Prism for every pipeline; one in-process worker is fastest at laptop size."""

PREPROCESSING = "transforms.preprocessing"
TRAINER = "models.trainer"
TUNER = "models.tuner"


def example_gen(project: Project) -> BaseNode:
    """Raw rows to `examples` with the splits train, validation and test."""
    source = project.config.data.source
    if not isinstance(source, QuerySource):
        raise ConfigError(
            f"{project.file}: data.source.kind: {source.kind} is not built yet; use kind: query"
        )
    plan = data_plan.plan(project)
    digest = ingest.plan.fingerprint(plan)
    path = ingest.plan.save(plan, project.root / "plans", digest)
    return QueryExampleGen(str(path), digest, source_digest("pipeline.components.query_example_gen"))


def statistics_gen(examples: BaseNode) -> BaseNode:
    """Statistics of every split."""
    return StatisticsGen(examples=examples.outputs["examples"])


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


def data_gate(project: Project, statistics: BaseNode, anomalies: BaseNode) -> BaseNode:
    """Stops the run on bad data."""
    return DataGate(
        statistics=statistics.outputs["statistics"],
        anomalies=anomalies.outputs["anomalies"],
        settings=_json(project.config.data_gate),
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
        **_learning_inputs(project, examples, transform),
        tune_args=tuner_pb2.TuneArgs(num_parallel_trials=1),
        custom_config={
            **_learning_settings(project, features),
            "tune": _plain(project.config.tune),
            "source_digest": source_digest(TUNER),
        },
    )


def trainer(
    project: Project, features: FeatureSet, examples: BaseNode, transform: BaseNode, tuner: BaseNode | None
) -> BaseNode:
    """The trained model with its signatures."""
    tuned = {"hyperparameters": tuner.outputs["best_hyperparameters"]} if tuner else {}
    return Trainer(
        run_fn=f"{TRAINER}.run_fn",
        **_learning_inputs(project, examples, transform),
        **tuned,
        custom_config={**_learning_settings(project, features), "source_digest": source_digest(TRAINER)},
    )


def champion(trainer: BaseNode) -> BaseNode:
    """The latest blessed model other than the candidate."""
    return Resolver(
        strategy_class=ChampionStrategy,
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
        candidate=trainer.outputs["model"],
    ).with_id("Champion")


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
    )


def pusher(project: Project, trainer: BaseNode, evaluator: BaseNode) -> BaseNode:
    """A blessed model to the serving folder, as the next version."""
    facts = {
        "pipeline": project.config.name,
        "config_hash": project.digest(),
        "data_fingerprint": ingest.plan.fingerprint(data_plan.plan(project)),
    }
    return ModelPusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        manifest=json.dumps(facts, sort_keys=True),
        folder=str(project.serving_folder),
        source_digest=source_digest("pipeline.components.model_pusher"),
    )


def _learning_inputs(project: Project, examples: BaseNode, transform: BaseNode) -> dict[str, Any]:
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
        "best": _stored_best(project),
        "materialized": config.transform.materialize,
    }


def _stored_best(project: Project) -> dict[str, Any] | None:
    """Hyperparameters of an earlier search, by dotted name."""
    tune = project.config.tune
    if tune.best is None or tune.enabled:
        return None
    path: Path = project.resolve(tune.best)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"tune.best: {path} cannot be read as stored hyperparameters: {error}") from error


def _plain(settings: Any) -> dict[str, Any]:
    return dict(json.loads(_json(settings)))


def _json(settings: Any) -> str:
    return json.dumps(dataclasses.asdict(settings), sort_keys=True)
