"""Tiny real TFX pipelines for the runner's tests. Loaded by the runner's children; the tests only name them.

Each component appends its name to `<notes>/ran`, so a test can tell what really executed from what was
reused. What a component does beyond that is decided by files in the folder `notes`, because files outlive
processes.
"""

# TFX reads the annotations of a component as its interface, which is not how a type checker reads them.
# mypy: ignore-errors
# ruff: noqa: N802

import logging
import os
import time
from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.orchestration.pipeline import Pipeline
from tfx.types.channel import Channel
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, PushedModel, Schema

from pipeline.components.gate_output import RefusedError


def _note(notes: str, name: str) -> None:
    with (Path(notes) / "ran").open("a") as file:
        file.write(f"{name}\n")


def _misbehave(notes: str, name: str) -> None:
    """Do what a file `<name>.<deed>` in the notes folder asks for."""
    folder = Path(notes)
    if (folder / f"{name}.fail").exists():
        try:
            raise KeyError("dep_delay")
        except KeyError as error:
            raise ValueError(f"{name} met a row it cannot read") from error
    flaky = folder / f"{name}.fail_once"
    if flaky.exists():
        flaky.unlink()
        raise OSError("the network was away for a moment")
    refusing = folder / f"{name}.refuse_once"
    if refusing.exists():
        refusing.unlink()
        raise RefusedError("too few rows")
    if (folder / f"{name}.hang").exists():
        (folder / f"{name}.pid").write_text(str(os.getpid()))
    while (folder / f"{name}.hang").exists():
        time.sleep(0.05)


@component
def Source(
    examples: OutputArtifact[Examples],
    schema: OutputArtifact[Schema],
    notes: Parameter[str],
    text: Parameter[str],
):
    _note(notes, "Source")
    print("a word on standard output")  # noqa: T201
    Path(examples.uri, "half").write_text("half")
    _misbehave(notes, "Source")
    Path(examples.uri, "rows").write_text(text)
    Path(schema.uri, "schema").write_text("schema")
    progress = logging.getLogger("headworks.progress")
    for done in (0, 50, 100):
        progress.info("rows", extra={"done": done, "total": 100, "unit": "rows"})


@component
def Left(
    examples: InputArtifact[Examples],
    schema: InputArtifact[Schema],
    model: OutputArtifact[Model],
    notes: Parameter[str],
):
    _note(notes, "Left")
    _misbehave(notes, "Left")
    assert Path(schema.uri, "schema").exists()
    Path(model.uri, "model").write_text(Path(examples.uri, "rows").read_text())


@component
def Right(examples: InputArtifact[Examples], pushed: OutputArtifact[PushedModel], notes: Parameter[str]):
    _note(notes, "Right")
    _misbehave(notes, "Right")
    Path(pushed.uri, "pushed").write_text("pushed")
    pushed.set_int_custom_property("pushed", 1)


@component
def Judge(model: InputArtifact[Model], blessing: OutputArtifact[ModelBlessing], notes: Parameter[str]):
    _note(notes, "Judge")
    _misbehave(notes, "Judge")
    Path(blessing.uri, "BLESSED").write_text("")
    blessing.set_int_custom_property("blessed", 1)
    blessing.set_int_custom_property("current_model_id", model.id)


def diamond(notes: str, text: str = "rows") -> Pipeline:
    """Source → Left → Judge, and Source → Right beside them."""
    source = Source(notes=notes, text=text)
    left = Left(examples=source.outputs["examples"], schema=source.outputs["schema"], notes=notes)
    right = Right(examples=source.outputs["examples"], notes=notes)
    judge = Judge(model=left.outputs["model"], notes=notes)
    return Pipeline("diamond", pipeline_root="", components=[source, left, right, judge], enable_cache=True)


def with_champion(notes: str) -> Pipeline:
    """The diamond's long side, and a resolver that looks for the blessed model of an earlier run."""
    champion = Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
    ).with_id("Champion")
    source = Source(notes=notes, text="rows")
    left = Left(examples=source.outputs["examples"], schema=source.outputs["schema"], notes=notes)
    left.add_upstream_node(champion)
    judge = Judge(model=left.outputs["model"], notes=notes)
    return Pipeline(
        "diamond", pipeline_root="", components=[champion, source, left, judge], enable_cache=True
    )


def not_a_pipeline() -> str:
    return "not a pipeline"


def broken() -> Pipeline:
    raise RuntimeError("the schema has no label")


def starved(notes: str) -> Pipeline:
    """A judge that wants a model nobody ever made: TFX writes FAILED down and returns as if all were well."""
    judge = Judge(model=Channel(type=Model, producer_component_id="Left"), notes=notes)
    return Pipeline("diamond", pipeline_root="", components=[judge], enable_cache=True)


@component
def Trains(model: OutputArtifact[Model]):
    import numpy as np
    import tf_keras

    network = tf_keras.Sequential([tf_keras.layers.Dense(4, activation="relu"), tf_keras.layers.Dense(1)])
    network.compile("adam", "mse")
    rows = np.random.default_rng(0).normal(size=(256, 8))
    network.fit(rows, rows.sum(axis=1), epochs=2, verbose=0)
    network.save(model.uri, save_format="tf")


@component
def Beams(examples: OutputArtifact[Examples]):
    import apache_beam as beam

    with beam.Pipeline(argv=["--runner=FnApiRunner"]) as lines:
        squares = (
            lines | beam.Create(range(100)) | beam.Map(lambda n: n * n) | beam.combiners.Count.Globally()
        )
        _ = squares | beam.io.WriteToText(f"{examples.uri}/count")


def heavy() -> Pipeline:
    """A training step and a Beam job, side by side: what a badly forked process hangs on."""
    return Pipeline("diamond", pipeline_root="", components=[Trains(), Beams()], enable_cache=True)
