"""Where a pipeline is built for, and what differs between the places; everything else is in `pipeline/stages.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tfx.dsl.components.base.base_node import BaseNode

from pipeline import stages
from pipeline.config import Project
from schemas.features import FeatureSet


class Site(Protocol):
    """Builds the stages that depend on the place."""

    def example_gen(self, project: Project) -> BaseNode:
        """Raw rows to `examples` with the splits train, validation and test."""

    def schema(self, project: Project) -> BaseNode:
        """The curated schema as an artifact."""

    def previous_data(self, examples: BaseNode) -> BaseNode:
        """Statistics of the data that the data gate has accepted last, other than the present."""

    def champion(self, project: Project, features: FeatureSet, trainer: BaseNode) -> BaseNode:
        """The model pushed last, other than the candidate."""

    def warm_start_model(
        self, project: Project, features: FeatureSet, examples: BaseNode, transform: BaseNode
    ) -> BaseNode | None:
        """The champion to begin training with, where the configuration asks for it."""

    def pusher(
        self, project: Project, features: FeatureSet, examples: BaseNode, trainer: BaseNode, gate: BaseNode
    ) -> BaseNode:
        """A blessed model to the serving folder, as the next version."""

    def finish(self, project: Project, nodes: Sequence[BaseNode]) -> Sequence[BaseNode]:
        """Adds to the nodes of the pipeline, and changes them, as the place asks for."""


class Laptop:
    """This machine: a run knows its files beforehand, and ML Metadata answers for earlier runs."""

    def example_gen(self, project: Project) -> BaseNode:
        """See `Site`."""
        return stages.example_gen(project)

    def schema(self, project: Project) -> BaseNode:
        """See `Site`."""
        return stages.schema_importer(project)

    def previous_data(self, examples: BaseNode) -> BaseNode:
        """See `Site`."""
        return stages.previous_data(examples)

    def champion(self, project: Project, features: FeatureSet, trainer: BaseNode) -> BaseNode:
        """See `Site`."""
        return stages.champion(features, trainer)

    def warm_start_model(
        self, project: Project, features: FeatureSet, examples: BaseNode, transform: BaseNode
    ) -> BaseNode | None:
        """See `Site`."""
        return stages.warm_start_model(project, features, examples, transform)

    def pusher(
        self, project: Project, features: FeatureSet, examples: BaseNode, trainer: BaseNode, gate: BaseNode
    ) -> BaseNode:
        """See `Site`."""
        return stages.pusher(project, features, trainer, gate)

    def finish(self, project: Project, nodes: Sequence[BaseNode]) -> Sequence[BaseNode]:
        """See `Site`."""
        return nodes
