"""ServingCheck: a TFX component that stops the run if the exported model does not answer as the trained one did.

What TFX's InfraValidator does with Docker, done with a fresh process, and more: InfraValidator looks at whether a
model answers, and this also at what. Where InfraValidator ran, its blessing is asked for too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import path_utils

from gates.evidence import ServingEvidence
from gates.overrides import apply
from gates.serving import (
    EXAMPLES,
    RAW,
    TRANSFORM,
    Fallen,
    Served,
    judge_serving,
    signature_figures,
    unknown_rows,
)
from gates.settings import ServingCheckSettings
from gates.verdict import Verdict
from pipeline.components.gate_output import GateVerdict, overrides, write_or_stop
from pipeline.fresh_process import Inputs, ask
from pipeline.infra_validation import infra_verdict
from pipeline.probe_rows import raw_columns, serialized, with_raw_rows
from schemas.features import FeatureSet
from schemas.probe import Probe


class ServingCheckSpec(component_spec.ComponentSpec):
    """Parameters, inputs and output of ServingCheck."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "settings": component_spec.ExecutionParameter(type=str),
        "overrides": component_spec.ExecutionParameter(type=str),
        "features": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "infra_blessing": component_spec.ChannelParameter(
            type=standard_artifacts.InfraBlessing, optional=True
        ),
    }
    OUTPUTS = {"verdict": component_spec.ChannelParameter(type=GateVerdict)}  # noqa: RUF012


class Executor(base_executor.BaseExecutor):
    """Asks the exported model in a fresh process, and judges its answers."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the verdicts and what was measured.

        Raises:
          RefusedError: with every check that failed.
          FileNotFoundError: if the Trainer left no probe.
        """
        settings = TypeAdapter(ServingCheckSettings).validate_json(exec_properties["settings"])
        features = FeatureSet.from_json(exec_properties["features"])
        model = _saved_model(artifact_utils.get_single_instance(input_dict["model"]))
        probe = Probe.read(Path(artifact_utils.get_single_uri(input_dict["model_run"]))).first(settings.rows)
        verdicts = [infra_verdict(blessing) for blessing in input_dict.get("infra_blessing") or []]
        if not probe.examples:
            probe, verdict = _found_again(probe, input_dict)
            verdicts.append(verdict)
        found = None
        if len(probe):
            served = ask(model, _inputs(probe, features), settings.max_load_seconds)
            verdicts += judge_serving(served, probe, features.label, settings)
            found = _evidence(model, served, probe, features)
        folder = Path(artifact_utils.get_single_uri(output_dict["verdict"]))
        write_or_stop(apply(verdicts, overrides(exec_properties)), found, folder)


def _found_again(probe: Probe, input_dict: dict[str, list[types.Artifact]]) -> tuple[Probe, Verdict]:
    """The probe with raw rows, where training read transformed ones."""
    split = Path(artifact_utils.get_split_uri(input_dict["examples"], "validation"))
    graph = artifact_utils.get_single_uri(input_dict["transform_graph"])
    found = with_raw_rows(probe, split, graph)
    return found, unknown_rows(len(probe) - len(found), len(probe))


def _inputs(probe: Probe, features: FeatureSet) -> Inputs:
    examples = {"examples": serialized(probe)}
    return {EXAMPLES: examples, RAW: raw_columns(probe.examples, features), TRANSFORM: examples}


def _evidence(
    model: Path, served: Served | Fallen, probe: Probe, features: FeatureSet
) -> ServingEvidence | None:
    if isinstance(served, Fallen):
        return None
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    return ServingEvidence(size, served.load_seconds, signature_figures(served, probe, features.label))


def _saved_model(model: types.Artifact) -> Path:
    return Path(path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)))


class ServingCheck(base_component.BaseComponent):
    """An exported model to a verdict; a refusal is a failed component."""

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_run: types.BaseChannel,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        settings: str,
        overrides: str,
        features: str,
        source_digest: str,
        infra_blessing: types.BaseChannel | None = None,
    ) -> None:
        """Describes the step.

        Args:
          model: what the Trainer exported.
          model_run: of the Trainer, with its probe.
          examples: raw, with the split validation; read only where training read transformed rows.
          transform_graph: of Transform; read in the same case.
          settings: the configuration's `serving_check`, as JSON.
          overrides: those of the configuration that count today, as JSON.
          features: the `FeatureSet`, as JSON.
          source_digest: changes with the code that checks; only there to be part of the cache key.
          infra_blessing: InfraValidator's, where it runs.
        """
        super().__init__(
            ServingCheckSpec(
                model=model,
                model_run=model_run,
                examples=examples,
                transform_graph=transform_graph,
                infra_blessing=infra_blessing,
                settings=settings,
                overrides=overrides,
                features=features,
                source_digest=source_digest,
                verdict=types.Channel(type=GateVerdict),
            )
        )
