import random
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from pipeline.config import Project, load
from schemas.features import SERVING, Kind, LabelKind, load_schema

COLOURS = ("red", "green", "blue")


def table(tmp_path: Path, header: str, *columns: list[object]) -> Path:
    file = tmp_path / "table.csv"
    lines = (
        ",".join("" if value is None else str(value) for value in row) for row in zip(*columns, strict=True)
    )
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


def init(file: Path, label: str, *more: str) -> Result:
    return CliRunner().invoke(
        main, ["init", "--data", str(file), "--label", label, "--folder", str(file.parent / "project"), *more]
    )


def project_of(file: Path) -> Project:
    return load(file.parent / "project" / "pipeline.yaml")


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    random.seed(1)
    days = range(400)
    return table(
        tmp_path,
        "order_id,ordered,colour,size,country,late",
        [f"A{i:05d}" for i in days],
        [f"2024-{1 + i // 28 % 12:02d}-{1 + i % 28:02d}" for i in days],
        [random.choice(COLOURS) for _ in days],
        [None if i % 9 == 0 else round(random.random(), 3) for i in days],
        ["NZ" for _ in days],
        [random.choice((0, 1)) for _ in days],
    )


def test_time_identifier_and_constant_are_guessed_and_left_out(orders: Path) -> None:
    result = init(orders, "late")
    assert result.exit_code == 0, result.output + result.stderr
    config = project_of(orders).config
    assert config.data.split.by == "time"
    assert set(config.features.exclude) == {"order_id", "ordered", "country"}
    for words in ("excluded order_id: identifier", "excluded country: constant", "by time, on ordered"):
        assert words in result.output


def test_the_schema_says_what_may_be_missing_and_hides_the_label_when_serving(orders: Path) -> None:
    init(orders, "late")
    schema = load_schema(str(project_of(orders).schema_file))
    by_name = {feature.name: feature for feature in schema.feature}
    assert SERVING in by_name["late"].not_in_environment
    assert list(schema.default_environment) == ["TRAINING", SERVING]
    assert by_name["size"].presence.min_fraction < 1.0
    assert by_name["colour"].presence.min_fraction == 1.0
    assert list(by_name["colour"].string_domain.value) == sorted(COLOURS)


def test_what_was_guessed_passes_check(orders: Path) -> None:
    init(orders, "late")
    result = CliRunner().invoke(main, ["check", str(orders.parent / "project" / "pipeline.yaml")])
    assert result.exit_code == 0, result.stderr


def test_files_that_are_there_stay_unless_forced(orders: Path) -> None:
    init(orders, "late")
    schema = project_of(orders).schema_file
    schema.write_text("curated")
    result = init(orders, "late")
    assert result.exit_code == 1
    assert str(schema) in result.stderr.replace("\n", "")
    assert schema.read_text() == "curated"
    assert init(orders, "late", "--force").exit_code == 0
    assert schema.read_text() != "curated"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([i % 2 for i in range(300)], LabelKind.BINARY),
        ([float(i % 2) for i in range(300)], LabelKind.BINARY),
        (["yes" if i % 3 else "no" for i in range(300)], LabelKind.BINARY),
        (["true" if i % 3 else "false" for i in range(300)], LabelKind.BINARY),
        ([10 * (i % 4) for i in range(300)], LabelKind.MULTICLASS),
        ([COLOURS[i % 3] for i in range(300)], LabelKind.MULTICLASS),
        ([i * 1.37 for i in range(300)], LabelKind.REGRESSION),
        ([i * 3 for i in range(300)], LabelKind.REGRESSION),
    ],
)
def test_the_kind_of_label_follows_from_its_values(
    tmp_path: Path, values: list[object], kind: LabelKind
) -> None:
    file = table(tmp_path, "x,z,y", [i * 1.1 for i in range(300)], [i % 7 for i in range(300)], values)
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert project_of(file).feature_set().label.kind is kind


def test_rows_without_a_label_and_columns_without_a_value_are_left_out(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "x,empty,y",
        [i * 1.1 for i in range(300)],
        [None] * 300,
        [None if i % 10 == 0 else i % 2 for i in range(300)],
    )
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert "dropped  empty" in result.output
    assert "30 rows without a label" in result.output


def test_long_texts_are_read_as_text(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "review,y",
        [f"the soup number {i} was very good" for i in range(300)],
        [i % 2 for i in range(300)],
    )
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert [feature.kind for feature in project_of(file).feature_set()] == [Kind.TEXT]


@pytest.mark.parametrize(
    ("label", "told"),
    [("nothing", "has no such column"), ("country", "'NZ' in every row"), ("order_id", "too many")],
)
def test_a_label_that_cannot_be_learnt_leaves_nothing_behind(orders: Path, label: str, told: str) -> None:
    result = init(orders, label)
    assert result.exit_code == 1
    assert told in result.stderr
    assert not (orders.parent / "project").exists()
