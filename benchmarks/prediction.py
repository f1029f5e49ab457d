"""Batch prediction: rows per second of TFX's BulkInferrer, of Beam's RunInference as it comes, and of ours.

All score the test split of a finished run with the version that it pushed, from TFRecord files to files, each in a
process of its own, in turn, several times over, without Python's imports:

- rows/s, whole job: rows by the seconds of the job, of which loading the model is a fixed part for all of them.
- rows/s, after the start: rows by the seconds that remain without those of the same job on the first 64 rows.
- processor seconds and the largest resident set, of the whole job.

- BulkInferrer: TFX's component.
- RunInference: a handler of a few lines over `serving_default`, rows as elements, Beam's default batching, JSON lines.
- Headworks: `headworks predict` with its checks, key and dead letters, at several sizes of batch, to Parquet; then
  with one row in a hundred spoiled, and from CSV.

    python -m benchmarks.prediction output/flights examples/flights/pipeline.yaml
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

RUNNER = "--runner=FnApiRunner"
SPOILED_EVERY = 100
FEW = 64


def bulk_inferrer(given: Mapping[str, Any], scratch: Path) -> None:
    """TFX's component, its executor called as its launcher would."""
    from tfx.components.bulk_inferrer.executor import Executor
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    examples = standard_artifacts.Examples()
    examples.uri = given["examples"]
    examples.split_names = '["train", "validation", "test"]'
    model = standard_artifacts.Model()
    model.uri = str(scratch / "model")
    (scratch / "model").mkdir()
    (scratch / "model" / "Format-Serving").symlink_to(Path(given["version"]).resolve())
    result = standard_artifacts.InferenceResult()
    result.uri = str(scratch / "result")
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=[RUNNER], tmp_dir=str(scratch / "tmp"), unique_id="1"
    )
    Executor(context).Do(
        {"examples": [examples], "model": [model]},
        {"inference_result": [result]},
        {
            "data_spec": '{"example_splits": ["test"]}',
            "model_spec": '{"model_signature_name": ["serving_default"]}',
        },
    )


def run_inference(given: Mapping[str, Any], scratch: Path) -> None:
    """What one would write with Beam's page on RunInference open."""
    import apache_beam as beam
    import tensorflow as tf
    from apache_beam.ml.inference.base import ModelHandler, RunInference
    from apache_beam.options.pipeline_options import PipelineOptions

    class Handler(ModelHandler):
        def load_model(self) -> Any:
            return tf.saved_model.load(given["version"])

        def run_inference(
            self, batch: Sequence[bytes], model: Any, inference_args: Any = None
        ) -> Iterator[Any]:
            scores = model.signatures["serving_default"](examples=tf.constant(batch))["scores"]
            yield from zip(batch, scores.numpy(), strict=True)

    with beam.Pipeline(options=PipelineOptions([RUNNER])) as pipeline:
        _ = (
            pipeline
            | beam.io.ReadFromTFRecord(f"{given['split']}/*.gz")
            | RunInference(Handler())
            | beam.Map(lambda row: json.dumps({"scores": row[1].tolist()}))
            | beam.io.WriteToText(str(scratch / "out"))
        )


def headworks(given: Mapping[str, Any], scratch: Path, batch_rows: int, source: str = "tfrecord") -> None:
    """Ours."""
    from beam_jobs import batch
    from beam_jobs.pushed import PushedModel

    job = batch.BatchJob(
        model=PushedModel.read(given["version"]),
        inputs=(given[source],),
        input_format="tfrecord" if source == "tfrecord" else None,
        output=str(scratch / "out"),
        batch_rows=batch_rows,
        max_bad_fraction=0.02,
    )
    batch.run(job, [RUNNER])


WAYS: Mapping[str, Callable[[Mapping[str, Any], Path], None]] = {
    "BulkInferrer": bulk_inferrer,
    "RunInference, default batching": run_inference,
    "Headworks, batches of 256": lambda given, scratch: headworks(given, scratch, 256),
    "Headworks, batches of 1,024": lambda given, scratch: headworks(given, scratch, 1024),
    "Headworks, batches of 4,096": lambda given, scratch: headworks(given, scratch, 4096),
    "Headworks, 1 % spoiled": lambda given, scratch: headworks(given, scratch, 1024, "spoiled"),
    "Headworks, from CSV": lambda given, scratch: headworks(given, scratch, 1024, "csv"),
}


@click.command(help=__doc__)
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--only", help="Ways whose names hold this.")
@click.option("--way", hidden=True)
@click.option("--given", hidden=True)
def main(
    output: Path, config: Path, repeats: int, only: str | None, way: str | None, given: str | None
) -> None:
    """Measures."""
    if way and given:
        print(json.dumps(_timed(WAYS[way], json.loads(given))))
        return
    with tempfile.TemporaryDirectory() as folder:
        facts = _prepare(output, config, Path(folder))
        title = f"{facts['rows']:,} rows, medians of {repeats}"
        table = Table(
            "", "rows/s\nwhole job", "rows/s\nafter the start", "processor s", "peak MB", title=title
        )
        names = [name for name in WAYS if only is None or only in name]
        runs: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
        starts: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(repeats):
            for name in names:
                starts[name].append(_in_a_process(output, config, name, facts["few"])["seconds"])
                runs[name].append(_in_a_process(output, config, name, facts))
        for name, results in runs.items():
            seconds, start = median(result["seconds"] for result in results), median(starts[name])
            table.add_row(
                name,
                f"{facts['rows'] / seconds:,.0f}",
                f"{facts['rows'] / (seconds - start):,.0f}",
                f"{median(result['cpu_seconds'] for result in results):.1f}",
                f"{max(result['peak_mb'] for result in results):,.0f}",
            )
        Console(width=120).print(table)


def _prepare(output: Path, config: Path, folder: Path) -> dict[str, Any]:
    """Where the test split lies, and copies of it as CSV and with spoiled rows."""
    import tensorflow as tf

    from benchmarks.inputs import last_source
    from pipeline.config import load

    features = load(config, ()).feature_set()
    examples = last_source(output, features, 1).examples
    split = f"{examples}/Split-test"
    versions = sorted((int(path.name), path) for path in (output / "serving").glob("[0-9]*"))
    records = [
        row
        for file in Path(split).glob("*.gz")
        for row in tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator()
    ]
    few = _facts(folder / "few", records[:FEW], str(versions[-1][1]))
    return {**_facts(folder / "all", records, str(versions[-1][1])), "few": few}


def _facts(folder: Path, records: Sequence[bytes], version: str) -> dict[str, Any]:
    import tensorflow as tf

    for name in ("train", "validation", "test"):
        (folder / f"Split-{name}").mkdir(parents=True)
    split = folder / "Split-test"
    with tf.io.TFRecordWriter(str(split / "data_tfrecord-00000-of-00001.gz"), "GZIP") as file:
        for record in records:
            file.write(record)
    rows = _write_copies([str(file) for file in split.iterdir()], folder)
    return {
        "rows": rows,
        "examples": str(folder),
        "split": str(split),
        "version": version,
        "tfrecord": f"{split}/*.gz",
        "csv": str(folder / "rows.csv"),
        "spoiled": str(folder / "spoiled.csv"),
    }


def _write_copies(files: Sequence[str], folder: Path) -> int:
    import pandas as pd

    from beam_jobs.formats.text import ReadSettings
    from beam_jobs.readers import find_files, read_file
    from beam_jobs.rows import Batch

    parts = []
    for file in find_files(files, "tfrecord"):
        for item in read_file(file, ReadSettings(rows=8192)):
            assert isinstance(item, Batch)
            columns = {
                name: [_first(value) for value in list(column)] for name, column in item.columns.items()
            }
            parts.append(pd.DataFrame(columns))
    rows = pd.concat(parts, ignore_index=True)
    rows.to_csv(folder / "rows.csv", index=False)
    numeric = rows.select_dtypes("number").columns[0]
    spoiled = rows.astype({numeric: object})
    spoiled.loc[::SPOILED_EVERY, numeric] = "spoiled"
    spoiled.to_csv(folder / "spoiled.csv", index=False)
    return len(rows)


def _first(found: Any) -> Any:
    """The value of a list scalar, which holds one or none."""
    values = found.as_py()
    value = values[0] if values else None
    return value.decode() if isinstance(value, bytes) else value


def _in_a_process(output: Path, config: Path, name: str, facts: Mapping[str, Any]) -> Mapping[str, float]:
    command = [sys.executable, "-m", "benchmarks.prediction", str(output), str(config), "--way", name]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [*command, "--given", json.dumps(facts)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"{name}: {done.stderr[-2000:]}")
    found: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _timed(way: Callable[[Mapping[str, Any], Path], None], given: Mapping[str, Any]) -> dict[str, float]:
    import apache_beam  # noqa: F401  (imports are no part of a job)
    import tensorflow  # noqa: F401
    import tfx_bsl  # noqa: F401

    with tempfile.TemporaryDirectory() as scratch:
        started, cpu = time.perf_counter(), time.process_time()
        way(given, Path(scratch))
        return {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mb": _peak_mb(),
        }


def _peak_mb() -> float:
    """Of this program: getrusage would count the process that forked it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1]
    return int(status.split()[0]) / 1024


if __name__ == "__main__":
    main()
