"""What `pipeline.lineage` answers: plain records, which `dataclasses.asdict` makes ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gates.verdict import Verdict
from pipeline.origins import DataFile, DataOrigin


@dataclass(frozen=True)
class Push:
    """One version of a model in a serving folder.

    Attributes:
      version: its number.
      folder: of the version.
      model_id: of the pushed Model in ML Metadata.
      run_id: which run pushed it.
      pushed_at: UTC, ISO 8601.
      is_serving: whether it is the newest version in its folder, the one that servers load.
      is_there: whether the folder still exists.
    """

    version: int
    folder: str
    model_id: int
    run_id: str
    pushed_at: str
    is_serving: bool
    is_there: bool


@dataclass(frozen=True)
class Step:
    """One node in the making of a model, and the run that really executed it, which may be older than the model's.

    Attributes:
      node_id: its name.
      execution_id: in ML Metadata, of the run that executed it.
      run_id: the run that executed it.
      state: COMPLETE, CACHED or FAILED in the run of the model.
      seconds: how long it took when it was executed.
      git_revision: of that run, if its record is still there.
      source_digest: of the code that a node reached, where it has one.
    """

    node_id: str
    execution_id: int
    run_id: str
    state: str
    seconds: float
    git_revision: str | None
    source_digest: str | None


@dataclass(frozen=True)
class Data:
    """What an ExampleGen read.

    Attributes:
      fingerprint: of content and query; None where an ExampleGen is not one of ours.
      examples: URIs of the examples that were made of it.
      origin: files, spans and SQL; None if no record of them was kept.
      rows: rows in each split, as the statistics have them; empty if those are gone.
    """

    fingerprint: str | None
    examples: tuple[str, ...]
    origin: DataOrigin | None
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Judgement:
    """What one gate said in one run.

    Attributes:
      run_id: the run.
      node_id: the gate.
      passed: whether the run could go on, or the model was blessed.
      champion_id: Model that the candidate was compared with, if any.
      verdicts: one a check; none of a gate that keeps none.
    """

    run_id: str
    node_id: str
    passed: bool
    champion_id: int | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class ModelLineage:
    """All that made a model, and what became of it.

    Attributes:
      model_id: of the Model in ML Metadata.
      uri: its folder.
      is_there: whether the folder is whole as far as ML Metadata knows.
      run_id: the run that trained it.
      trained_at: UTC, ISO 8601.
      reused_by: later runs that took it from the cache.
      git_revision: of the run that trained it.
      config_hash: of that run's configuration.
      config: the configuration itself with all defaults, if it was kept.
      schemas: URIs of the curated schema.
      data: what was read, one entry an ExampleGen.
      steps: the nodes of the run that trained it.
      judgements: of all gates, in all runs that judged it.
      champions: the pushes of the models it was compared with.
      pushes: as which versions it was pushed.
      damaged: by folder, files of a pushed version that differ from its manifest.
    """

    model_id: int
    uri: str
    is_there: bool
    run_id: str
    trained_at: str
    reused_by: tuple[str, ...]
    git_revision: str | None
    config_hash: str | None
    config: Mapping[str, Any] | None
    schemas: tuple[str, ...]
    data: tuple[Data, ...]
    steps: tuple[Step, ...]
    judgements: tuple[Judgement, ...]
    champions: tuple[Push, ...]
    pushes: tuple[Push, ...]
    damaged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SeenBy:
    """A model that saw the data."""

    model_id: int
    uri: str
    run_id: str
    trained_at: str
    pushes: tuple[Push, ...]

    @property
    def is_serving(self) -> bool:
        """Whether one of its versions serves now."""
        return any(push.is_serving for push in self.pushes)


@dataclass(frozen=True)
class Reader:
    """A run that read the data, or took examples made of them from the cache.

    Attributes:
      run_id: the run.
      from_cache: whether it took the examples from the cache.
      failed_nodes: nodes that failed in it, such as a gate that refused.
      model_ids: models that it trained or took from the cache.
    """

    run_id: str
    from_cache: bool
    failed_nodes: tuple[str, ...]
    model_ids: tuple[int, ...]


@dataclass(frozen=True)
class DataLineage:
    """Who saw some data.

    Attributes:
      question: what was asked, in words.
      digest: SHA-256 of the content that was asked about, or of what the path holds now; None where there is none.
      found: the files that match; none where spans come from the SQL.
      other_contents: SHA-256 of what the path held in other runs, which this answer leaves out.
      readers: the runs, newest first.
      models: all that were made with it, newest first; which rows trained and which tested, the split decided.
      judged: models that were only compared on it, such as a champion: what was said of them then may be wrong.
      unrecorded: runs that read data of which no record was kept: whether they saw it cannot be said.
    """

    question: str
    digest: str | None
    found: tuple[DataFile, ...]
    other_contents: tuple[str, ...]
    readers: tuple[Reader, ...]
    models: tuple[SeenBy, ...]
    judged: tuple[SeenBy, ...]
    unrecorded: tuple[str, ...] = ()
