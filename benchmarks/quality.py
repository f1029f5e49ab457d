"""The network against other learners on the very rows, columns and splits of a finished run.

The rows are the examples that the run made; the others get the raw columns that the network gets. Every learner is
trained once for each seed, and judged on test: mean and standard deviation over the seeds.

- AUC and log loss.
- Calibration error: rows in ascending order of their score, cut into 15 bins of equally many rows; the distance
  between mean score and share of positives in each bin, averaged over the bins (Naeini et al. 2015).
- Seconds: wall time and processor time of training. Boosting: one fit of as many trees as were best on validation,
  without the search for that number. The network: the whole fit with its validation after every epoch, first tracing
  included. On a machine that others use at the same time only the processor time compares, and with --threads 1 best.

Trees take categories and missing values as they are and draw rows and columns; for logistic regression, categories
become indicators, missing numbers the median, and numbers are scaled; it draws nothing, so its seeds agree.

    python -m benchmarks.quality output/flights examples/flights/pipeline.yaml
    python -m benchmarks.quality output/flights examples/flights/pipeline.yaml --random-split
    python -m benchmarks.quality output/taxi examples/taxi/pipeline.yaml --rule payment_type="Credit Card"
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ingest.splits import SPLITS
from pipeline.config import Project, load
from schemas.features import DType, FeatureSet

ROUNDS, PATIENCE, RATE, DRAWN, MIN_COUNT, BINS = 2000, 50, 0.05, 0.8, 50, 15
MIXING_SEED = 1
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1

_LINE = "{:<28}{:<18}{:<18}{:<20}{:>8}{:>13}"

Scores = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """A split: raw columns, and the index of each row's class."""

    columns: pd.DataFrame
    classes: Classes

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            pd.concat([self.columns, other.columns], ignore_index=True),
            np.concatenate([self.classes, other.classes]),
        )


@dataclass(frozen=True)
class Task:
    """What every learner is given.

    Attributes:
      splits: the raw rows by split.
      folders: of the same rows as examples, by split.
      refit: train once more on train and validation together, for as long as was best on validation.
      threads: that training may use.
    """

    splits: Mapping[str, Rows]
    folders: Mapping[str, Path]
    refit: bool
    threads: int

    @property
    def training(self) -> Rows:
        """The rows of the last fit."""
        train = self.splits["train"]
        return train + self.splits["validation"] if self.refit else train


@dataclass(frozen=True)
class Forecast:
    """Probability of the second class for each row of test, and what training cost."""

    scores: Scores
    wall_seconds: float
    processor_seconds: float


Learner = Callable[[Task, int], Forecast]
"""From the task and a seed to the forecast."""


class Stopwatch:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.monotonic(), time.process_time()

    def stop(self, scores: Scores | None = None) -> Forecast:
        """The times up to now, with scores that were made in them or are to follow."""
        return Forecast(
            np.empty(0) if scores is None else scores,
            time.monotonic() - self._wall,
            time.process_time() - self._processor,
        )


def logistic_regression(task: Task, _: int) -> Forecast:
    """Linear in scaled numbers and indicators of categories."""
    prepared = make_column_transformer(
        (
            make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
            make_column_selector(dtype_include="number"),
        ),
        (
            OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=MIN_COUNT),
            make_column_selector(dtype_include="category"),
        ),
    )
    return _fitted(make_pipeline(prepared, LogisticRegression(max_iter=1000)), task)


def lightgbm_trees(task: Task, seed: int) -> Forecast:
    """LightGBM with as many trees as are best on validation."""

    def model(rounds: int) -> lightgbm.LGBMClassifier:
        return lightgbm.LGBMClassifier(
            learning_rate=RATE,
            n_estimators=rounds,
            subsample=DRAWN,
            subsample_freq=1,
            colsample_bytree=DRAWN,
            random_state=seed,
            n_jobs=task.threads,
            verbose=-1,
        )

    train, validation = task.splits["train"], task.splits["validation"]
    search = model(ROUNDS)
    search.fit(
        train.columns,
        train.classes,
        eval_set=[(validation.columns, validation.classes)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return _fitted(model(search.best_iteration_), task)


def xgboost_trees(task: Task, seed: int) -> Forecast:
    """XGBoost with as many trees as are best on validation."""

    def model(rounds: int, patience: int | None) -> xgboost.XGBClassifier:
        return xgboost.XGBClassifier(
            learning_rate=RATE,
            n_estimators=rounds,
            early_stopping_rounds=patience,
            subsample=DRAWN,
            colsample_bytree=DRAWN,
            enable_categorical=True,
            random_state=seed,
            n_jobs=task.threads,
        )

    train, validation = task.splits["train"], task.splits["validation"]
    search = model(ROUNDS, PATIENCE)
    search.fit(
        train.columns, train.classes, eval_set=[(validation.columns, validation.classes)], verbose=False
    )
    return _fitted(model(search.best_iteration + 1, None), task)


def network(project: Project, record: Mapping[str, Any]) -> Learner:
    """Our network as the configuration has it, on the columns that the run's graph makes."""
    features, config = project.feature_set(), project.config
    graph = str(_outputs(record, "TransformGraph"))

    def learner(task: Task, seed: int) -> Forecast:
        from models import trainer
        from models.inputs import load_split

        files = {name: [str(folder / "*.gz")] for name, folder in task.folders.items()}

        def load(train_files: Sequence[str]) -> trainer.Data:
            arguments = SimpleNamespace(
                custom_config={"features": features.to_json()},
                transform_graph_path=graph,
                train_files=train_files,
                eval_files=files["validation"],
            )
            return trainer.load_data(arguments, config.train)

        settings = trainer.Settings(config.model, replace(config.train, seed=seed))
        data = load(files["train"])
        watch = Stopwatch()
        fitted = trainer.fit(data, settings)
        if task.refit:
            both = load([*files["train"], *files["validation"]])
            length = replace(settings.train, epochs=fitted.chosen + 1, patience_epochs=0)
            fitted = trainer.fit(both, replace(settings, train=length))
        cost = watch.stop()
        test = load_split("test", files["test"], data.train.reader, config.train.memory_rows)
        inputs = test.batches(8192).map(lambda columns, *_: columns)
        logits = fitted.network.predict(inputs, verbose=0)[:, 0].astype(np.float64)
        return replace(cost, scores=1 / (1 + np.exp(-logits)))

    return learner


OTHERS: Mapping[str, Learner] = {
    "logistic regression": logistic_regression,
    "LightGBM": lightgbm_trees,
    "XGBoost": xgboost_trees,
}


def one_rule(column: str, value: str) -> Learner:
    """Two groups by one column; each has the share of positives that it has in train."""

    def learner(task: Task, _: int) -> Forecast:
        watch = Stopwatch()
        training, test = task.training, task.splits["test"]
        fits = training.columns[column] == value
        shares = training.classes[fits].mean(), training.classes[~fits].mean()
        return watch.stop(np.where(test.columns[column] == value, *shares))

    return learner


def calibration_error(truth: Classes, scores: Scores) -> float:
    """Mean distance between score and share of positives, over `BINS` bins of equally many rows."""
    bins = np.array_split(np.argsort(scores, kind="stable"), BINS)
    return float(sum(abs(scores[rows].sum() - truth[rows].sum()) for rows in bins) / len(truth))


def read_splits(folders: Mapping[str, Path], features: FeatureSet) -> dict[str, Rows]:
    """The rows of three folders of examples; a category unknown to train is a missing value."""
    splits = {name: _read_split(folders[name], features) for name in SPLITS}
    for feature in features:
        if feature.dtype is DType.BYTES:
            known = pd.CategoricalDtype(sorted(splits["train"].columns[feature.name].dropna().unique()))
            for rows in splits.values():
                rows.columns[feature.name] = rows.columns[feature.name].astype(known)
    return splits


def mixed(folders: Mapping[str, Path], target: Path) -> dict[str, Path]:
    """The examples of all splits in random order, a fifth of them for test, a tenth of the rest for validation."""
    import tensorflow as tf

    records = [record for name in SPLITS for file in _files(folders[name]) for record in _records(file)]
    order = np.random.default_rng(MIXING_SEED).permutation(len(records))
    tests = int(TEST_SHARE * len(order))
    validations = tests + int(VALIDATION_SHARE * (len(order) - tests))
    parts = {
        "test": order[:tests],
        "validation": order[tests:validations],
        "train": order[validations:],
    }
    for name, rows in parts.items():
        (target / name).mkdir()
        with tf.io.TFRecordWriter(str(target / name / "rows.gz"), "GZIP") as writer:
            for row in rows:
                writer.write(records[row])
    return {name: target / name for name in SPLITS}


def _read_split(folder: Path, features: FeatureSet) -> Rows:
    from tensorflow.core.example.example_pb2 import Example

    names = [feature.name for feature in features]
    texts = {feature.name for feature in features if feature.dtype is DType.BYTES}
    rows, labels = [], []
    for record in (record for file in _files(folder) for record in _records(file)):
        values = Example.FromString(record).features.feature
        rows.append([_value(values[name]) if name in values else None for name in names])
        labels.append(str(_value(values[features.label.name])))
    columns = pd.DataFrame(rows, columns=names)
    for name in names:
        if name not in texts:
            columns[name] = columns[name].astype(float)
    return Rows(columns, np.array([features.label.classes.index(label) for label in labels]))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gz"))


def _records(file: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: 8 bytes of length and 4 of checksum, the record, 4 of checksum."""
    with gzip.open(file) as packed:
        while header := packed.read(12):
            yield packed.read(int.from_bytes(header[:8], "little"))
            packed.read(4)


def _value(feature: Any) -> Any:
    values = getattr(feature, feature.WhichOneof("kind") or "int64_list").value
    if not values:
        return None
    return values[0].decode() if isinstance(values[0], bytes) else values[0]


def _fitted(model: Any, task: Task) -> Forecast:
    training = task.training
    watch = Stopwatch()
    model.fit(training.columns, training.classes)
    cost = watch.stop()
    return replace(cost, scores=np.asarray(model.predict_proba(task.splits["test"].columns)[:, 1]))


def _outputs(record: Mapping[str, Any], type_name: str) -> Path:
    return next(
        Path(output["uri"])
        for node in record["nodes"]
        for output in node["outputs"]
        if output["type_name"] == type_name
    )


def last_run(output: Path) -> dict[str, Any]:
    """The record of the latest run that succeeded."""
    records = (
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(output.glob("runs/*/run.json"))
    )
    succeeded = [record for record in records if record["state"] == "succeeded"]
    if not succeeded:
        raise click.ClickException(f"{output}: no run has succeeded here; run the example first")
    return dict(succeeded[-1])


def standing(forecasts: Sequence[Forecast], truth: Classes) -> list[str]:
    """The cells of a learner's row: mean and standard deviation over the seeds."""
    figures = {
        "AUC": [roc_auc_score(truth, one.scores) for one in forecasts],
        "log loss": [log_loss(truth, one.scores) for one in forecasts],
        "calibration error": [calibration_error(truth, one.scores) for one in forecasts],
    }
    spread = 1 if len(forecasts) > 1 else 0
    return [
        *(f"{np.mean(values):.4f} ± {np.std(values, ddof=spread):.4f}" for values in figures.values()),
        f"{np.mean([one.wall_seconds for one in forecasts]):.1f}",
        f"{np.mean([one.processor_seconds for one in forecasts]):.1f}",
    ]


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path, exists=True))
@click.argument("config", type=click.Path(path_type=Path, exists=True))
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Trainings per learner.")
@click.option("--random-split", is_flag=True, help="Mix all rows: a fifth tests, whatever its time.")
@click.option("--refit", is_flag=True, help="Train anew with the validation rows before test, every learner.")
@click.option(
    "--threads", type=click.IntRange(1), default=os.cpu_count(), help="Of training, for every learner."
)
@click.option("--rule", metavar="COLUMN=VALUE", help="Compare with the groups that one value makes, too.")
def main(
    output: Path, config: Path, seeds: int, random_split: bool, refit: bool, threads: int, rule: str | None
) -> None:
    """Fits the learners and prints a line for each as soon as it is done."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    project, record = load(config, ()), last_run(output)
    learners = {"Headworks": network(project, record), **OTHERS}
    if rule:
        column, _, value = rule.partition("=")
        learners[f"{column} = {value}"] = one_rule(column, value)
    examples = _outputs(record, "Examples")
    folders = {name: examples / f"Split-{name}" for name in SPLITS}
    with tempfile.TemporaryDirectory() as scratch:
        if random_split:
            folders = mixed(folders, Path(scratch))
        task = Task(read_splits(folders, project.feature_set()), folders, refit, threads)
        how = "random split" if random_split else "the run's split"
        rows = f"{len(task.training.classes):,} training and {len(task.splits['test'].classes):,} test rows"
        click.echo(f"{record['pipeline_name']}, {how}: {rows}, {seeds} seeds, {threads} threads")
        click.echo(_LINE.format("", "AUC", "log loss", "calibration error", "wall s", "processor s"))
        for name, learner in learners.items():
            forecasts = [learner(task, seed) for seed in range(1, seeds + 1)]
            click.echo(_LINE.format(name, *standing(forecasts, task.splits["test"].classes)))


if __name__ == "__main__":
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    main()
