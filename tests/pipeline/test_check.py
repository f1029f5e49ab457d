import textwrap
from pathlib import Path

import pytest

from ingest.errors import DataError
from pipeline.check import LONGEST_HASHED, check
from pipeline.config import ConfigError, load

HEADER = "id,when,colour,size,sold"
SCHEMA = """
default_environment: "TRAINING"
default_environment: "SERVING"
feature { name: "id" type: INT }
feature { name: "when" type: INT }
feature { name: "colour" type: BYTES }
feature { name: "size" type: FLOAT }
feature { name: "sold" type: INT bool_domain {} not_in_environment: "SERVING" }
"""


def rows(count: int = 60) -> list[str]:
    """Complete rows, 20 days of three, with both classes on each day."""
    return [
        f"{i},2024-01-{1 + i // 3:02d},{'red' if i % 2 else 'blue'},{i}.5,{int(i % 3 == 0)}"
        for i in range(count)
    ]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A project in which all is well."""
    (tmp_path / "data.csv").write_text("\n".join([HEADER, *rows()]) + "\n")
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    (tmp_path / "query.sql").write_text(
        "SELECT id, when, colour, size, sold FROM data\n".replace("when", '"when"')
    )
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        textwrap.dedent("""
        name: shop
        data:
          source: {kind: query, tables: {data: data.csv}, sql: query.sql}
          split: {by: time, column: when, validation_from: 2024-01-13, test_from: 2024-01-17}
        label: {column: sold}
        features: {exclude: [id, when]}
        """)
    )
    return file


def with_rows(config: Path, lines: list[str], header: str = HEADER) -> None:
    (config.parent / "data.csv").write_text("\n".join([header, *lines]) + "\n")


def test_data_that_fits_is_counted_by_split_and_class(config: Path) -> None:
    report = check(load(config))
    assert report.rows == {"train": 36, "validation": 12, "test": 12}
    assert report.classes == {"0": 40, "1": 20}
    assert [feature.name for feature in report.feature_set] == ["colour", "size"]


def test_an_empty_file_is_named(config: Path) -> None:
    (config.parent / "data.csv").write_text("")
    with pytest.raises(DataError, match=r"data\.csv"):
        check(load(config))


def test_a_file_with_a_header_alone_is_named(config: Path) -> None:
    with_rows(config, [])
    with pytest.raises(DataError, match=r"data\.csv.*no rows"):
        check(load(config))


def test_a_renamed_column_is_named_with_its_likely_new_name(config: Path) -> None:
    with_rows(config, rows(), HEADER.replace("colour", "color"))
    with pytest.raises(DataError, match=r"query\.sql:1.*'colour'.*did you mean 'color'"):
        check(load(config))


def test_a_column_missing_from_the_query_is_named(config: Path) -> None:
    (config.parent / "query.sql").write_text('SELECT id, "when", colour, sold FROM data')
    with pytest.raises(DataError, match=r"no column 'size'"):
        check(load(config))


def test_a_column_that_the_schema_lacks_is_named(config: Path) -> None:
    (config.parent / "query.sql").write_text("SELECT *, size * 2 AS double_size FROM data")
    with pytest.raises(DataError, match=r"'double_size', which the schema lacks"):
        check(load(config))


def test_a_retyped_column_is_named_with_the_value_that_does_not_fit(config: Path) -> None:
    with_rows(config, [*rows()[:-1], rows()[-1].replace("59.5", "large")])
    with pytest.raises(DataError, match=r"'size'.*'large'"):
        check(load(config))


def test_a_column_without_any_value_is_named(config: Path) -> None:
    with_rows(config, [line.replace("red", "").replace("blue", "") for line in rows()])
    with pytest.raises(DataError, match=r"'colour' has no value in any row"):
        check(load(config))


def test_a_label_of_one_class_is_refused_naming_the_split(config: Path) -> None:
    with_rows(config, [line[:-1] + "0" for line in rows()])
    with pytest.raises(DataError, match=r"'sold' is '0' in every row of train"):
        check(load(config))


def test_a_class_that_the_schema_does_not_know_is_named(config: Path) -> None:
    with_rows(config, [*rows()[:-1], rows()[-1][:-1] + "7"])
    with pytest.raises(DataError, match=r"'sold' is '7' in 1 rows, but its classes are 0, 1"):
        check(load(config))


def test_a_missing_label_is_refused(config: Path) -> None:
    with_rows(config, [*rows()[:-1], rows()[-1][:-1]])
    with pytest.raises(DataError, match=r"'sold' is missing in 1 rows"):
        check(load(config))


def test_sql_with_an_unknown_column_names_file_line_and_column(config: Path) -> None:
    (config.parent / "query.sql").write_text("SELECT id,\n  colr\nFROM data")
    with pytest.raises(DataError, match=r"query\.sql:2: there is no column 'colr'"):
        check(load(config))


def test_an_empty_split_says_where_the_data_lies(config: Path) -> None:
    with pytest.raises(DataError, match=r"test is empty.*2030-01-01.*2024-01-20"):
        check(load(config, ["data.split.test_from=2030-01-01"]))


def test_a_missing_sql_file_is_named(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.source\.sql.*nowhere\.sql"):
        check(load(config, ["data.source.sql=nowhere.sql"]))


def test_a_column_may_name_the_split_in_words_of_its_own(config: Path) -> None:
    (config.parent / "query.sql").write_text(
        "SELECT *, "
        "CASE WHEN id < 40 THEN 'fit' WHEN id < 50 THEN 'validation' ELSE 'test' END AS part FROM data;"
    )
    split = "data.split={by: column, column: part, train: fit}"
    assert check(load(config, [split])).rows == {"train": 40, "validation": 10, "test": 10}


def test_a_delivery_of_whole_numbers_fits_a_column_that_the_schema_calls_float(config: Path) -> None:
    with_rows(config, [row.replace(".5,", ",") for row in rows()])
    assert check(load(config)).rows == {"train": 36, "validation": 12, "test": 12}


def test_a_serving_folder_that_cannot_be_made_is_refused_before_anything_is_trained(config: Path) -> None:
    (config.parent / "models").write_text("a file\n")
    with pytest.raises(
        ConfigError, match=r"push.folder: .*models is no folder that can be written to \(--set"
    ):
        check(load(config, ["push.folder=models/live"]))


def test_rows_that_tfx_will_split_by_hash_are_counted_as_a_whole(config: Path) -> None:
    text = config.read_text()
    start, end = text.index("  source:"), text.index("label:")
    config.write_text(
        f"{text[:start]}  source: {{kind: csv, folder: rows}}\n  split: {{by: hash, columns: [id]}}\n{text[end:]}"
    )
    (config.parent / "rows").mkdir()
    with_rows(config, [row.replace("2024-01-", "1") for row in rows()])
    (config.parent / "data.csv").rename(config.parent / "rows" / "a.csv")
    assert check(load(config)).rows == {"all": 60}


def test_of_csv_files_dates_and_truth_values_are_text_as_tfx_reads_them(config: Path) -> None:
    text, folder = config.read_text(), config.parent / "rows"
    start, end = text.index("  source:"), text.index("label:")
    config.write_text(
        f"{text[:start]}  source: {{kind: csv, folder: rows}}\n  split: {{by: hash, columns: [id]}}\n{text[end:]}"
    )
    folder.mkdir()
    with_rows(
        config, [f"{row},{'true' if i % 2 else 'false'}" for i, row in enumerate(rows())], f"{HEADER},is_big"
    )
    (config.parent / "data.csv").rename(folder / "a.csv")
    schema = SCHEMA.replace('name: "when" type: INT', 'name: "when" type: BYTES')
    (config.parent / "schema.pbtxt").write_text(schema + 'feature { name: "is_big" type: BYTES }\n')
    assert check(load(config)).rows == {"all": 60}


def test_a_slice_by_a_column_that_is_not_there_is_refused_with_the_nearest_name(config: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"evaluate.slices: the schema has no column 'color'; did you mean 'colour'"
    ):
        check(load(config, ["evaluate.slices=[[color]]"]))


def test_a_warm_start_from_a_folder_without_a_model_is_refused_before_the_run(config: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"train\.warm_start\.source: .*/nope/saved_model\.pb: no such file"
    ):
        check(load(config, ["train.warm_start.source=nope"]))


def test_text_that_a_device_would_not_hash_as_the_server_does_is_noted(config: Path) -> None:
    hashed = "features.overrides.colour={kind: hashed}"
    # 66 bytes in 33 characters, and 64 bytes, which are allowed.
    long = [row.replace("blue", "é" * 33).replace("red", "r" * 64) for row in rows()]
    with_rows(config, long)
    assert check(load(config, [hashed])).notes == (), "no device model is asked for"
    (note,) = check(load(config, [hashed, "tflite.enabled=true"])).notes
    assert "column 'colour' is longer than 64 bytes in 30 of 60 rows" in note
    assert "features.exclude: [colour]" in note
    assert check(load(config, ["tflite.enabled=true"])).notes == (), "a vocabulary has no such limit"


def test_the_longest_text_that_is_hashed_is_that_of_device_models() -> None:
    from tflite.text import HASH_WIDTHS

    assert max(HASH_WIDTHS) == LONGEST_HASHED
