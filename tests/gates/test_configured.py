import pytest

from gates.configured import check_behaviour, check_fairness
from gates.settings import Direction, FairnessSettings, Invariance, MinimumFunctionality, NamedRow
from schemas.features import DType, Label, LabelKind

SOLD = Label("sold", DType.BYTES, LabelKind.BINARY, ("no", "yes"))
LATE = Label("late", DType.BYTES, LabelKind.BINARY, ("no", "yes"))
TYPES = {"size": DType.FLOAT, "floor": DType.INT, "color": DType.BYTES, "sold": DType.BYTES}


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (
            [Invariance("invariance", "a", "colour")],
            "a: the schema has no column 'colour'; did you mean 'color'",
        ),
        ([Invariance("invariance", "a", "sold")], "a: 'sold' is the label"),
        ([Invariance("invariance", "a", "size")] * 2, "a: there are two tests of this name"),
        ([Direction("direction", "a", "color", "increase", add=1.0)], "column 'color' is text: use set"),
        ([Direction("direction", "a", "floor", "increase", add=0.5)], "0.5 does not fit column 'floor'"),
        ([Direction("direction", "a", "size", "increase", set="big")], "'big' does not fit column 'size'"),
        (
            [MinimumFunctionality("rows", "a", (NamedRow({"size": 1.0}, expect="maybe"),))],
            "expect is 'maybe'; the classes of 'sold' are no, yes",
        ),
        (
            [MinimumFunctionality("rows", "a", (NamedRow({"price": 1.0}, expect="yes"),))],
            "no column 'price'",
        ),
    ],
)
def test_a_test_that_cannot_be_run_is_refused_beforehand(tests, message):
    with pytest.raises(ValueError, match=message):
        check_behaviour(tests, SOLD, TYPES)


def test_tests_that_fit_the_schema_pass_the_check():
    check_behaviour(
        [
            Direction("direction", "a", "floor", "increase", add=1.0),
            Direction("direction", "b", "color", "increase", set="red"),
            MinimumFunctionality("rows", "c", (NamedRow({"size": 1, "color": None}, expect="no"),)),
        ],
        SOLD,
        TYPES,
    )


def test_gaps_need_two_classes_and_a_column_that_is_there():
    entry = FairnessSettings(column="group", max_gap=0.1)
    check_fairness([entry], LATE, ["group"])
    with pytest.raises(ValueError, match="no column 'group'"):
        check_fairness([entry], LATE, ["late"])
    with pytest.raises(ValueError, match="'price' is regression"):
        check_fairness([entry], Label("price", DType.FLOAT, LabelKind.REGRESSION), ["group"])
    with pytest.raises(ValueError, match="'late' is the label"):
        check_fairness([FairnessSettings(column="late", max_gap=0.1)], LATE, ["late"])
    with pytest.raises(ValueError, match="there twice"):
        check_fairness([entry, entry], LATE, ["group"])
