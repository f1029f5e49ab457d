from gates.evidence import Confusion, Curve, Estimate
from report import selection
from report.page import Histogram


def confusion(threshold: float) -> Confusion:
    return Confusion(threshold, 1, 2, 3, 4, 0.5)


def test_the_chosen_threshold_is_in_the_table_even_between_the_others():
    entries = tuple(confusion(number / 100) for number in range(101))
    shown = [entry.threshold for entry in selection.at_thresholds(entries, 0.374)]
    assert shown == [0.0, 0.1, 0.2, 0.3, 0.37, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_few_thresholds_are_all_shown():
    entries = (confusion(0.9), confusion(0.1))
    assert [entry.threshold for entry in selection.at_thresholds(entries, None)] == [0.1, 0.9]


def test_curves_are_read_at_the_same_places():
    table = selection.curve_table(
        (Curve("model", (0.0, 1.0), (0.0, 1.0)), Curve("champion", (0.0, 0.5, 1.0), (0.0, 0.0, 1.0)))
    )
    assert table.subjects == ("model", "champion")
    assert dict(table.rows)[0.5] == (0.5, 0.0)


def test_slices_go_by_column_and_then_by_size():
    found = [
        Estimate("model", "auc", 0.5, 0.4, 0.6, rows, name)
        for name, rows in (("b = 1", 10), ("a = 1", 5), ("a = 2", 50), ("a = 1, b = 1", 7))
    ]
    [metric] = selection.on_slices(found)
    assert [e.slice for e in metric.estimates] == ["a = 2", "a = 1", "a = 1, b = 1", "b = 1"]
    assert selection.on_all_rows(found) == ()


def test_open_bins_say_that_they_hold_the_rest():
    histogram = Histogram((0.0, 1.0, 2.0, 3.0), {"train": (0.1, 0.2, 0.7)}, is_open_above=True)
    assert [name for name, _ in selection.distribution_rows(histogram)] == [
        "0.0000 to 1.0000",
        "1.0000 to 2",
        "from 2",
    ]


def test_thresholds_that_crowd_at_one_end_do_not_fill_the_table():
    entries = tuple(confusion(threshold) for threshold in (*(n / 10_000 for n in range(90)), 0.3, 0.6, 0.9))
    assert [entry.threshold for entry in selection.at_thresholds(entries, None)][-3:] == [0.3, 0.6, 0.9]
    assert len(selection.at_thresholds(entries, None)) < 8


def test_metrics_keep_their_order_where_a_slice_lacks_the_first():
    found = [
        Estimate("model", "auc", 0.5, 0.4, 0.6, 100),
        Estimate("model", "log_loss", 0.5, 0.4, 0.6, 100),
        Estimate("model", "log_loss", 0.5, 0.4, 0.6, 60, "a = 1"),
        Estimate("model", "auc", 0.5, 0.4, 0.6, 40, "a = 2"),
    ]
    assert [metric.name for metric in selection.on_slices(found)] == ["auc", "log_loss"]
