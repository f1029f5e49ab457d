"""A small real pipeline on daily files, for the tests of lineage: real data reading and pushing, a toy in between.

Loaded by the runner's children; the tests only name it.
"""

# TFX reads the annotations of a component as its interface, which is not how a type checker reads them.
# mypy: ignore-errors
# ruff: noqa: N802

from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.pipeline import Pipeline
from tfx.types import component_spec
from tfx.types.channel import Channel
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, PushedModel

from gates.verdict import Outcome, Verdict
from pipeline import origins, stages
from pipeline.components.champion import ChampionStrategy
from pipeline.components.gate_output import GateVerdict, write_or_stop
from pipeline.components.model_pusher import ModelPusher
from pipeline.config import load

_LABEL = "[]"


@component
def Trainer(examples: InputArtifact[Examples], model: OutputArtifact[Model], seed: Parameter[int]):
    folder = Path(model.uri, "Format-Serving")
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_text(f"{examples.uri} {seed}")


class _GateSpec(component_spec.ComponentSpec):
    PARAMETERS = {"refuses": component_spec.ExecutionParameter(type=int)}  # noqa: RUF012 (TFX's interface)
    INPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=Examples),
        "model": component_spec.ChannelParameter(type=Model),
        "champion": component_spec.ChannelParameter(type=Model, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "verdict": component_spec.ChannelParameter(type=GateVerdict),
        "blessing": component_spec.ChannelParameter(type=ModelBlessing),
    }


class GateExecutor(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        outcome = Outcome.of(not exec_properties["refuses"])
        found = Verdict("taste", outcome, "bland", "tasty", "the model is bland")
        write_or_stop((found,), None, Path(output_dict["verdict"][0].uri))
        output_dict["blessing"][0].set_int_custom_property("blessed", 1)


class Gate(base_component.BaseComponent):
    SPEC_CLASS = _GateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(GateExecutor)

    def __init__(self, examples, model, champion, refuses):
        outputs = {"verdict": Channel(type=GateVerdict), "blessing": Channel(type=ModelBlessing)}
        super().__init__(
            _GateSpec(examples=examples, model=model, champion=champion, refuses=refuses, **outputs)
        )


def build(config_file: str, seed: int, refuses: int) -> Pipeline:
    """Reading, training, judging against the champion, pushing."""
    project = load(config_file)
    origins.write(project)
    examples = stages.example_gen(project)
    trainer = Trainer(examples=examples.outputs["examples"], seed=seed)
    champion = Resolver(
        strategy_class=ChampionStrategy,
        config={"label": _LABEL},
        model=Channel(type=Model),
        pushed=Channel(type=PushedModel),
        candidate=trainer.outputs["model"],
    ).with_id("Champion")
    gate = Gate(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        champion=champion.outputs["model"],
        refuses=refuses,
    )
    facts = project.root / "facts.json"
    facts.write_text('{"pipeline": "daily"}')
    pusher = ModelPusher(
        model=trainer.outputs["model"],
        model_blessing=gate.outputs["blessing"],
        facts=str(facts),
        label=_LABEL,
        folder=str(project.serving_folder),
        source_digest="1",
    )
    return Pipeline(
        pipeline_name="daily",
        pipeline_root="",
        components=[examples, trainer, champion, gate, pusher],
        enable_cache=True,
    )
