"""A query in DuckDB's SQL as one in BigQuery's that gives the same rows.

sqlglot reads, rewrites and writes. It writes some constructs as they stand, or with another meaning, without a word; so
only those pass that are in the lists below, whose meaning is known to be the same or is made so here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import traverse_scope

from ingest.errors import DataError, first_line

PARAMETERS = ("first_span", "last_span", "snapshot_time")
"""Parameters of a query, bound when it runs; `$snapshot_time` is text."""

_OUTSIDE = "a query in BigQuery's own SQL (data.source.dialect: bigquery) may use it"
_SHOWN = 60

_STRUCTURE: tuple[type[exp.Expr], ...] = (
    *(exp.Select, exp.From, exp.Table, exp.TableAlias, exp.Subquery, exp.With, exp.CTE, exp.Where, exp.Group),
    *(exp.Having, exp.Qualify, exp.Order, exp.Ordered, exp.Limit, exp.Offset, exp.Distinct, exp.Union),
    *(exp.Except, exp.Intersect, exp.Join, exp.Window, exp.WindowSpec, exp.Alias, exp.Star, exp.Column),
    *(exp.Identifier, exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.Tuple, exp.DataType, exp.Var),
    *(exp.Placeholder, exp.Parameter, exp.Case, exp.If, exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT),
    *(exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In, exp.Is, exp.Like, exp.Exists, exp.NullSafeEQ),
    *(exp.NullSafeNEQ, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Neg, exp.DPipe),
    *(exp.Cast, exp.TryCast),
)
_FUNCTIONS: tuple[type[exp.Expr], ...] = (
    *(exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.RowNumber, exp.Rank, exp.DenseRank, exp.Lag),
    *(exp.Lead, exp.FirstValue, exp.LastValue, exp.Coalesce, exp.Nullif, exp.Abs, exp.Ceil, exp.Floor),
    *(exp.Round, exp.Sqrt, exp.Exp, exp.Ln, exp.Pow, exp.Sign, exp.Lower, exp.Upper, exp.Length),
    *(exp.Substring, exp.Replace, exp.StartsWith, exp.RegexpLike, exp.Concat, exp.ConcatWs, exp.Dayname),
    *(exp.Monthname, exp.TimeToUnix, exp.TimestampFromParts, exp.DateFromParts, exp.TimestampTrunc),
    *(exp.DateTrunc, exp.Extract, exp.Year, exp.Quarter, exp.Month, exp.Day, exp.Hour, exp.Minute),
)
_PASSED = frozenset((*_STRUCTURE, *_FUNCTIONS))

_TYPES = frozenset(
    {
        *(
            exp.DType.BIGINT,
            exp.DType.INT,
            exp.DType.DOUBLE,
            exp.DType.FLOAT,
            exp.DType.VARCHAR,
            exp.DType.TEXT,
        ),
        *(exp.DType.BOOLEAN, exp.DType.DATE, exp.DType.TIMESTAMP, exp.DType.TIMESTAMPTZ),
    }
)
_PARTS = {
    "YEAR": "YEAR",
    "QUARTER": "QUARTER",
    "MONTH": "MONTH",
    "WEEK": "ISOWEEK",
    "DAY": "DAY",
    "DOY": "DAYOFYEAR",
    "HOUR": "HOUR",
    "MINUTE": "MINUTE",
}
_TRUNCATED = frozenset(_PARTS) - {"DOY"}
_NOT_PASSED: Mapping[type[exp.Expr], tuple[str, ...]] = {
    exp.Select: ("kind", "match", "laterals", "pivots", "sample", "settings", "cluster", "sort", "into"),
    exp.Table: ("pivots", "sample", "joins", "laterals", "only", "partition"),
    exp.Subquery: ("pivots", "sample", "laterals"),
    exp.Join: ("method", "match_condition"),
    exp.Union: ("by_name",),
    exp.With: ("recursive",),
    exp.Distinct: ("on",),
    exp.WindowSpec: ("exclude",),
    exp.Star: ("rename",),
    exp.Group: ("cube", "rollup", "grouping_sets", "totals"),
    exp.Min: ("expressions",),
    exp.Max: ("expressions",),
    exp.RegexpLike: ("flag",),
}
"""Clauses that make a construct mean more than what is known."""


def translate(sql: str, source: str, tables: Mapping[str, str], *, at_snapshot: bool) -> str:
    """A query for BigQuery; `$first_span`, `$last_span` and `$snapshot_time` stand where they are bound later.

    Args:
      sql: one SELECT in DuckDB's SQL.
      source: what to call it in errors, such as its file.
      tables: PROJECT.DATASET.TABLE of each view that it reads.
      at_snapshot: whether every table is read as it was at `$snapshot_time`.

    Raises:
      DataError: naming line and construct, where it is not known to mean the same in BigQuery.
    """
    try:
        duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise DataError(f"{source}: {first_line(error)}") from error
    tree = _parsed(sql, source)
    _check(tree, source)
    _place_tables(tree, source, tables, at_snapshot)
    _order_nulls(tree, source)
    # The innermost first: what stands within a construct is rewritten before the construct around it.
    for node in reversed(list(tree.walk())):
        rewritten = _rewritten(node)
        if rewritten is not node:
            node.replace(rewritten)
    try:
        return tree.sql(
            "bigquery",
            pretty=True,
            identify=True,
            comments=False,
            unsupported_level=sqlglot.ErrorLevel.RAISE,
        )
    except SqlglotError as error:
        raise DataError(f"{source}: BigQuery has no such SQL: {error}; {_OUTSIDE}") from error


def output_columns(sql: str, source: str, dialect: str) -> tuple[str, ...] | None:
    """The names of a query's columns; None where they follow from its tables (`SELECT *`) or sqlglot cannot tell.

    Raises:
      DataError: if a text in DuckDB's SQL is not one SELECT.
    """
    try:
        tree = _parsed(sql, source, dialect)
    except DataError:
        if dialect == "duckdb":
            raise
        return None  # Of BigQuery's own SQL sqlglot need not know everything.
    assert isinstance(tree, exp.Query)
    return None if tree.is_star else tuple(tree.named_selects)


def _parsed(sql: str, source: str, dialect: str = "duckdb") -> exp.Expr:
    try:
        trees = sqlglot.parse(sql, read=dialect)
    except SqlglotError as error:
        found = getattr(error, "errors", None) or [{}]
        line = f":{found[0]['line']}" if found[0].get("line") else ""
        what = found[0].get("description") or str(error)
        near = f" near {found[0]['highlight']!r}" if found[0].get("highlight") else ""
        raise DataError(f"{source}{line}: sqlglot cannot read the query: {what}{near}") from error
    statements = [tree for tree in trees if tree is not None and not isinstance(tree, exp.Semicolon)]
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        kinds = ", ".join(tree.key.upper() for tree in statements) or "nothing"
        raise DataError(f"{source}: want one SELECT statement, found {kinds}")
    return statements[0]


def _refused(node: exp.Expr, source: str, why: str) -> DataError:
    text = node.sql("duckdb")
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return DataError(f"{source}{_line(node)}: {shown}: {why}; {_OUTSIDE}")


def _line(node: exp.Expr) -> str:
    """`:LINE` of the first name in or around a construct; sqlglot knows lines of names only."""
    place: exp.Expr | None = node
    while place is not None:
        lines = [found.meta["line"] for found in place.walk() if "line" in found.meta]
        if lines:
            return f":{min(lines)}"
        place = place.parent
    return ""


def _check(tree: exp.Expr, source: str) -> None:
    for node in tree.walk():
        if isinstance(node, exp.Anonymous):
            raise _refused(node, source, f"the function {node.name} is not translated to BigQuery")
        if type(node) not in _PASSED:
            name = node.sql_name() if isinstance(node, exp.Func) else node.key.upper()
            raise _refused(node, source, f"{name} is not translated to BigQuery")
        for clause in _NOT_PASSED.get(type(node), ()):
            if node.args.get(clause):
                raise _refused(
                    node, source, f"{node.key.upper()} with {clause.replace('_', ' ')} is not translated"
                )
        check = _CHECKS.get(type(node))
        if check and (fault := check(node)):
            raise _refused(node, source, fault)


def _join_fault(node: exp.Expr) -> str | None:
    kind = node.text("kind").upper()
    return f"a join of kind {kind} is not translated" if kind not in ("", "INNER", "OUTER", "CROSS") else None


def _type_fault(node: exp.Expr) -> str | None:
    if node.this in _TYPES and not node.expressions:
        return None
    return "a CAST to this type is not translated (BIGINT, DOUBLE, VARCHAR, BOOLEAN, DATE and TIMESTAMP are)"


def _substring_fault(node: exp.Expr) -> str | None:
    start = node.args.get("start")
    if isinstance(start, exp.Literal) and int(start.name) >= 1:
        return None
    return "where a text begins is counted alike only from a number of 1 or more"


def _part_fault(node: exp.Expr) -> str | None:
    unit = _unit(node)
    known = _PARTS if isinstance(node, exp.Extract) else _TRUNCATED
    return (
        None
        if unit in known
        else f"{unit.lower()} is not translated (known are {', '.join(sorted(known)).lower()})"
    )


def _placeholder_fault(node: exp.Expr) -> str | None:
    if node.name in PARAMETERS[:2]:
        return None
    return f"no value for this parameter; known are {', '.join(f'${name}' for name in PARAMETERS[:2])}"


_CHECKS: Mapping[type[exp.Expr], Callable[[exp.Expr], str | None]] = {
    exp.Join: _join_fault,
    exp.DataType: _type_fault,
    exp.Substring: _substring_fault,
    exp.Extract: _part_fault,
    exp.TimestampTrunc: _part_fault,
    exp.DateTrunc: _part_fault,
    exp.Placeholder: _placeholder_fault,
    exp.Parameter: _placeholder_fault,
}


def _unit(node: exp.Expr) -> str:
    unit = node.this if isinstance(node, exp.Extract) else node.args["unit"]
    return str(unit.name).upper()


def _place_tables(tree: exp.Expr, source: str, tables: Mapping[str, str], at_snapshot: bool) -> None:
    """Replaces the views by BigQuery's tables; names of a WITH stay."""
    views = {name.casefold(): table for name, table in tables.items()}
    # A table of a set operation is a source of each of its branches.
    found = {
        id(table): table
        for scope in traverse_scope(tree)
        for table in scope.sources.values()
        if isinstance(table, exp.Table)
    }
    for table in found.values():
        full = views.get(table.name.casefold())
        if full is None or table.db:
            known = ", ".join(tables) or "none"
            raise DataError(
                f"{source}{_line(table)}: table {table.name!r} is not among data.source.tables ({known}); say there "
                "which table of BigQuery it is"
            )
        if not table.args.get("alias"):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name)))
        project, dataset, name = full.split(".")
        table.set("this", exp.to_identifier(name, quoted=True))
        table.set("db", exp.to_identifier(dataset, quoted=True))
        table.set("catalog", exp.to_identifier(project, quoted=True))
        if at_snapshot:
            moment = exp.Var(this="TIMESTAMP '$snapshot_time'")
            table.set("version", exp.Version(this="TIMESTAMP", kind="AS OF", expression=moment))
    with_names = {query.alias.casefold() for query in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if not table.catalog and table.name.casefold() not in with_names:
            raise _refused(table, source, "a table in this place is not translated")


def _order_nulls(tree: exp.Expr, source: str) -> None:
    """Puts NULLs where DuckDB has them within windows, where BigQuery takes no NULLS LAST."""
    for window in list(tree.find_all(exp.Window)):
        order = window.args.get("order")
        if order is None:
            continue
        spec = window.args.get("spec") or exp.WindowSpec()
        ends = [spec.args.get("start"), spec.args.get("end")]
        is_near = any(isinstance(end, exp.Expr) for end in ends) and spec.text("kind").upper() == "RANGE"
        if is_near and "UNBOUNDED" in ends:
            raise _refused(window, source, "a RANGE with a distance on one side and UNBOUNDED on the other")
        keys: list[exp.Expr] = []
        for key in order.expressions:
            is_descending, is_first = bool(key.args.get("desc")), bool(key.args.get("nulls_first"))
            # BigQuery has NULLs first, descending last. Within a distance NULLs are neighbours of NULLs only.
            if is_first == is_descending and not is_near:
                missing = exp.Is(this=key.this.copy(), expression=exp.Null())
                keys.append(
                    exp.Ordered(this=missing, desc=is_descending or None, nulls_first=not is_descending)
                )
            key.set("nulls_first", not is_descending)
            keys.append(key)
        order.set("expressions", keys)


def _rewritten(node: exp.Expr) -> exp.Expr:
    """One construct in words that both sqlglot and BigQuery take for what DuckDB means."""
    match node:
        case exp.Placeholder() | exp.Parameter():
            return exp.Var(this=f"${node.name}")
        case exp.Div():
            node.set("safe", False)
            divisor = node.expression
            # DuckDB divides by zero as IEEE 754 says, where BigQuery would stop.
            is_number = isinstance(divisor, exp.Literal) and float(divisor.name) != 0
            return node if is_number else _call("IEEE_DIVIDE", node.this, divisor)
        case exp.ConcatWs():
            separator, *parts = node.expressions
            return _joined(parts, separator)
        case exp.Concat():
            return _joined(node.expressions, exp.Literal.string(""))
        case exp.Dayname():
            return _call("FORMAT_DATETIME", exp.Literal.string("%A"), _moment(node.this))
        case exp.Monthname():
            return _call("FORMAT_DATETIME", exp.Literal.string("%B"), _moment(node.this))
        case exp.TimeToUnix():
            instant = exp.cast(node.this, exp.DType.TIMESTAMPTZ)
            seconds = exp.Div(this=_call("UNIX_MICROS", instant), expression=exp.Literal.number(1000000))
            return exp.Paren(this=seconds)
        case exp.TimestampTrunc() | exp.DateTrunc():
            return _call("DATETIME_TRUNC", _moment(node.this), exp.Var(this=_PARTS[_unit(node)]))
        case exp.Extract():
            part = exp.Var(this=_PARTS[_unit(node)])
            return exp.Extract(this=part, expression=_moment(node.expression))
        case exp.Year() | exp.Quarter() | exp.Month() | exp.Day() | exp.Hour() | exp.Minute():
            return exp.Extract(this=exp.Var(this=node.key.upper()), expression=_moment(node.this))
    return node


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _joined(parts: list[exp.Expr], separator: exp.Expr) -> exp.Expr:
    """Texts in a row, NULLs left out, as DuckDB does and BigQuery's CONCAT does not."""
    texts = [exp.cast(part, exp.DType.TEXT) for part in parts]
    return _call("ARRAY_TO_STRING", exp.Array(expressions=texts), separator)


def _moment(value: exp.Expr) -> exp.Expr:
    return exp.cast(value, exp.DType.TIMESTAMP)
