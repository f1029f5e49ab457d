"""What earlier runs left, as components: in a compiled pipeline they stand where locally TFX's Resolvers do.

Vertex AI resolves the latest artifact of a type alone, which is none of the three questions asked here, and Kubeflow
resolves nothing. Each puts out copies of what is there, for a run may name nothing of another run as its own, or
artifacts that stand for none (`pipeline.container.ABSENT`). None is ever taken from a cache: what they look at changes
outside of their inputs.
"""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.components.example_gen import utils as example_gen
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import artifact_utils, component_spec, standard_artifacts

from pipeline import home
from pipeline.container import ABSENT
from pipeline.mounts import uri_of
from pipeline.push import DESTINATION

_HOME = component_spec.ExecutionParameter(type=str)
_OF_SERVING = {
    "home": _HOME,
    "serving": component_spec.ExecutionParameter(type=str, optional=True),
    "label": component_spec.ExecutionParameter(type=str),
}


class PreviousDataSpec(component_spec.ComponentSpec):
    """Parameters, input and output of PreviousData."""

    PARAMETERS = {"home": _HOME}  # noqa: RUF012 (TFX's interface)
    INPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)
    }
    OUTPUTS = {  # noqa: RUF012
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics)
    }


class PreviousDataExecutor(base_executor.BaseExecutor):
    """Looks through the notes of accepted data."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the statistics of the data accepted last, of other rows than the present."""
        present = fingerprint(artifact_utils.get_single_instance(input_dict["examples"]))
        statistics = artifact_utils.get_single_instance(output_dict["statistics"])
        for found in home.accepted(exec_properties["home"]):
            if not present or found.fingerprint != present:
                home.copy(found.statistics, statistics.uri)
                statistics.split_names = found.split_names
                return
        statistics.set_int_custom_property(ABSENT, 1)


class PreviousData(base_component.BaseComponent):
    """Statistics of the data that the data gate has accepted last, other than the present."""

    SPEC_CLASS = PreviousDataSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(PreviousDataExecutor)

    def __init__(self, examples: types.BaseChannel, home: str | RuntimeParameter) -> None:
        """Describes the step."""
        super().__init__(
            PreviousDataSpec(
                examples=examples,
                home=home,
                statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
            )
        )


class ChampionSpec(component_spec.ComponentSpec):
    """Parameters, input and outputs of Champion."""

    PARAMETERS = _OF_SERVING
    INPUTS = {  # noqa: RUF012
        "candidate": component_spec.ChannelParameter(type=standard_artifacts.Model)
    }
    OUTPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "pushed": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
    }


class ChampionExecutor(base_executor.BaseExecutor):
    """Looks at the serving folder."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the model that was pushed last, other than the candidate, and names its push."""
        candidate = uri_of(artifact_utils.get_single_uri(input_dict["candidate"]))
        model = artifact_utils.get_single_instance(output_dict["model"])
        push = artifact_utils.get_single_instance(output_dict["pushed"])
        found = next(
            (
                version
                for version in home.pushed(_serving_folder(exec_properties))
                if version.label == exec_properties["label"] and version.model != candidate
            ),
            None,
        )
        if found is None:
            model.set_int_custom_property(ABSENT, 1)
            push.set_int_custom_property(ABSENT, 1)
            return
        push.set_string_custom_property(DESTINATION, found.folder)
        if home.exists(found.model):
            home.copy(found.model, model.uri)
        else:
            model.set_int_custom_property(ABSENT, 1)


class Champion(base_component.BaseComponent):
    """The model pushed last, other than the candidate."""

    SPEC_CLASS = ChampionSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ChampionExecutor)

    def __init__(
        self,
        candidate: types.BaseChannel,
        home: str | RuntimeParameter,
        label: str,
        serving: str | None = None,
    ) -> None:
        """Describes the step; `serving` is the serving folder where it is not below `home`."""
        super().__init__(
            ChampionSpec(
                candidate=candidate,
                home=home,
                serving=serving,
                label=label,
                model=types.Channel(type=standard_artifacts.Model),
                pushed=types.Channel(type=standard_artifacts.PushedModel),
            )
        )


class WarmStartModelSpec(component_spec.ComponentSpec):
    """Parameters, input and output of WarmStartModel."""

    PARAMETERS = _OF_SERVING
    INPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)
    }
    OUTPUTS = {"model": component_spec.ChannelParameter(type=standard_artifacts.Model)}  # noqa: RUF012


class WarmStartModelExecutor(base_executor.BaseExecutor):
    """Looks at the serving folder."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the model pushed last that learned from other rows and is still there."""
        present = fingerprint(artifact_utils.get_single_instance(input_dict["examples"]))
        model = artifact_utils.get_single_instance(output_dict["model"])
        for version in home.pushed(_serving_folder(exec_properties)):
            is_of_others = not present or version.fingerprint != present
            if version.label == exec_properties["label"] and is_of_others and home.exists(version.model):
                home.copy(version.model, model.uri)
                return
        model.set_int_custom_property(ABSENT, 1)


class WarmStartModel(base_component.BaseComponent):
    """The champion to begin training with, unless it has learned from these very rows."""

    SPEC_CLASS = WarmStartModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(WarmStartModelExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        home: str | RuntimeParameter,
        label: str,
        serving: str | None = None,
    ) -> None:
        """Describes the step; `serving` is the serving folder where it is not below `home`."""
        super().__init__(
            WarmStartModelSpec(
                examples=examples,
                home=home,
                serving=serving,
                label=label,
                model=types.Channel(type=standard_artifacts.Model),
            )
        )


def fingerprint(examples: types.Artifact) -> str:
    """Of the rows, where their maker left one."""
    return examples.get_string_custom_property(example_gen.FINGERPRINT_PROPERTY_NAME)


def _serving_folder(exec_properties: dict[str, Any]) -> str:
    return home.folder(exec_properties["home"], home.SERVING, exec_properties.get("serving"))
