import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from pipeline.config import Project, load
from schemas.features import SERVING, Kind, LabelKind, load_schema

COLOURS = ("red", "green", "blue")


def table(tmp_path: Path, header: str, *columns: Sequence[object]) -> Path:
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


def test_rows_about_the_same_customer_stay_in_one_split_and_the_customer_is_no_feature(
    tmp_path: Path,
) -> None:
    file = table(
        tmp_path,
        "customer_id,x,y",
        [1000 + i % 150 for i in range(600)],
        [i * 1.1 for i in range(600)],
        [i % 2 for i in range(600)],
    )
    result = init(file, "y")
    assert "by hash of customer_id" in result.output, result.output + result.stderr
    assert [feature.name for feature in project_of(file).feature_set()] == ["x"]


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("when", [f"{1 + i % 28:02d}/{1 + i // 28 % 12:02d}/2024" for i in range(300)]),
        ("when", [f"2024-03-01 {i // 60:02d}:{i % 60:02d}:00" for i in range(300)]),
        ("created_at", [1_700_000_000 + 600 * i for i in range(300)]),
        ("ts", [1_700_000_000_000 + 600_000 * i for i in range(300)]),
    ],
)
def test_dates_as_people_and_machines_write_them_split_the_rows(
    tmp_path: Path, name: str, moments: list[object]
) -> None:
    file = table(tmp_path, f"{name},x,y", moments, [i * 1.1 for i in range(300)], [i % 2 for i in range(300)])
    result = init(file, "y")
    assert f"by time, on {name}" in result.output, result.output + result.stderr


def test_a_time_that_leaves_one_class_in_a_split_gives_way_to_a_hash_and_says_why(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "when,x,y",
        [f"2024-03-01 {i // 60:02d}:{i % 60:02d}:00" for i in range(300)],
        [i * 1.1 for i in range(300)],
        [i % 2 if i < 200 else 0 for i in range(300)],
    )
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert "by hash of x, as a split by time, on when, will not do" in result.output
    assert "'0' in every row of validation" in result.output


def test_amounts_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    lines = [f'"${i * 997.5:,.2f}",{i % 90} %,{i % 5:05d},{i % 2}' for i in range(300)]
    file.write_text("\n".join(["price,share,zip,y", *lines]) + "\n")
    result = init(file, "y")
    assert "note     price: read as a number" in result.output, result.output + result.stderr
    kinds = {feature.name: feature.kind for feature in project_of(file).feature_set()}
    assert kinds["price"] is kinds["share"] is Kind.NUMERIC
    assert kinds["zip"] is not Kind.NUMERIC


def test_a_folder_of_parquet_files_below_the_project_is_named_relative_to_it(tmp_path: Path) -> None:
    import duckdb

    rows = tmp_path / "project" / "rows"
    rows.mkdir(parents=True)
    for part in range(3):
        duckdb.sql(
            f'COPY (SELECT i * 1.5 AS x, \'odd name\' AS "sel ect", i % 4 AS "order", (i % 3 = 0)::INT AS y '
            f"FROM range(100 * {part}, 100 * {part} + 100) t(i)) TO '{rows}/{part}.parquet' (FORMAT parquet)"
        )
    result = CliRunner().invoke(
        main, ["init", "--data", str(rows), "--label", "y", "--folder", str(tmp_path / "project")]
    )
    assert result.exit_code == 0, result.output + result.stderr
    assert "300 rows" in result.output
    (tmp_path / "project").rename(tmp_path / "moved")
    moved = CliRunner().invoke(main, ["check", str(tmp_path / "moved" / "pipeline.yaml")])
    assert moved.exit_code == 0, moved.output


def test_dates_that_duckdb_does_not_read_by_itself_are_converted(tmp_path: Path) -> None:
    moments = [f"{1 + i % 28:02d}/{1 + i // 28 % 12:02d}/2024 10:{i % 60:02d}" for i in range(300)]
    file = table(
        tmp_path, "opened at,x,y", moments, [i * 1.1 for i in range(300)], [i % 2 for i in range(300)]
    )
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert "by time, on opened at: text that reads as a date or time (%d/%m/%Y %H:%M)" in result.output
    assert "strptime" in (tmp_path / "project" / "query.sql").read_text()


def test_a_word_that_is_taken_for_a_missing_value_is_told(tmp_path: Path) -> None:
    regions = ["NA", "EU", "APAC"] * 100
    costs = ["n/a" if i % 3 else f"{i}.5" for i in range(300)]
    file = table(tmp_path, "region,cost,y", regions, costs, [i % 2 for i in range(300)])
    result = init(file, "y")
    assert "note     region: 'NA' in 100 rows is read as missing" in result.output, result.stderr
    assert "note     cost: 'n/a' in 200 rows is read as missing" in result.output
    kinds = {feature.name: feature.kind for feature in project_of(file).feature_set()}
    assert kinds["cost"] is Kind.NUMERIC


def test_an_amount_to_predict_becomes_a_number(tmp_path: Path) -> None:
    file = table(tmp_path, "x,discount", [i * 1.1 for i in range(300)], [f"{i % 90} %" for i in range(300)])
    result = init(file, "discount")
    assert result.exit_code == 0, result.output + result.stderr
    assert project_of(file).feature_set().label.kind is LabelKind.REGRESSION


def test_the_positive_class_of_a_text_is_told_and_can_be_changed(tmp_path: Path) -> None:
    file = table(tmp_path, "x,y", [i * 1.1 for i in range(300)], [("oui", "non")[i % 2] for i in range(300)])
    assert "'oui' is the positive class" in init(file, "y").output
    config = tmp_path / "project" / "pipeline.yaml"
    config.write_text(config.read_text().replace('["non", "oui"]', '["oui", "non"]'))
    assert load(config).feature_set().label.classes == ("oui", "non")


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (["left" if i % 2 else None for i in range(300)], "whether it has a value"),
        ([("a", "b")[i // 2 % 2] + ("-", "+")[i % 2] for i in range(300)], "each of its values"),
        ([i % 2 + i / 1000 for i in range(300)], "its ranges"),
    ],
)
def test_a_column_that_tells_the_label_is_left_out_and_said_so(
    tmp_path: Path, column: list[object], told: str
) -> None:
    random.seed(2)
    honest = [random.random() for _ in column]
    file = table(tmp_path, "x,code,y", honest, column, [i % 2 for i in range(300)])
    result = init(file, "y")
    assert f"excluded code: the label in disguise: {told}" in result.output, result.stderr
    assert [feature.name for feature in project_of(file).feature_set()] == ["x"]


def test_a_column_that_tells_the_label_of_a_few_rows_only_may_do_so_by_chance(tmp_path: Path) -> None:
    random.seed(2)
    file = table(
        tmp_path,
        "x,code,y",
        [random.random() for _ in range(300)],
        ["odd" if i % 100 == 7 else "even" for i in range(300)],
        [int(i % 100 == 7) for i in range(300)],
    )
    result = init(file, "y")
    assert "in disguise" not in result.output + result.stderr


def test_the_rarer_of_two_classes_is_the_positive_one_unless_a_word_says_otherwise(tmp_path: Path) -> None:
    for words, positive in ((("alarm", "ok"), "alarm"), (("Yes", "nay"), "Yes"), (("no", "y"), "y")):
        folder = tmp_path / positive
        folder.mkdir()
        values = [words[0] if i % 4 == 0 else words[1] for i in range(300)]
        file = table(folder, "x,y", [i * 1.1 for i in range(300)], values)
        assert f"{positive!r} is the positive class" in init(file, "y").output
        assert project_of(file).feature_set().label.classes[1] == positive


def test_numbers_with_decimal_commas_are_numbers(tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "table.csv"
    lines = [f"{i // 10},{i % 10}5;{1 + i}.000,5 €;{i % 2}" for i in range(300)]
    file.write_text("\n".join(["size;price;y", *lines]) + "\n")
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert {feature.kind for feature in project_of(file).feature_set()} == {Kind.NUMERIC}
    query = (tmp_path / "project" / "query.sql").read_text()
    rows = duckdb.sql(
        query.replace('"data"', f"read_csv('{file}', delim = ';', all_varchar = true)") + " LIMIT 1 OFFSET 12"
    )
    assert rows is not None
    assert rows.fetchall()[0][:2] == (1.25, 13000.5)


def test_codes_are_categories_and_row_numbers_are_nothing(tmp_path: Path) -> None:
    random.seed(2)
    file = table(
        tmp_path,
        "Unnamed: 0,zip,sensor_id,Customer ID,rooms,y",
        range(300),
        [random.randint(10_000, 99_999) for _ in range(300)],
        [random.randint(1, 5) for _ in range(300)],
        [7000 + i % 150 for i in range(300)],
        [random.randint(1, 9) for _ in range(300)],
        [random.randint(0, 1) for _ in range(300)],
    )
    result = init(file, "y")
    assert "by hash of Customer ID" in result.output, result.output + result.stderr
    assert "excluded Unnamed: 0: numbers the rows" in result.output
    kinds = {feature.name: feature.kind for feature in project_of(file).feature_set()}
    assert kinds == {"zip": Kind.CATEGORICAL, "sensor_id": Kind.CATEGORICAL, "rooms": Kind.NUMERIC}


def test_a_birthday_does_not_split_the_rows(tmp_path: Path) -> None:
    born = [f"19{50 + i % 50}-03-{1 + i % 28:02d}" for i in range(300)]
    file = table(
        tmp_path, "date_of_birth,x,y", born, [i * 1.1 for i in range(300)], [i % 2 for i in range(300)]
    )
    assert "by hash of x, as date_of_birth is when somebody was born" in init(file, "y").output


def test_numbers_too_large_for_a_feature_are_dropped(tmp_path: Path) -> None:
    sizes = [f"{i + 1}.5e200" for i in range(300)]
    file = table(tmp_path, "big,x,y", sizes, [i * 1.1 for i in range(300)], [i % 2 for i in range(300)])
    result = init(file, "y")
    assert "dropped  big: a number too large" in result.output, result.output + result.stderr


def test_a_value_of_several_lines_does_not_break_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("\n".join(["x,note,y", *(f'{i * 1.1},"two\nlines",{i % 2}' for i in range(300))]) + "\n")
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert "note" in project_of(file).config.features.exclude


def test_numbers_without_a_value_do_not_count_as_labels(tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "table.parquet"
    duckdb.sql(
        "COPY (SELECT i * 1.5 AS x, CASE WHEN i % 10 = 0 THEN 'nan'::DOUBLE ELSE (i * 7 % 400) / 3 END AS y "
        f"FROM range(400) t(i)) TO '{file}' (FORMAT parquet)"
    )
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert "40 rows without a label" in result.output
    assert "isnan" in (tmp_path / "project" / "query.sql").read_text()


def test_an_identifier_is_no_label(tmp_path: Path) -> None:
    file = table(tmp_path, "order_id,x", range(1000, 1300), [i * 1.1 for i in range(300)])
    result = init(file, "order_id")
    assert result.exit_code == 1
    assert "--label order_id: an identifier" in result.stderr


def test_rows_that_are_much_alike_are_split_by_their_number(tmp_path: Path) -> None:
    random.seed(2)
    file = table(
        tmp_path,
        "class,sex,row_number,y",
        [random.choice("123") for _ in range(500)],
        [random.choice("mf") for _ in range(500)],
        [random.randint(1, 4) for _ in range(500)],
        [random.randint(0, 1) for _ in range(500)],
    )
    result = init(file, "y")
    assert "by hash of the_row_number" in result.output, result.output + result.stderr
    assert "excluded the_row_number: numbers the rows, which are too much alike" in result.output
    project = project_of(file)
    assert [feature.name for feature in project.feature_set()] == ["class", "sex", "row_number"]
    assert next(iter(project.feature_set())).graph_name == "class_", (
        "TensorFlow has no input named by a keyword"
    )
    rows = re.search(r"train (\d+), validation (\d+), test (\d+)", result.output)
    assert rows is not None
    assert all(int(rows[i]) > fewest for i, fewest in ((1, 300), (2, 25), (3, 70)))


def test_a_column_of_dates_and_words_is_left_out_and_told(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "at,x,y",
        ["unknown" if i % 30 == 0 else f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(300)],
        [i * 1.1 for i in range(300)],
        [i % 2 for i in range(300)],
    )
    result = init(file, "y")
    assert "as at is no date or time in 10 rows" in result.output, result.output + result.stderr
    assert "at" in project_of(file).config.features.exclude


def test_a_class_without_a_value_is_none(tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "table.parquet"
    duckdb.sql(
        "COPY (SELECT i * 1.5 AS x, CASE WHEN i % 10 = 0 THEN 'nan'::DOUBLE ELSE i % 2 END AS y "
        f"FROM range(400) t(i)) TO '{file}' (FORMAT parquet)"
    )
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert project_of(file).feature_set().label.classes == ("0", "1")


def test_the_index_that_pandas_writes_without_a_name_is_left_out(tmp_path: Path) -> None:
    file = table(
        tmp_path, ",x,y", list(range(300)), [i % 7 + i * 0.1 for i in range(300)], [i % 2 for i in range(300)]
    )
    result = init(file, "y")
    assert result.exit_code == 0, result.output + result.stderr
    assert "excluded column1: numbers the rows" in result.output
    assert [feature.name for feature in project_of(file).feature_set()] == ["x"]
