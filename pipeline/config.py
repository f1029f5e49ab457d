"""One YAML file per pipeline, read into frozen dataclasses and checked once.

Every error names the file, the line and the key. Relative paths start at the folder of the file. The reference page
`docs/configuration.md` is generated from the dataclasses below (`pipeline/reference.py`).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from gates.settings import (
    DataGateSettings,
    DeviceBudget,
    ModelGateSettings,
    Override,
    ServingCheckSettings,
)
from models.settings import NetworkSettings, TrainSettings, TuneSettings
from pipeline.layers import ConfigError as ConfigError  # what `load` raises
from pipeline.layers import Layer, read
from schemas.features import FeatureSet, Kind, LabelKind, SchemaError, feature_set, load_schema
from tflite.settings import (
    ClusteringSettings,
    PruningSettings,
    QuantizationAwareSettings,
    StudentSettings,
    TrainableSettings,
)
from tflite.variants import Treatment, Variant

STRICT = ConfigDict(extra="forbid", strict=True)
SCHEMA = "schema.pbtxt"
NO_SNAPSHOT = "live"
"""What `data.source.snapshot` says for tables that have no past."""
_TABLE = r"^[a-z][a-z0-9-]{4,28}[a-z0-9]\.\w+\.[\w-]+$"
CHAMPION = "champion"
"""What `train.warm_start.source` says for the model that serves."""


def _as_time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not a date or time such as 2013-09-01 or 2013-09-01T06:00:00"
        ) from error
    return text


def _slug(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum() or not text[0].isalpha() or text != text.lower():
        raise ValueError(f"{text!r} must start with a letter and hold only a-z, 0-9, - and _")
    return text


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_snapshot(text: str) -> str:
    return text if text == NO_SNAPSHOT else _as_time(text)


Time = Annotated[str, AfterValidator(_as_time)]
Snapshot = Annotated[str, AfterValidator(_as_snapshot)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class QuerySource:
    """`data.source` with `kind: query`: SQL over CSV and Parquet files, run by DuckDB (QueryExampleGen)."""

    kind: Literal["query"]
    tables: Annotated[
        dict[str, str],
        Field(
            min_length=1,
            description="View name to file, folder, glob or package://PACKAGE/FILE; CSV or Parquet, also .gz and "
            ".zip; {SPAN} in a path stands for the span number.",
        ),
    ]
    sql: Annotated[
        str | None,
        Field(
            description="File with one SELECT; $first_span and $last_span are bound. Absent: the whole one table."
        ),
    ] = None
    null_values: Annotated[Names, Field(description="CSV fields that mean missing.")] = ("", "NA")


@dataclass(frozen=True, config=STRICT)
class FilesSource:
    """`data.source` with `kind: csv | tfrecord | parquet`: files read by TFX's stock components."""

    kind: Literal["csv", "tfrecord", "parquet"]
    folder: Annotated[
        str,
        Field(
            description="Folder of the files, or of the folders train/, validation/ and test/; {SPAN} stands for "
            "the span number."
        ),
    ]


@dataclass(frozen=True, config=STRICT)
class BigQuerySource:
    """`data.source` with `kind: bigquery`: SQL run by BigQuery (BigQueryExampleGen)."""

    kind: Literal["bigquery"]
    sql: Annotated[
        str,
        Field(
            description="File with one SELECT; $first_span and $last_span are bound, and in BigQuery's dialect "
            "$snapshot_time, too."
        ),
    ]
    project: Annotated[str, Field(description="Google Cloud project that is billed.")]
    temp_location: Annotated[
        str,
        Field(pattern=r"^gs://[^/]+", description="gs:// folder through which BigQuery exports the rows."),
    ]
    dialect: Annotated[
        Literal["bigquery", "duckdb"],
        Field(description="Whose SQL the file holds; that of duckdb, as kind: query runs it, is translated."),
    ] = "bigquery"
    tables: Annotated[
        dict[str, Annotated[str, Field(pattern=_TABLE)]],
        Field(description="dialect: duckdb: view name to PROJECT.DATASET.TABLE."),
    ] = Field(default_factory=dict)
    snapshot: Annotated[
        Snapshot | None,
        Field(
            description="Time as of which every table is read: ISO 8601, in UTC where it has no zone. Absent: the "
            "start of the run. live: as they are, for views and external tables."
        ),
    ] = None

    @model_validator(mode="after")
    def _tables_of_the_dialect(self) -> BigQuerySource:
        if self.dialect == "duckdb" and not self.tables:
            raise ValueError(
                "tables: missing; dialect: duckdb needs PROJECT.DATASET.TABLE of each view that the SQL reads"
            )
        if self.dialect == "bigquery" and self.tables:
            raise ValueError("tables: dialect: bigquery names its tables in the SQL; leave this out")
        return self


Source = Annotated[QuerySource | FilesSource | BigQuerySource, Field(discriminator="kind")]


@dataclass(frozen=True, config=STRICT)
class TimeSplit:
    """`data.split` with `by: time`: the past trains, the latest rows test. Give two instants or two fractions."""

    by: Literal["time"]
    column: Annotated[str, Field(description="Column that orders the rows.")]
    validation_from: Annotated[Time | None, Field(description="First instant of the validation split.")] = (
        None
    )
    test_from: Annotated[Time | None, Field(description="First instant of the test split.")] = None
    validation_fraction: Annotated[
        Share | None, Field(description="Share of rows just before the test split.")
    ] = None
    test_fraction: Annotated[Share | None, Field(description="Share of the latest rows.")] = None

    @model_validator(mode="after")
    def _one_form(self) -> TimeSplit:
        instants = (self.validation_from, self.test_from)
        fractions = (self.validation_fraction, self.test_fraction)
        if (None in instants) == (None in fractions) or (any(instants) and any(fractions)):
            raise ValueError(
                "give either validation_from and test_from, or validation_fraction and test_fraction"
            )
        if (
            self.validation_from
            and self.test_from
            and not (datetime.fromisoformat(self.validation_from) < datetime.fromisoformat(self.test_from))
        ):
            raise ValueError(
                f"validation_from {self.validation_from} must be before test_from {self.test_from}"
            )
        if (
            self.validation_fraction
            and self.test_fraction
            and self.validation_fraction + self.test_fraction >= 1
        ):
            raise ValueError("validation_fraction and test_fraction leave nothing to train on")
        return self


@dataclass(frozen=True, config=STRICT)
class ColumnSplit:
    """`data.split` with `by: column`: a column of the data names each row's split."""

    by: Literal["column"]
    column: Annotated[str, Field(description="Column that names the split.")]
    train: Annotated[str, Field(description="Value of the training rows.")] = "train"
    validation: Annotated[str, Field(description="Value of the validation rows.")] = "validation"
    test: Annotated[str, Field(description="Value of the test rows.")] = "test"


@dataclass(frozen=True, config=STRICT)
class HashSplit:
    """`data.split` with `by: hash`: rows with the same key always fall into the same split."""

    by: Literal["hash"]
    columns: Annotated[Names, Field(min_length=1, description="Key columns.")]
    validation_fraction: Annotated[Share, Field(description="Share of the keys.")] = 0.1
    test_fraction: Annotated[Share, Field(description="Share of the keys.")] = 0.2

    @model_validator(mode="after")
    def _leaves_train(self) -> HashSplit:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave nothing to train on")
        return self


@dataclass(frozen=True, config=STRICT)
class FolderSplit:
    """`data.split` with `by: folder`: sub-folders train/, validation/ and test/ (csv, tfrecord and parquet)."""

    by: Literal["folder"]


Split = Annotated[TimeSplit | ColumnSplit | HashSplit | FolderSplit, Field(discriminator="by")]


@dataclass(frozen=True, config=STRICT)
class SpanConfig:
    """`data.span`: which spans of the data a run reads."""

    last: Annotated[
        Annotated[int, Field(ge=0)] | Literal["latest"],
        Field(description="Newest span to read; latest: the newest in the files."),
    ] = "latest"
    window: Annotated[
        int | None,
        Field(ge=1, description="Number of spans up to it, of those that have files; absent: all of them."),
    ] = None


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """`data`: where rows come from and which split they fall into."""

    source: Annotated[Source, Field(description="Where the rows come from.")]
    split: Annotated[Split, Field(description="Which rows train, validate and test.")]
    span: Annotated[SpanConfig | None, Field(description="Spans to read; absent: the data has none.")] = None
    key: Annotated[
        Names,
        Field(description="Columns that together name a row; the data gate looks for the same row twice."),
    ] = ()
    time: Annotated[
        str | None,
        Field(
            description="Column whose order the splits have to keep. Absent: the column of a split by time."
        ),
    ] = None

    @property
    def order_column(self) -> str | None:
        """The column whose order the splits have to keep, if there is one."""
        return self.split.column if self.time is None and isinstance(self.split, TimeSplit) else self.time

    @model_validator(mode="after")
    def _compatible(self) -> DataConfig:
        by_query = not isinstance(self.source, FilesSource)
        if by_query and self.split.by == "folder":
            raise ValueError(
                f"split.by: folder needs files read by a stock component, not source.kind: {self.source.kind}"
            )
        if not by_query and self.split.by in ("time", "column"):
            raise ValueError(
                f"split.by: {self.split.by} needs source.kind: query or bigquery; {self.source.kind} splits by hash "
                "or folder"
            )
        if isinstance(self.split, HashSplit) and not by_query and len(self.split.columns) != 1:
            raise ValueError(
                f"source.kind: {self.source.kind} hashes one column, not {len(self.split.columns)}"
            )
        if isinstance(self.source, FilesSource) and self.span and self.span.window != 1:
            raise ValueError(
                f"span.window: source.kind: {self.source.kind} reads one span: say window: 1, or use "
                "source.kind: query for a window of several"
            )
        if self.source.kind == "bigquery" and self.span and self.span.last == "latest":
            raise ValueError("span.last: latest: BigQuery does not tell its spans; give a number")
        return self


@dataclass(frozen=True, config=STRICT)
class LabelConfig:
    """`label`: what is predicted."""

    column: Annotated[str, Field(description="Column to predict.")]
    kind: Annotated[
        Literal["binary", "multiclass", "regression"] | None,
        Field(description="Absent: follows from the schema's type and domain."),
    ] = None
    classes: Annotated[
        Names,
        Field(
            description="Classes in the order of the scores, the positive one last. Absent: from the schema."
        ),
    ] = ()


@dataclass(frozen=True, config=STRICT)
class FeatureOverride:
    """`features.overrides.NAME`: an exception to what the schema implies."""

    kind: Annotated[
        Literal["numeric", "bucketized", "categorical", "hashed", "cyclical", "boolean", "text", "encoded"]
        | None,
        Field(description="How the value is prepared."),
    ] = None
    log: Annotated[bool | None, Field(description="numeric: compress with log(1+|x|) before scaling.")] = None
    buckets: Annotated[
        int | None, Field(ge=2, le=1000, description="bucketized: number of quantile buckets.")
    ] = None
    vocabulary_size: Annotated[
        int | None, Field(ge=1, description="categorical, text: most frequent values kept.")
    ] = None
    min_count: Annotated[
        int | None, Field(ge=1, description="categorical, text: rarer values count as unseen.")
    ] = None
    hash_buckets: Annotated[int | None, Field(ge=2, description="hashed: number of buckets.")] = None
    period: Annotated[float | None, Field(gt=0, description="cyclical: length of the cycle, e.g. 24.")] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=4096, description="text: longest text, in words.")] = (
        None
    )

    encoder: Annotated[
        str | None,
        Field(description="encoded: a SavedModel or tf_keras model from the raw value to numbers."),
    ] = None
    trainable: Annotated[
        bool | None, Field(description="encoded: fine-tune the encoder; absent: it stays as it is.")
    ] = None

    @model_validator(mode="after")
    def _cyclical_needs_period(self) -> FeatureOverride:
        if self.kind == "cyclical" and self.period is None:
            raise ValueError("kind: cyclical needs a period, e.g. 24 for an hour of the day")
        return self


@dataclass(frozen=True, config=STRICT)
class FeaturesConfig:
    """`features`: which columns the model sees, where the schema does not say it."""

    exclude: Annotated[
        Names, Field(description="Columns that stay in the data but are no inputs: keys, times.")
    ] = ()
    overrides: Annotated[dict[str, FeatureOverride], Field(description="Exceptions, by feature name.")] = (
        Field(default_factory=dict)
    )


@dataclass(frozen=True, config=STRICT)
class TransformConfig:
    """`transform`: how the preprocessing graph is applied."""

    materialize: Annotated[
        bool, Field(description="Write transformed examples instead of applying the graph while training.")
    ] = False


Metric = Literal[
    "auc",
    "auc_precision_recall",
    "log_loss",
    "accuracy",
    "precision",
    "recall",
    "calibration",
    "mean_squared_error",
    "mean_absolute_error",
]


_SHARES = frozenset({"auc", "auc_precision_recall", "accuracy", "precision", "recall"})


@dataclass(frozen=True, config=STRICT)
class MetricBound:
    """`evaluate.bounds`: what a model must reach to be pushed."""

    metric: Annotated[Metric, Field(description="Metric, on the test split.")]
    min: Annotated[float | None, Field(description="Smallest value that passes.")] = None
    max: Annotated[float | None, Field(description="Largest value that passes.")] = None
    max_loss_to_champion: Annotated[
        float | None, Field(ge=0.0, description="How much worse than the champion on the same rows may pass.")
    ] = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> MetricBound:
        if self.min is None and self.max is None:
            raise ValueError(f"{self.metric} needs a min or a max: without one TFX blesses nothing")
        highest = 1.0 if self.metric in _SHARES else math.inf
        for name, bound in (("min", self.min), ("max", self.max)):
            if bound is not None and not 0.0 <= bound <= highest:
                among = "0 to 1" if highest == 1.0 else "0 and up"
                raise ValueError(f"{name} {bound} is out of the range of {self.metric}, {among}")
        if self.min is not None and self.max is not None and not self.min <= self.max:
            raise ValueError(f"{self.metric}: min {self.min} must not be above max {self.max}")
        return self


@dataclass(frozen=True, config=STRICT)
class EvaluateConfig:
    """`evaluate`: metrics, slices and bounds on the test split."""

    bounds: Annotated[
        tuple[MetricBound, ...], BeforeValidator(_listed), Field(description="All must hold.")
    ] = ()
    slices: Annotated[
        tuple[Names, ...],
        BeforeValidator(_listed),
        Field(description="Columns to slice the metrics by; several in one entry are crossed."),
    ] = ()


@dataclass(frozen=True, config=STRICT)
class PushConfig:
    """`push`: where a blessed model goes."""

    folder: Annotated[
        str | None,
        Field(description="Folder that gets one numbered version per push. Absent: OUTPUT/serving."),
    ] = None


def _as_variants(names: tuple[str, ...]) -> tuple[str, ...]:
    variants = [Variant.from_name(name) for name in names]
    if variants and all(variant.treatment is Treatment.TRAINABLE for variant in variants):
        raise ValueError("a file that learns stands in for none that only answers: name one, such as float32")
    if len(set(names)) < len(names):
        raise ValueError("a variant is named twice")
    return names


@dataclass(frozen=True, config=STRICT)
class TfliteConfig:
    """`tflite`: LiteRT files of a pushed model, for phones and small machines."""

    enabled: Annotated[bool, Field(description="Make device models of every version that is pushed.")] = False
    variants: Annotated[
        Names,
        AfterValidator(_as_variants),
        Field(
            min_length=1,
            description="FORMAT or TREATMENT+FORMAT. Formats: float32, float16, dynamic_int8, int8, int16x8; "
            "treatments: pruned, block_pruned, clustered, quantization_aware, distilled; trainable+float32 learns on "
            "the device.",
        ),
    ] = ("float32", "float16", "dynamic_int8", "int8")
    budget: Annotated[DeviceBudget, Field(description="What a device model may cost.")] = Field(
        default_factory=DeviceBudget
    )
    rows: Annotated[
        int,
        Field(ge=100, le=1_000_000, description="Rows of test that each answers, or all if there are fewer."),
    ] = 10_000
    max_difference: Annotated[
        float,
        Field(
            gt=0.0,
            description="Largest difference of a score between float32 on the device and the server; of a "
            "prediction, as a share of the largest.",
        ),
    ] = 1e-5
    max_refused_rows: Annotated[
        float,
        Field(
            ge=0.0,
            lt=1.0,
            description="Share of these rows that the client on a device may refuse, such as texts that are no UTF-8.",
        ),
    ] = 0.001
    calibration_rows: Annotated[
        Count, Field(description="Rows of train that show int8 and int16x8 how far activations reach.")
    ] = 2000
    pruned: Annotated[PruningSettings, Field(description="Single weights become zero.")] = Field(
        default_factory=PruningSettings
    )
    block_pruned: Annotated[PruningSettings, Field(description="Blocks of weights become zero.")] = Field(
        default_factory=PruningSettings
    )
    clustered: Annotated[ClusteringSettings, Field(description="Weights share a few values.")] = Field(
        default_factory=ClusteringSettings
    )
    quantization_aware: Annotated[
        QuantizationAwareSettings, Field(description="Weights learn with int8's rounding.")
    ] = Field(default_factory=QuantizationAwareSettings)
    distilled: Annotated[StudentSettings, Field(description="A smaller network learns from the answers.")] = (
        Field(default_factory=StudentSettings)
    )
    trainable: Annotated[TrainableSettings, Field(description="The file learns on the device.")] = Field(
        default_factory=TrainableSettings
    )
    folder: Annotated[
        str | None,
        Field(description="Folder that gets one numbered set of files per push. Absent: OUTPUT/device."),
    ] = None


@dataclass(frozen=True, config=STRICT)
class NodeConfig:
    """`run.nodes.NAME`: limits of one component."""

    retries: Annotated[int | None, Field(ge=0, le=10, description="More tries after a failure.")] = None
    timeout_minutes: Annotated[
        float | None, Field(gt=0, description="Stop the component after this long.")
    ] = None


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """`run`: how the pipeline is executed."""

    retries: Annotated[int, Field(ge=0, le=10, description="More tries after a component's failure.")] = 0
    timeout_minutes: Annotated[float, Field(gt=0, description="Stop a component after this long.")] = 60.0
    nodes: Annotated[dict[str, NodeConfig], Field(description="Limits by component id, e.g. Trainer.")] = (
        Field(default_factory=dict)
    )


@dataclass(frozen=True, config=STRICT)
class Config:
    """A pipeline."""

    name: Annotated[
        str, AfterValidator(_slug), Field(min_length=1, max_length=63, description="Pipeline name.")
    ]
    data: Annotated[DataConfig, Field(description="Where rows come from.")]
    label: Annotated[LabelConfig, Field(description="What is predicted.")]
    schema: Annotated[
        str | None,
        Field(
            description="Curated schema (TFDV, protobuf text). Absent: schema.pbtxt beside this file, which the "
            "first run infers where there is none."
        ),
    ] = None
    output: Annotated[
        str | None,
        Field(description="Folder for everything a run writes. Absent: output/NAME in the current folder."),
    ] = None
    features: Annotated[FeaturesConfig, Field(description="Exceptions to the schema.")] = Field(
        default_factory=FeaturesConfig
    )
    transform: Annotated[TransformConfig, Field(description="The preprocessing graph.")] = Field(
        default_factory=TransformConfig
    )
    data_gate: Annotated[DataGateSettings, Field(description="What stops a run before training.")] = Field(
        default_factory=DataGateSettings
    )
    model: Annotated[NetworkSettings, Field(description="The network.")] = Field(
        default_factory=NetworkSettings
    )
    train: Annotated[TrainSettings, Field(description="Training.")] = Field(default_factory=TrainSettings)
    tune: Annotated[TuneSettings, Field(description="Hyperparameter search.")] = Field(
        default_factory=TuneSettings
    )
    evaluate: Annotated[EvaluateConfig, Field(description="Metrics and bounds.")] = Field(
        default_factory=EvaluateConfig
    )
    serving_check: Annotated[
        ServingCheckSettings, Field(description="The exported model, alone in a fresh process.")
    ] = Field(default_factory=ServingCheckSettings)
    model_gate: Annotated[
        ModelGateSettings, Field(description="What a model has to show on the test split.")
    ] = Field(default_factory=ModelGateSettings)
    overrides: Annotated[
        tuple[Override, ...],
        BeforeValidator(_listed),
        Field(description="Refusals that somebody answers for."),
    ] = ()
    push: Annotated[PushConfig, Field(description="Where a blessed model goes.")] = Field(
        default_factory=PushConfig
    )
    tflite: Annotated[TfliteConfig, Field(description="Device models of a pushed version.")] = Field(
        default_factory=TfliteConfig
    )
    run: Annotated[RunConfig, Field(description="Execution.")] = Field(default_factory=RunConfig)

    @field_validator("tune")
    @classmethod
    def _fits_warm_start(cls, tune: TuneSettings, info: ValidationInfo) -> TuneSettings:
        """Refuses what would only fail in the Trainer, after the whole search."""
        train: TrainSettings | None = info.data.get("train")  # absent where it has faults of its own
        if train is None or train.warm_start is None:
            return tune
        if tune.ensemble > 1:
            raise ValueError(
                f"ensemble is {tune.ensemble}, but train.warm_start takes the weights of one network, and the "
                "next champion would be an ensemble: set tune.ensemble: 1, or leave train.warm_start out"
            )
        shaping = [name for name in tune.search if name in _SHAPING]
        if tune.enabled and shaping:
            raise ValueError(
                f"search has {', '.join(shaping)}, but with train.warm_start the network keeps the shapes of "
                "the model that it begins with: search other settings, or leave train.warm_start out"
            )
        return tune


_SHAPING = (
    "model.hidden_units",
    "model.cross_layers",
    "model.cross_rank",
    "model.wide",
    "model.embedding_size",
)
"""Settings that decide the shapes of weights."""

_ADAPTER = TypeAdapter(Config)


@dataclasses.dataclass(frozen=True)
class Project:
    """A checked configuration together with the file it came from."""

    config: Config
    file: Path
    lines: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    read_at: datetime = dataclasses.field(
        default_factory=lambda: datetime.now(UTC).replace(microsecond=0), compare=False, repr=False
    )
    """When a run began that this was read for: in whole seconds, as tables of BigQuery are read by default."""

    def place(self, key: str) -> str:
        """Where a dotted key, or the nearest group around it, was set: `FILE:LINE`, or the override."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return self.lines.get(key, str(self.file))

    def existing_file(self, key: str, path: str) -> Path:
        """The file that a key names.

        Raises:
          ConfigError: if it is not there; the message names the nearest file that is.
        """
        file = self.resolve(path)
        if file.is_file():
            return file
        beside = [child.name for child in file.parent.iterdir()] if file.parent.is_dir() else []
        close = difflib.get_close_matches(file.name, beside, n=1, cutoff=0.5)
        hint = f"; did you mean {file.parent / close[0]}?" if close else ""
        raise ConfigError(f"{key}: {file}: no such file{hint} ({self.place(key)})")

    def resolve(self, path: str) -> Path:
        """An absolute path; a relative one starts at the folder of the configuration file."""
        return (self.file.parent / path).resolve()

    @property
    def root(self) -> Path:
        """The folder that holds everything a run writes."""
        output = self.config.output
        return self.resolve(output) if output else Path.cwd() / "output" / self.config.name

    @property
    def serving_folder(self) -> Path:
        """The folder that gets one numbered model version per push."""
        folder = self.config.push.folder
        return self.resolve(folder) if folder else self.root / "serving"

    @property
    def device_folder(self) -> Path:
        """The folder that gets one numbered set of device models per push."""
        folder = self.config.tflite.folder
        return self.resolve(folder) if folder else self.root / "device"

    @property
    def schema_file(self) -> Path:
        """The curated schema.

        Raises:
          ConfigError: if the configuration names a file that is not there.
        """
        if self.config.schema is not None:
            return self.existing_file("schema", self.config.schema)
        return self.resolve(SCHEMA)

    def warm_start_weights(self) -> Path | None:
        """The index of the weights that `train.warm_start.source` names; None where that names no folder.

        Raises:
          ConfigError: if it names a folder that holds no SavedModel.
        """
        warm_start = self.config.train.warm_start
        if warm_start is None or warm_start.source == CHAMPION:
            return None
        key = "train.warm_start.source"
        self.existing_file(key, f"{warm_start.source}/saved_model.pb")
        return self.existing_file(key, f"{warm_start.source}/variables/variables.index")

    @property
    def lacks_schema(self) -> bool:
        """Whether the first run still has to infer the schema."""
        return self.config.schema is None and not self.schema_file.exists()

    def feature_set(self) -> FeatureSet:
        """Roles and kinds of all columns.

        Raises:
          ConfigError: where the schema and the configuration do not fit each other.
        """
        config = self.config
        if self.lacks_schema:
            raise ConfigError(
                f"schema: {self.schema_file} is not there yet; `headworks run` infers it from the data, and "
                f"`headworks init` writes one with a new configuration ({self.file})"
            )
        try:
            schema = load_schema(str(self.schema_file))
            self._check_columns([column.name for column in schema.feature])
            found = feature_set(
                schema,
                config.label.column,
                exclude=config.features.exclude,
                overrides={
                    name: self._given(name, given) for name, given in config.features.overrides.items()
                },
                label_kind=LabelKind(config.label.kind) if config.label.kind else None,
                classes=config.label.classes,
            )
        except SchemaError as error:
            message = str(error)
            raise ConfigError(
                message if str(self.schema_file) in message else f"{self.file}: {message}"
            ) from error
        self._check_for_devices(found)
        return found

    def _check_for_devices(self, features: FeatureSet) -> None:
        """Refuses what would only fail after training, when the model is converted."""
        if not self.config.tflite.enabled:
            return
        precision = self.config.train.mixed_precision
        if precision != "off":
            raise ConfigError(
                f"train.mixed_precision: {precision}: device models are made of a network that computes in float32 "
                f"({self.place('train.mixed_precision')}): set train.mixed_precision: off, or leave tflite out "
                f"({self.place('tflite.enabled')})"
            )
        encoded = [feature.name for feature in features if feature.kind is Kind.ENCODED]
        if encoded:
            raise ConfigError(
                f"tflite.enabled: the encoder of {encoded[0]!r} reads raw text or images, which a device model cannot "
                f"take: set features.exclude: [{encoded[0]}], or leave tflite out ({self.place('tflite.enabled')})"
            )

    def _given(self, name: str, override: FeatureOverride) -> dict[str, Any]:
        """The fields that an override sets; an encoder as an absolute path with what tells its content from others."""
        fields = {field: value for field, value in dataclasses.asdict(override).items() if value is not None}
        if "kind" in fields:
            fields["kind"] = Kind(fields["kind"])
        if override.encoder is not None:
            encoder = self.resolve(override.encoder)
            if not encoder.exists():
                key = f"features.overrides.{name}.encoder"
                raise ConfigError(f"{key}: {encoder}: no such file or folder ({self.place(key)})")
            files = sorted(encoder.rglob("*")) if encoder.is_dir() else [encoder]
            content = hashlib.sha256()
            for file in filter(Path.is_file, files):
                content.update(f"{file.relative_to(encoder.parent)} {file.stat().st_size}".encode())
                content.update(_file_digest(file, file.stat().st_size, file.stat().st_mtime_ns))
            fields |= {"encoder": str(encoder), "encoder_digest": content.hexdigest()}
        return fields

    def _check_columns(self, columns: Sequence[str]) -> None:
        """Refuses a key that names a column which the schema does not have."""
        for key, name in self._named_columns():
            if name not in columns:
                close = difflib.get_close_matches(name, columns, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigError(f"{key}: the schema has no column {name!r}{hint} ({self.place(key)})")

    def _named_columns(self) -> Iterator[tuple[str, str]]:
        """Keys of the configuration that name columns of the schema, with each name."""
        config = self.config
        yield from (("evaluate.slices", name) for names in config.evaluate.slices for name in names)
        yield from (("data.key", name) for name in config.data.key)
        if config.data.time is not None:
            yield "data.time", config.data.time
        gate = config.data_gate
        yield from (("data_gate.rules", rule.column) for rule in gate.rules if rule.column != "*")
        yield from (("data_gate.drift.columns", name) for name in gate.drift.columns)

    def values(self) -> dict[str, Any]:
        """The checked values as they would stand in a file, with all defaults."""
        return dict(_ADAPTER.dump_python(self.config, mode="json"))

    def digest(self) -> str:
        """SHA-256 of the checked values; comments, key order and the file's place do not count."""
        return hashlib.sha256(json.dumps(self.values(), sort_keys=True).encode()).hexdigest()


@functools.cache
def _file_digest(path: Path, _size: int, _modified_ns: int) -> bytes:
    """SHA-256 of a file, which is read again where its size or time has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def load(file: str | Path, overrides: Sequence[str] = (), layers: Sequence[Layer] = ()) -> Project:
    """Reads and checks a configuration.

    Args:
      file: path of the YAML file.
      overrides: `dotted.key=value` assignments, values in YAML.
      layers: files that add to it, such as the group `config` of an environment.

    Raises:
      ConfigError: naming file, line, key, value and remedy, one line per fault.
    """
    path = Path(file)
    found = read(Config, (Layer(path), *layers), overrides)
    return Project(found.value, path.resolve(), found.lines)
