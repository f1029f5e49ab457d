"""The pipeline as a graph: wiring only. What a stage is made of stands in `pipeline/stages.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline import stages
from pipeline.beam_options import BEAM_ARGS
from pipeline.config import Project, load
from pipeline.site import Laptop, Site

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
    return build_for(Laptop(), load(config_file, overrides))


def build_for(site: Site, project: Project) -> Pipeline:
    """Builds the TFX pipeline of a project for the place where it will run.

    Raises:
      ConfigError, DataError: if the configuration or the data it names cannot be used there.
    """
    features = project.feature_set()

    rows = site.example_gen(project)
    schema = site.schema(project)
    quarantine = stages.quarantine(project, rows, schema)
    examples = quarantine or rows
    statistics = stages.statistics_gen(examples)
    anomalies = stages.example_validator(statistics, schema)
    previous = site.previous_data(examples)
    gate = stages.data_gate(project, features, examples, statistics, anomalies, schema, previous)

    transform = stages.transform(project, features, examples, schema)
    transform.add_upstream_node(gate)
    tuner = stages.tuner(project, features, examples, transform)
    warm_start_model = site.warm_start_model(project, features, examples, transform)
    trainer = stages.trainer(project, features, examples, transform, tuner, warm_start_model)

    infra_validator = stages.infra_validator(project, examples, trainer)
    serving_check = stages.serving_check(project, features, examples, transform, trainer, infra_validator)
    champion = site.champion(project, features, trainer)
    evaluator = stages.evaluator(project, features, examples, trainer, champion)
    evaluator.add_upstream_node(serving_check)
    model_gate = stages.model_gate(
        project, features, examples, transform, trainer, serving_check, champion, evaluator
    )
    pusher = site.pusher(project, features, examples, trainer, model_gate)
    device_models = stages.device_models(project, features, examples, transform, trainer, pusher)

    nodes = (
        rows,
        schema,
        quarantine,
        statistics,
        anomalies,
        previous,
        gate,
        transform,
        tuner,
        warm_start_model,
        trainer,
        infra_validator,
        serving_check,
        champion,
        evaluator,
        model_gate,
        pusher,
        device_models,
    )
    return _pipeline(project, *site.finish(project, [node for node in nodes if node is not None]))


def _pipeline(project: Project, *nodes: BaseNode) -> Pipeline:
    from tfx.orchestration.pipeline import Pipeline

    return Pipeline(
        pipeline_name=project.config.name,
        pipeline_root="",  # the runner decides
        components=list(nodes),
        enable_cache=True,
        beam_pipeline_args=list(BEAM_ARGS),
    )
