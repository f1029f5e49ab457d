"""The network against other learners on the very rows and columns of a finished run: AUC and log loss on test.

The rows are the examples that the run made; the others get the raw columns that the network gets. Trees take
categories and missing values as they are and stop early on the validation split; for logistic regression, categories
become indicators, missing numbers the median, and numbers are scaled.

    python -m benchmarks.quality output/flights examples/flights/pipeline.yaml
    python -m benchmarks.quality output/taxi examples/taxi/pipeline.yaml --rule payment_type="Credit Card"
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ingest.splits import SPLITS
from pipeline.config import load
from schemas.features import DType, FeatureSet

ROUNDS, PATIENCE, RATE, MIN_COUNT, SEED = 2000, 50, 0.05, 50, 1
SKLEARN_ROUNDS = 400


@dataclass(frozen=True)
class Rows:
    """A split: raw columns, and the index of each row's class."""

    columns: pd.DataFrame
    classes: npt.NDArray[np.int64]


Scores = npt.NDArray[np.float64]
Learner = Callable[[Mapping[str, Rows]], Scores]
"""From the three splits to the probability of the second class, of each row of test."""


def logistic_regression(splits: Mapping[str, Rows]) -> Scores:
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
    model = make_pipeline(prepared, LogisticRegression(max_iter=1000))
    return _fitted(model, splits)


def sklearn_trees(splits: Mapping[str, Rows]) -> Scores:
    """HistGradientBoosting with as many trees as are best on validation; its own stopping takes rows of train."""
    model = HistGradientBoostingClassifier(
        learning_rate=RATE,
        max_iter=SKLEARN_ROUNDS,
        early_stopping=False,
        categorical_features="from_dtype",
        random_state=SEED,
    )
    train, validation, test = (splits[name] for name in SPLITS)
    model.fit(train.columns, train.classes)
    losses = [
        log_loss(validation.classes, scores) for scores in model.staged_predict_proba(validation.columns)
    ]
    best = itertools.islice(model.staged_predict_proba(test.columns), int(np.argmin(losses)), None)
    return np.asarray(next(best)[:, 1])


def lightgbm_trees(splits: Mapping[str, Rows]) -> Scores:
    """LightGBM, stopped early on validation."""
    model = lightgbm.LGBMClassifier(learning_rate=RATE, n_estimators=ROUNDS, random_state=SEED, verbose=-1)
    validation = splits["validation"]
    return _fitted(
        model,
        splits,
        eval_set=[(validation.columns, validation.classes)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def xgboost_trees(splits: Mapping[str, Rows]) -> Scores:
    """XGBoost, stopped early on validation."""
    model = xgboost.XGBClassifier(
        learning_rate=RATE,
        n_estimators=ROUNDS,
        early_stopping_rounds=PATIENCE,
        enable_categorical=True,
        random_state=SEED,
    )
    validation = splits["validation"]
    return _fitted(model, splits, eval_set=[(validation.columns, validation.classes)], verbose=False)


LEARNERS: Mapping[str, Learner] = {
    "logistic regression": logistic_regression,
    "sklearn HistGradientBoosting": sklearn_trees,
    "LightGBM": lightgbm_trees,
    "XGBoost": xgboost_trees,
}


def one_rule(splits: Mapping[str, Rows], column: str, value: str) -> Scores:
    """Two groups by one column; each has the share of positives that it has in train."""
    train, test = splits["train"], splits["test"]
    fits = train.columns[column] == value
    shares = train.classes[fits].mean(), train.classes[~fits].mean()
    return np.where(test.columns[column] == value, *shares)


def read_splits(record: Mapping[str, Any], features: FeatureSet) -> dict[str, Rows]:
    """The three splits of a run's examples; a category unknown to train is a missing value."""
    folder = next(
        Path(output["uri"])
        for node in record["nodes"]
        for output in node["outputs"]
        if output["type_name"] == "Examples"
    )
    splits = {name: _read_split(folder / f"Split-{name}", features) for name in SPLITS}
    for feature in features:
        if feature.dtype is DType.BYTES:
            known = pd.CategoricalDtype(sorted(splits["train"].columns[feature.name].dropna().unique()))
            for rows in splits.values():
                rows.columns[feature.name] = rows.columns[feature.name].astype(known)
    return splits


def _read_split(folder: Path, features: FeatureSet) -> Rows:
    from tensorflow.core.example.example_pb2 import Example

    names = [feature.name for feature in features]
    texts = {feature.name for feature in features if feature.dtype is DType.BYTES}
    rows, labels = [], []
    for record in (record for file in sorted(folder.glob("*.gz")) for record in _records(file)):
        values = Example.FromString(record).features.feature
        rows.append([_value(values[name]) if name in values else None for name in names])
        labels.append(str(_value(values[features.label.name])))
    columns = pd.DataFrame(rows, columns=names)
    for name in names:
        if name not in texts:
            columns[name] = columns[name].astype(float)
    return Rows(columns, np.array([features.label.classes.index(label) for label in labels]))


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


def _fitted(model: Any, splits: Mapping[str, Rows], **arguments: Any) -> Scores:
    train, test = splits["train"], splits["test"]
    model.fit(train.columns, train.classes, **arguments)
    return np.asarray(model.predict_proba(test.columns)[:, 1])


def network(record: Mapping[str, Any]) -> tuple[float, float]:
    """AUC and log loss on test that the run measured."""
    from pipeline.evaluation import ALL_ROWS, read_metrics

    folder = next(
        output["uri"]
        for node in record["nodes"]
        for output in node["outputs"]
        if output["type_name"] == "ModelEvaluation"
    )
    metrics = next(row.metrics for row in read_metrics(folder) if row.name == ALL_ROWS)
    return metrics["auc"], metrics["log_loss"]


def last_run(output: Path) -> dict[str, Any]:
    """The record of the latest run that succeeded."""
    records = (
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(output.glob("runs/*/run.json"))
    )
    succeeded = [record for record in records if record["state"] == "succeeded"]
    if not succeeded:
        raise click.ClickException(f"{output}: no run has succeeded here; run the example first")
    return dict(succeeded[-1])


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path, exists=True))
@click.argument("config", type=click.Path(path_type=Path, exists=True))
@click.option("--rule", metavar="COLUMN=VALUE", help="Compare with the groups that one value makes, too.")
def main(output: Path, config: Path, rule: str | None) -> None:
    """Fits the learners and prints the table."""
    features = load(config, ()).feature_set()
    record = last_run(output)
    splits = read_splits(record, features)
    truth = splits["test"].classes
    found = {"Headworks": network(record)}
    for name, learner in track(LEARNERS.items(), "fitting", transient=True):
        scores = learner(splits)
        found[name] = roc_auc_score(truth, scores), log_loss(truth, scores)
    if rule:
        column, _, value = rule.partition("=")
        scores = one_rule(splits, column, value)
        found[f"{column} = {value}"] = roc_auc_score(truth, scores), log_loss(truth, scores)
    grid = Table("learner", "AUC", "log loss", title=f"{record['pipeline_name']}, {len(truth):,} test rows")
    for name, (auc, loss) in sorted(found.items(), key=lambda entry: -entry[1][0]):
        grid.add_row(name, f"{auc:.4f}", f"{loss:.4f}")
    Console().print(grid)


if __name__ == "__main__":
    main()
