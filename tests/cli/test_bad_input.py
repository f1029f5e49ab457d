"""What `headworks run` says to input that cannot be used: one error that names it, and nothing written."""

import gzip
import re
from pathlib import Path

import pytest

from pipeline.runners.root_folder import RootFolder, exclusive
from tests.shop import HEADER, ROWS, Shop, can_mount, changed, text


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop")


def refusal(shop: Shop, *arguments: str) -> str:
    """What `run` says, after making sure that it refuses, as `check` does, and writes nothing."""
    before = shop.files
    run, check = shop.call("run", *arguments), shop.call("check", *arguments)
    assert (run.exit_code, check.exit_code) == (1, 1)
    assert run.stdout == ""
    assert run.stderr == check.stderr
    assert re.fullmatch(r"error: .*\n", run.stderr), "one line"
    assert shop.files == before
    return run.stderr


def column_dropped(name: str) -> str:
    place = HEADER.split(",").index(name)
    lines = (line.split(",") for line in text().splitlines())
    return "".join(",".join([*line[:place], *line[place + 1 :]]) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        pytest.param("", r"orders\.csv: the file is empty; a table needs a header and rows", id="empty file"),
        pytest.param(text(rows=()), r"orders\.csv: .* a header but no rows; copy", id="header alone"),
        pytest.param(
            column_dropped("size"),
            r"no column 'size', which the schema has; put it back into .*orders\.csv",
            id="missing column",
        ),
        pytest.param(column_dropped("sold"), r"no column 'sold', which the schema has; put", id="no label"),
        pytest.param(
            text(f"{HEADER},note", tuple(f"{row},x" for row in ROWS)),
            r"a column 'note', which the schema lacks; add it to the schema or leave it out",
            id="extra column",
        ),
        pytest.param(
            text(HEADER.replace("colour", "color")),
            r"no column 'colour', which the schema has; did you mean 'color'\?",
            id="renamed column",
        ),
        pytest.param(
            changed(lambda row: row.replace("1.5", "large"), slice(106, 107)),
            r"'size' is VARCHAR.*float in the schema; .*orders\.csv:108: column 'size': 'large' is not a DOUBLE; "
            "correct",
            id="re-typed column, some rows",
        ),
        pytest.param(
            changed(lambda row: row.replace("red", "1").replace("blue", "2")),
            r"'colour' is BIGINT, which is int, but bytes in the schema; .*CAST",
            id="re-typed column, all rows",
        ),
        pytest.param(
            changed(lambda row: row.replace("red", "").replace("blue", "")),
            r"'colour' has no value in any row.*; leave it out",
            id="all-null text",
        ),
        pytest.param(
            changed(lambda row: re.sub(r"\d\.5", "NA", row)),
            r"'size' has no value in any row of .*orders\.csv; leave it out",
            id="all-null number",
        ),
        pytest.param(
            changed(lambda row: row.replace("blue", '"blue'), slice(99, 100)),
            r"orders\.csv:101: broken quoting in '99,2024-01-07,\"blue,1\.5,1': close the quote",
            id="broken quoting",
        ),
        pytest.param(
            changed(lambda row: row.replace("blue", "blé"), slice(99, 100)).encode("latin1"),
            r"orders\.csv:101: the text is not UTF-8.*iconv -f latin1",
            id="latin-1",
        ),
        pytest.param(
            text().encode("utf-16"), r"orders\.csv:1: the text is not UTF-8.*iconv -f utf-16", id="utf-16"
        ),
        pytest.param(
            changed(lambda row: f"{row[:-1]}0"),
            r"label 'sold' is '0' in every row of train; at least two classes are needed",
            id="one class",
        ),
        pytest.param(
            changed(lambda row: f"{row[:-1]}1", slice(240, None)),
            r"label 'sold' is '1' in every row of test; at least two classes are needed",
            id="one class in one split",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(shop: Shop, orders: str | bytes, said: str) -> None:
    shop.orders.write_bytes(orders if isinstance(orders, bytes) else orders.encode())
    assert re.search(said, refusal(shop))


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip"])
def test_a_corrupt_gzip_is_refused(shop: Shop, damage: str) -> None:
    packed = bytearray(gzip.compress(text().encode()))
    packed[-6] ^= 1  # The checksum's.
    content = {"cut": packed[:-40], "flipped": packed, "not gzip": bytearray(text().encode())}[damage]
    (shop.folder / "orders.csv.gz").write_bytes(content)
    shop.edit("pipeline.yaml", "orders.csv", "orders.csv.gz")
    assert re.search(r"orders\.csv\.gz: damaged or cut off \(.*\); copy the file again", refusal(shop))


def test_sql_with_an_unknown_column_is_refused_with_the_columns_there_are(shop: Shop) -> None:
    shop.edit("orders.sql", "*", "id, bought, colour, size, sold,\n  price")
    assert re.search(r"orders\.sql:2: there is no column 'price'; known are .*colour", refusal(shop))
    shop.edit("orders.sql", "price", "colr")
    assert re.search(r"orders\.sql:2: there is no column 'colr'; did you mean 'colour'", refusal(shop))


def test_a_configuration_that_cannot_be_used_is_refused(shop: Shop) -> None:
    shop.edit("pipeline.yaml", "  epochs: 1", "  epoch: 1")
    assert re.search(
        r"train\.epoch: unknown key; did you mean epochs\? \(.*pipeline\.yaml:14\)", refusal(shop)
    )
    shop.edit("pipeline.yaml", "  epoch: 1", "  epochs: 0")
    assert re.search(r"train\.epochs: 0: .*greater than or equal to 1 \(.*pipeline\.yaml:14\)", refusal(shop))


def test_a_value_out_of_range_on_the_command_line_is_refused(shop: Shop) -> None:
    assert re.search(
        r"dropout: 1\.0: .*less than 1 \(--set model\.dropout=1\.0\)",
        refusal(shop, "--set", "model.dropout=1.0"),
    )


def test_an_output_folder_in_use_is_refused_and_left_alone(shop: Shop) -> None:
    with exclusive(RootFolder(shop.output)):
        before = shop.files
        result = shop.call("run")
    assert result.exit_code == 1
    assert re.fullmatch(
        rf"error: {shop.output}: a pipeline is already running .*process \d+.*another output folder\n",
        result.stderr,
    )
    assert shop.files == before


def test_an_output_folder_that_cannot_be_made_is_refused(shop: Shop) -> None:
    shop.output.write_text("a file is where the folder should be")
    before = shop.files
    result = shop.call("run")
    assert result.exit_code == 1
    assert re.fullmatch(rf"error: {shop.output}: cannot write here \(.*\); choose another.*\n", result.stderr)
    assert shop.files == before


@pytest.mark.skipif(not can_mount(), reason="this machine does not let us mount a read-only folder")
def test_a_read_only_output_folder_is_refused(shop: Shop) -> None:
    shop.output.mkdir()
    result = shop.run_with_mount(f"mount -t tmpfs -o ro tmpfs {shop.output}")
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(rf"error: {shop.output}: cannot write here \(Read-only.*\n", result.stderr)
