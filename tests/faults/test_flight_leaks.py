"""What the flight itself tells must not be among the features: the flights example with one column too many."""

from dataclasses import replace
from pathlib import Path

import pytest

from gates.baselines import Rows
from gates.leakage import Target, judge_columns
from gates.settings import LeakageSettings
from gates.verdict import Outcome
from ingest.query import bind
from ingest.tables import connect
from pipeline import data_plan
from pipeline.config import load

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flights" / "pipeline.yaml"
SAMPLE = 20_000


@pytest.fixture(scope="module")
def flights():
    """Training rows of the example with two columns that its query leaves out on purpose."""
    project = load(EXAMPLE)
    plan = data_plan.plan(project)
    query = plan.sql.replace("    t.carrier,\n", "    t.carrier,\n    t.dep_delay,\n    t.arr_time,\n", 1)
    sample = (
        f"SELECT * FROM ({bind(query, plan.params, plan.sql_source)}) WHERE time_hour < TIMESTAMP '2013-09-01' "
        f"USING SAMPLE reservoir({SAMPLE} ROWS) REPEATABLE (1)"
    )
    with connect(plan.tables, plan.null_values) as database:
        frame = database.connection.sql(sample).df()
    features = project.feature_set()
    names = [feature.name for feature in features]
    columns = frame[[*names, "dep_delay", "arr_time"]].copy()
    for name in columns.select_dtypes(exclude="number"):
        columns[name] = columns[name].astype("category")
    label = features.label
    return Target(label.kind, label.classes), Rows(columns, frame[label.name].to_numpy(float)), names


def refused(flights, *added):
    target, rows, names = flights
    chosen = replace(rows, columns=rows.columns[[*names, *added]])
    found = judge_columns(target, chosen, LeakageSettings()).verdicts
    return {v.name: v.reason for v in found if v.outcome is Outcome.REFUSED}


def test_the_flights_as_shipped_hold_no_column_that_knows_the_label(flights):
    assert refused(flights) == {}


@pytest.mark.parametrize("column", ["dep_delay", "arr_time"])
def test_a_column_that_only_the_flight_itself_could_tell_is_refused(flights, column):
    """The arrival time says little alone; together with the timetable it is the delay."""
    found = refused(flights, column)
    assert set(found) == {f"leak of the label in {column}"}
    assert f"column {column!r} gives the label away" in found[f"leak of the label in {column}"]


def test_two_leaks_do_not_hide_each_other(flights):
    assert set(refused(flights, "dep_delay", "arr_time")) == {
        "leak of the label in dep_delay",
        "leak of the label in arr_time",
    }
