"""Faults in the data, each a small change of the taxi example's rows, and the one check that names each."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gates.settings import DataGateSettings, LeakageSettings
from gates.verdict import Outcome

QUICK = DataGateSettings(leakage=LeakageSettings(most_rows=2000))
MOST_FALSE_ALARMS = 1
"""Of twenty: no false alarm above one in twenty."""


def each(rows, change):
    return {split: change(frame.copy()) for split, frame in rows.items()}


def only(rows, split, change):
    return {**rows, split: change(rows[split].copy())}


def refused(verdicts):
    return {name: verdict.reason for name, verdict in verdicts.items() if verdict.outcome is Outcome.REFUSED}


def with_column(name, make):
    return lambda frame: frame.assign(**{name: make(frame)})


def miles_to_kilometres(rows):
    return each(rows, with_column("trip_miles", lambda frame: frame.trip_miles.astype(float) * 1.609))


def seconds_to_minutes(rows):
    return each(rows, with_column("trip_seconds", lambda frame: frame.trip_seconds // 60))


def everybody_pays_by_card(rows):
    random = np.random.default_rng(1)
    return each(
        rows,
        with_column(
            "payment_type", lambda f: f.payment_type.where(random.random(len(f)) > 0.4, "Credit Card")
        ),
    )


def a_batch_loaded_twice(rows):
    return only(rows, "train", lambda frame: pd.concat([frame, frame[:800]], ignore_index=True))


def a_batch_loaded_twice_with_new_keys(rows):
    def twice(frame):
        return pd.concat(
            [frame, frame[:800].assign(trip_id=[f"again-{place}" for place in range(800)])], ignore_index=True
        )

    return only(rows, "train", twice)


def rows_of_test_in_train(rows):
    taken = rows["test"][:300]
    return only(rows, "train", lambda frame: pd.concat([frame, taken], ignore_index=True))


def the_future_in_train(rows):
    later = rows["test"][:300].assign(trip_id=[f"later-{place}" for place in range(300)])
    return only(rows, "train", lambda frame: pd.concat([frame[300:], later], ignore_index=True))


def two_thirds_of_the_rows_gone(rows):
    return each(rows, lambda frame: frame[::3].reset_index(drop=True))


def a_column_no_longer_filled(rows):
    random = np.random.default_rng(1)
    return only(
        rows, "test", with_column("company", lambda f: f.company.where(random.random(len(f)) > 0.6, None))
    )


def companies_renamed(rows):
    return only(rows, "test", with_column("company", lambda f: f.company.map(lambda c: c and f"{c} Ltd")))


def a_column_that_copies_the_label(rows):
    random = np.random.default_rng(1)
    return each(
        rows, with_column("fare_per_mile", lambda f: f.is_big_tipper + random.normal(0, 0.01, len(f)))
    )


def the_tip_among_the_features(rows):
    """What the label is made of, with rounding: known only after the fact."""
    random = np.random.default_rng(1)
    tip = with_column(
        "fare_per_minute",
        lambda f: f.is_big_tipper * (1 + random.random(len(f))) + random.random(len(f)) * 0.9,
    )
    return each(rows, tip)


def a_column_dropped(rows):
    return each(rows, lambda frame: frame.drop(columns="fare"))


def a_required_column_empty(rows):
    return each(rows, with_column("trip_start_hour", lambda frame: [None] * len(frame)))


def a_label_that_is_no_class(rows):
    return only(rows, "train", with_column("is_big_tipper", lambda f: f.is_big_tipper.where(f.index != 7, 2)))


def too_few_rows(rows):
    return only(rows, "validation", lambda frame: frame[:20])


FAULTS = [
    (miles_to_kilometres, "scale of trip_miles since the data accepted before", "1.61 times larger"),
    (seconds_to_minutes, "scale of trip_seconds since the data accepted before", "times smaller"),
    (everybody_pays_by_card, "drift of payment_type since the data accepted before", "L-infinity distance"),
    (a_batch_loaded_twice, "repeated keys in train", "800 rows of the train split repeat the key trip_id"),
    (a_batch_loaded_twice_with_new_keys, "repeated rows in train", "a batch was loaded twice"),
    (rows_of_test_in_train, "keys of test in train", "trip_id"),
    (the_future_in_train, "order of train and validation", "the model learns from the future"),
    (two_thirds_of_the_rows_gone, "change of rows", "-67% against"),
    (a_column_no_longer_filled, "missing values of company in test", "column 'company' has no value in"),
    (companies_renamed, "new values of company in test", "never occur in train"),
    (a_column_that_copies_the_label, "leak of the label in fare_per_mile", "gives the label away"),
    (the_tip_among_the_features, "leak of the label in fare_per_minute", "gives the label away"),
    (a_column_dropped, "SCHEMA_MISSING_COLUMN of fare in train", "Column dropped"),
    (a_required_column_empty, "FEATURE_TYPE_NOT_PRESENT of trip_start_hour in train", "'trip_start_hour'"),
    (a_label_that_is_no_class, "is_big_tipper in train", "'is_big_tipper'"),
    (too_few_rows, "rows in validation", "fewer than data_gate.min_rows"),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("fault", "name", "words"), FAULTS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_fault_is_refused_by_the_check_that_names_it(data_gate, rows, fault, name, words):
    found = refused(data_gate.judge(fault(rows), previous=rows, settings=QUICK))
    caught = [one for one in found if name in one]
    assert caught, found
    assert words in found[caught[0]]


def test_a_column_of_another_type_is_refused(data_gate, rows):
    numbers = each(rows, with_column("company", lambda frame: frame.trip_start_hour.astype("int64")))
    own = replace(data_gate, folder=data_gate.folder / "retyped", retyped=frozenset({"company"}))
    found = refused(own.judge(numbers, settings=QUICK))
    assert "'company' in the train split" in found["UNEXPECTED_DATA_TYPE of company in train"]


def test_statistics_of_other_rows_are_refused(data_gate, rows):
    fewer = only(rows, "train", lambda frame: frame[:-100])
    found = refused(data_gate.judge(fewer, counted=rows, settings=QUICK))
    assert "StatisticsGen counted 7,888" in found["rows counted in train"]


def test_the_way_of_paying_is_explained_and_not_refused(data_gate, rows):
    verdict = data_gate.judge(rows)["leak of the label in payment_type"]
    assert verdict.outcome is Outcome.OVERRIDDEN
    assert "Cash 0.0 %, Credit Card 67.3 %" in verdict.reason
    assert "cash tips are not on record" in verdict.reason


@pytest.mark.timeout(600)
def test_clean_redraws_raise_no_more_than_one_false_alarm_in_twenty(data_gate, rows):
    """The data accepted before is one half of the rows, and each redraw is of the other half."""
    halves = {split: frame.sample(frac=1.0, random_state=1) for split, frame in rows.items()}
    before = {split: frame[: len(frame) // 2] for split, frame in halves.items()}
    others = {split: frame[len(frame) // 2 :] for split, frame in halves.items()}

    def draw(seed):
        return each(others, lambda frame: frame.sample(frac=0.8, random_state=seed).reset_index(drop=True))

    alarms = {
        seed: found
        for seed in range(20)
        if (found := refused(data_gate.judge(draw(seed), previous=before, settings=QUICK)))
    }
    assert len(alarms) <= MOST_FALSE_ALARMS, alarms
