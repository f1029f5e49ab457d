import pytest

from tflite.variants import UNTREATED, NumberFormat, Treatment, Variant


@pytest.mark.parametrize(
    ("name", "number_format", "treatment"),
    [
        ("int8", NumberFormat.INT8, None),
        ("distilled+dynamic_int8", NumberFormat.DYNAMIC_INT8, Treatment.DISTILLED),
        ("trainable+float32", NumberFormat.FLOAT32, Treatment.TRAINABLE),
    ],
)
def test_a_name_is_read_and_written_back(name, number_format, treatment):
    variant = Variant.from_name(name)
    assert variant == Variant(number_format, treatment)
    assert variant.name == name


def test_the_untreated_model_is_plain_float32():
    assert Variant.from_name("float32") == UNTREATED


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("int4", "'int4' is no number format; there are float32"),
        ("prund+int8", "'prund' is no treatment; there are pruned"),
        ("distilled", "'distilled' is no number format"),
        ("trainable+int8", "trainable\\+float32"),
    ],
)
def test_a_wrong_name_is_told_with_what_there_is(name, says):
    with pytest.raises(ValueError, match=says):
        Variant.from_name(name)
