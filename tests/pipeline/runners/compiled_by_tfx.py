"""A small pipeline as TFX compiles it."""

# TFX reads the annotations of a component as its interface, which is not how a type checker reads them.
# mypy: ignore-errors
# ruff: noqa: N802

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.common.importer import Importer
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
    KubeflowV2DagRunner,
    KubeflowV2DagRunnerConfig,
)
from tfx.orchestration.pipeline import Pipeline
from tfx.types.channel import Channel
from tfx.types.standard_artifacts import Model, Schema, String

COMMAND = ["python", "-m", "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"]


@component
def Produce(
    schema: InputArtifact[Schema],
    model: OutputArtifact[Model],
    said: OutputArtifact[String],
    word: Parameter[str],
    epochs: Parameter[int],
):
    """Makes a value, and a model with a property of its own."""
    with open(f"{schema.uri}/schema.txt") as file:  # noqa: PTH123
        said.value = f"{file.read()} {word} {epochs + 1}"
    model.set_int_custom_property("epochs", epochs)


@component
def Never(said: InputArtifact[String]):
    """Must not run."""
    raise ValueError(said.value)


def pipeline(schema: str) -> Pipeline:
    """An imported schema, one step that a condition lets run and one that it leaves out."""
    properties = {"years": 2}
    imported = Importer(schema, artifact_type=Schema, custom_properties=properties).with_id("Import")
    other = Importer(f"{schema}-2", artifact_type=Schema, custom_properties=properties).with_id("Other")
    word = RuntimeParameter(name="word", ptype=str, default="compiled")
    # A condition on an artifact that the step takes itself names an input that TFX does not compile.
    with Cond(other.outputs["result"].future()[0].custom_property("years") < 3):
        produce = Produce(schema=imported.outputs["result"], word=word, epochs=3)
    model, said = produce.outputs["model"], produce.outputs["said"]
    with Cond(model.future()[0].custom_property("epochs") > 3):
        never = Never(said=said)
    latest = Resolver(strategy_class=LatestArtifactStrategy, model=Channel(type=Model)).with_id("Latest")
    parts = [imported, other, produce, never, latest]
    return Pipeline("small-tfx", "gs://bucket/root", components=parts, enable_cache=True)


def compile_to(file: str, schema: str) -> None:
    """Writes the job whose schema is imported from a folder."""
    config = KubeflowV2DagRunnerConfig(
        default_image="x", default_commands=COMMAND, use_pipeline_spec_2_1=True
    )
    KubeflowV2DagRunner(config, output_filename=file).run(pipeline(schema))
