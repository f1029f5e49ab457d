"""DataGate: a TFX component that stops the run on bad data; ExampleValidator only writes down what it saw."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact, artifact_utils, component_spec, standard_artifacts

from gates.data import judge_data

FILE = "verdict.json"


class DataGateError(Exception):
    """Data that must not train a model; the message holds every refusal."""


class GateVerdict(artifact.Artifact):
    """The verdicts of a gate, as a JSON list in `verdict.json`."""

    TYPE_NAME = "HeadworksVerdict"


class DataGateSpec(component_spec.ComponentSpec):
    """Parameters, inputs and output of DataGate."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "settings": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "anomalies": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
    }
    OUTPUTS = {"verdict": component_spec.ChannelParameter(type=GateVerdict)}  # noqa: RUF012


class Executor(base_executor.BaseExecutor):
    """Reads what TFDV found and judges it."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the verdicts.

        Raises:
          DataGateError: naming split, column, kind of anomaly and what is wrong, if any check refuses.
        """
        found = artifact_utils.get_single_instance(input_dict["anomalies"])
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        splits = artifact_utils.decode_split_names(statistics.split_names)
        settings = json.loads(exec_properties["settings"])
        verdicts = judge_data(
            {split: _anomalies(found, split) for split in splits},
            {split: _row_count(statistics, split) for split in splits},
            settings["min_rows"],
            settings["ignore"],
        )
        refusals = [verdict.reason for verdict in verdicts if not verdict.passed]
        if refusals:
            raise DataGateError("; ".join(refusals))
        folder = Path(artifact_utils.get_single_uri(output_dict["verdict"]))
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / FILE).open("w", encoding="utf-8") as file:
            json.dump([verdict.to_json() for verdict in verdicts], file, indent=1)
            file.flush()
            os.fsync(file.fileno())


def _anomalies(found: types.Artifact, split: str) -> anomalies_pb2.Anomalies:
    path = Path(artifact_utils.get_split_uri([found], split)) / "SchemaDiff.pb"
    return anomalies_pb2.Anomalies.FromString(path.read_bytes())


def _row_count(statistics: types.Artifact, split: str) -> int:
    path = Path(artifact_utils.get_split_uri([statistics], split)) / "FeatureStats.pb"
    datasets = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()).datasets
    # One entry a slice, all rows first; an empty split may have none.
    return int(datasets[0].num_examples) if datasets else 0


class DataGate(base_component.BaseComponent):
    """Anomalies and statistics to a verdict; a refusal is a failed component."""

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self, anomalies: types.BaseChannel, statistics: types.BaseChannel, settings: str, source_digest: str
    ) -> None:
        """Describes the step; `settings` is the configuration's `data_gate` as JSON."""
        super().__init__(
            DataGateSpec(
                anomalies=anomalies,
                statistics=statistics,
                settings=settings,
                source_digest=source_digest,
                verdict=types.Channel(type=GateVerdict),
            )
        )
