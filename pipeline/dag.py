"""The pipeline as a graph: wiring only. What a stage is made of stands in `pipeline/stages.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline import stages
from pipeline.config import Project, load

if TYPE_CHECKING:
    from tfx.dsl.components.base.base_node import BaseNode
    from tfx.orchestration.pipeline import Pipeline


def build_schema(config_file: str, overrides: Sequence[str] = ()) -> Pipeline:
    """Builds the pipeline that infers a schema: what `build` begins with, and SchemaGen.

    Raises:
      ConfigError, DataError: if the configuration or the data it names cannot be used.
    """
    project = load(config_file, overrides)
    examples = stages.example_gen(project)
    statistics = stages.statistics_gen(examples)
    return _pipeline(project, examples, statistics, stages.schema_gen(statistics))


def build(config_file: str, overrides: Sequence[str] = ()) -> Pipeline:
    """Builds the TFX pipeline that a configuration describes.

    Raises:
      ConfigError, DataError: if the configuration or the data it names cannot be used.
    """
    project = load(config_file, overrides)
    features = project.feature_set()

    examples = stages.example_gen(project)
    statistics = stages.statistics_gen(examples)
    schema = stages.schema_importer(project)
    anomalies = stages.example_validator(statistics, schema)
    gate = stages.data_gate(project, statistics, anomalies)

    transform = stages.transform(project, features, examples, schema)
    transform.add_upstream_node(gate)
    tuner = stages.tuner(project, features, examples, transform)
    trainer = stages.trainer(project, features, examples, transform, tuner)

    champion = stages.champion(features, trainer)
    evaluator = stages.evaluator(project, features, examples, trainer, champion)
    model_gate = stages.model_gate(project, features, examples, trainer, champion, evaluator)
    pusher = stages.pusher(project, features, trainer, model_gate)

    return _pipeline(
        project,
        examples,
        statistics,
        schema,
        anomalies,
        gate,
        transform,
        tuner,
        trainer,
        champion,
        evaluator,
        model_gate,
        pusher,
    )


def _pipeline(project: Project, *nodes: BaseNode | None) -> Pipeline:
    from tfx.orchestration.pipeline import Pipeline

    return Pipeline(
        pipeline_name=project.config.name,
        pipeline_root="",  # the runner decides
        components=[node for node in nodes if node is not None],
        enable_cache=True,
        beam_pipeline_args=list(stages.BEAM_ARGS),
    )
