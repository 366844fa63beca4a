"""What a column of a person's table is: number, category, time, sequence, or nothing to use.

Each column gets one kind and the reason for it. Kinds are judged on text, because that is what a
CSV holds; typed columns of parquet and JSON are turned into text first, lists into joined ids.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

__all__ = ["Column", "Kind", "as_text", "cleaned", "describe_column", "number_of", "time_of"]

Kind = Literal["category", "number", "sequence", "time", "text", "row id", "constant", "nested"]
MISSING = ("", "na", "n/a", "null", "none", "nan", "\\n", "?", "-", "nil")
FEW = 50  # distinct whole numbers up to this are a category: each can have a vector of its own
RECUR = 10  # a code comes back this often in the mean
INTEGER, PLAIN = r"^[+-]?\d+$", r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
GERMAN = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?$"
THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
TOKENS = r"^\d{1,9}([,;| ]+\d{1,9})*[,;| ]*$"
ID_NAMES = ("id", "user", "item", "code", "zip", "plz", "country", "city", "category", "type",
            "class", "brand", "device", "site", "app", "page", "ad", "campaign",
            "product")  # fmt: skip
TIME_NAMES = ("time", "date", "datum", "day", "hour", "ts", "created", "when", "zeit", "at")
DATES = {  # format: what a cell of it looks like
    "%Y-%m-%dT%H:%M:%S%.f%#z": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)$",
    "%Y-%m-%dT%H:%M:%S%.f": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?$",
    "%Y-%m-%d %H:%M:%S%.f": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?$",
    "%Y-%m-%d %H:%M": r"^\d{4}-\d\d-\d\d \d\d:\d\d$",
    "%Y-%m-%d": r"^\d{4}-\d\d-\d\d$",
    "%d.%m.%Y %H:%M:%S": r"^\d{1,2}\.\d{1,2}\.\d{4} \d\d:\d\d:\d\d$",
    "%d.%m.%Y %H:%M": r"^\d{1,2}\.\d{1,2}\.\d{4} \d\d:\d\d$",
    "%d.%m.%Y": r"^\d{1,2}\.\d{1,2}\.\d{4}$",
    "%m/%d/%Y %H:%M:%S": r"^\d{1,2}/\d{1,2}/\d{4} \d\d:\d\d:\d\d$",
    "%m/%d/%Y %H:%M": r"^\d{1,2}/\d{1,2}/\d{4} \d\d:\d\d$",
    "%m/%d/%Y": r"^\d{1,2}/\d{1,2}/\d{4}$",
}
STAMPS = {"%Y%m%d%H": 10, "%y%m%d%H": 8, "%Y%m%d": 8}  # of digits; only where the name says time
EPOCHS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990 to 2100, in seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column: its kind, why, and what is needed to read it.

    ``form``: of a number "." or "," (the decimal mark); of a time the format, or the unit of an
    epoch; of a sequence the mark between ids.  ``values``: the most frequent, as they stand.
    """

    name: str
    kind: Kind
    reason: str
    n: int
    distinct: int
    missing: float
    values: tuple[str, ...]
    form: str = ""

    @property
    def is_used(self) -> bool:
        return self.kind in ("category", "number", "sequence", "time")


Told = Callable[..., Column]  # (kind, reason, form) -> the column


def as_text(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Every column as text: lists of plain values joined by commas, structs left out as null."""
    columns = []
    for name, kind in frame.collect_schema().items():
        column = pl.col(name)
        if isinstance(kind, pl.List | pl.Array):
            plain = not kind.inner.is_nested()  # type: ignore[union-attr]
            column = column.cast(pl.List(pl.String)).list.join(",") if plain else pl.lit(None)
        elif isinstance(kind, pl.Struct) or kind == pl.Object:
            column = pl.lit(None)
        elif kind == pl.Boolean:
            column = column.cast(pl.Int8)
        elif isinstance(kind, pl.Datetime):
            column = column.dt.strftime("%Y-%m-%d %H:%M:%S%.6f")
        elif kind.is_float():  # whole floats are what pandas makes of ids with a gap
            whole = column.drop_nulls().drop_nans().round().eq(column.drop_nulls().drop_nans())
            column = pl.when(whole.all() & (column.abs().max() < 1e15)).then(
                column.cast(pl.Int64, strict=False).cast(pl.String)
            ).otherwise(column.cast(pl.String))  # fmt: skip
        columns.append(column.cast(pl.String).alias(name))
    return frame.select(columns)


def cleaned(name: str) -> pl.Expr:
    """The text of a column without blanks around it; the usual words for nothing become null."""
    text = pl.col(name).str.strip_chars()
    return pl.when(~text.str.to_lowercase().is_in(MISSING)).then(text).alias(name)


def number_of(name: str, form: str) -> pl.Expr:
    """The number in a text column.

    >>> pl.DataFrame({"x": ["1.234,5", ""]}).select(number_of("x", ","))["x"].to_list()
    [1234.5, None]
    """
    text = cleaned(name)
    if form == ",":
        text = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    elif form == "1,000":
        text = text.str.replace_all(",", "", literal=True)
    return text.cast(pl.Float64, strict=False).alias(name)


def time_of(name: str, form: str) -> pl.Expr:
    """Milliseconds since 1970 (UTC where no zone is given); null where the cell is no such time.

    >>> pl.DataFrame({"t": ["02.01.1970"]}).select(time_of("t", "%d.%m.%Y"))["t"].to_list()
    [86400000]
    """
    text = cleaned(name)
    if form in EPOCHS:
        return (
            (text.cast(pl.Float64, strict=False) * (1000 / EPOCHS[form])).cast(pl.Int64).alias(name)
        )
    if form == "%y%m%d%H":
        text, form = "20" + text, "%Y%m%d%H"
    if form == "%Y%m%d%H":
        text, form = text + "00", "%Y%m%d%H%M"
    if "#z" in form:
        return (text.str.to_datetime(form, strict=False, time_unit="ms", time_zone="UTC")
                .dt.timestamp("ms").alias(name))  # fmt: skip
    if "%H" not in form:
        return (
            text.str.to_date(form, strict=False)
            .cast(pl.Datetime("ms"))
            .dt.timestamp("ms")
            .alias(name)
        )
    return text.str.to_datetime(form, strict=False, time_unit="ms").dt.timestamp("ms").alias(name)


def describe_column(series: pl.Series) -> Column:
    """The kind of one text column, and why.

    >>> describe_column(pl.Series("colour", ["red", "blue", "red", None])).kind
    'category'
    """
    name, n = series.name, len(series)
    text = series.cast(pl.String).to_frame().select(cleaned(name))[name]
    known = text.drop_nulls()
    distinct = known.n_unique()
    counts = known.value_counts(sort=True).head(6)
    base = {"name": name, "n": n, "distinct": distinct, "missing": 1 - len(known) / max(n, 1),
            "values": tuple(counts[name].to_list())}  # fmt: skip

    def told(kind: Kind, reason: str, form: str = "") -> Column:
        return Column(kind=kind, reason=reason, form=form, **base)  # type: ignore[arg-type]

    if distinct == 0:
        return told("constant", "nothing in it")
    if distinct == 1:
        return told("constant", f"always {known[0]!r}")
    form = find_time(name, known)
    if form:
        return told("time", f"reads as a time ({EPOCH_TOLD.get(form, form)})", form)
    if known.str.contains(INTEGER).all():
        return whole_numbers(name, known, distinct, told)
    mark = find_decimal(known)
    if mark:
        told_mark = {".": "", ",": " with a decimal comma", "1,000": " with commas for thousands"}
        if distinct == 2:
            return told("category", "two values")
        return told("number", f"numbers{told_mark[mark]}", mark)
    return words(known, distinct, told)


EPOCH_TOLD = {unit: f"{unit} since 1970" for unit in EPOCHS}


def has_word(name: str, words: tuple[str, ...]) -> bool:
    """Whether one of the words stands in a name: ``user_id``, ``userId``, ``user``.

    >>> has_word("adId", ("id",)), has_word("humidity", ("id",))
    (True, False)
    """
    marked = pl.Series([name]).str.replace_all(r"([a-z])([A-Z])", "${1}_${2}")[0]
    parts = [part for part in marked.lower().replace("-", "_").replace(" ", "_").replace(".", "_")
             .split("_") if part]  # fmt: skip
    return any(part.rstrip("0123456789") in words or part in words for part in parts)


def find_time(name: str, known: pl.Series) -> str:
    """The format of a time, or the unit of an epoch; empty where it is none."""
    for form, shape in DATES.items():
        if known.str.contains(shape).all():
            if (
                form.startswith("%m/%d")
                and (known.str.extract(r"^(\d+)").cast(pl.Int64) > 12).any()
            ):
                form = form.replace("%m/%d", "%d/%m")
            read = known.to_frame(name).select(time_of(name, form))[name]
            return form if read.null_count() < len(read) // 100 + 1 else ""
    if not has_word(name, (*TIME_NAMES, "timestamp", "datetime", "unix", "epoch", "column")):
        return ""
    if not known.str.contains(r"^\d+(\.\d+)?$").all():
        return ""
    numbers = known.cast(pl.Float64)
    for unit, factor in EPOCHS.items():
        if numbers.is_between(EARLIEST * factor, LATEST * factor).all():
            return unit
    for form, digits in STAMPS.items():
        if (known.str.len_chars() == digits).all():
            read = known.to_frame(name).select(time_of(name, form))[name].drop_nulls()
            good = (read >= EARLIEST * 1000) & (read <= LATEST * 1000)
            if len(read) == len(known) and good.all():
                return form
    return ""


def whole_numbers(name: str, known: pl.Series, distinct: int, told: Told) -> Column:
    """Whole numbers are codes or quantities; spread, repetition and name decide."""
    if has_word(name, ID_NAMES) or known.str.contains(r"^0\d").any():
        if is_row_id(known, distinct):
            return told("row id", "every row has its own value: nothing can be learnt from it")
        return told("category", "whole numbers that name something")
    if distinct <= FEW:
        return told("category", f"only {distinct} different whole numbers")
    numbers = known.cast(pl.Float64)
    low, high = numbers.to_numpy().min(), numbers.to_numpy().max()
    if low > 5 * (high - low):
        return told(
            "category",
            f"whole numbers in a narrow band far from zero ({low:.0f} to {high:.0f}): codes",
        )
    if distinct <= 1000 and len(known) >= RECUR * distinct and high - low > 5 * distinct:
        return told("category", f"{distinct} whole numbers that recur, with gaps between: codes")
    if is_row_id(known, distinct) and high - low <= 1.01 * len(known):
        return told("row id", "a number of its own for every row")
    return told("number", "whole numbers of many sizes", ".")


def is_row_id(known: pl.Series, distinct: int) -> bool:
    return len(known) >= 20 and distinct == len(known)


def find_decimal(known: pl.Series) -> str:
    """The way numbers are written: "." or "," before decimals, "1,000" for thousands; else ""."""
    shares = {".": PLAIN, "1,000": rf"{THOUSANDS}|{PLAIN}", ",": GERMAN}
    if known.str.contains(r",\d{3}$").any() and not known.str.contains(r",\d{1,2}$").any():
        order = (".", "1,000", ",") if known.str.contains(r"\d\.\d").any() else (".", ",", "1,000")
    else:
        order = (".", ",", "1,000")
    return next((mark for mark in order if known.str.contains(shares[mark]).all()), "")


def words(known: pl.Series, distinct: int, told: Told) -> Column:
    """Text: ids joined into a sequence, a category, a title, or a name for each row."""
    if known.str.contains(TOKENS).all() and (known.str.count_matches(r"\d+") > 1).any():
        mark = next((mark for mark in ",;|" if known.str.contains(mark, literal=True).any()), " ")
        return told("sequence", "whole numbers joined by a mark: a history of events", mark)
    length = float(known.str.count_matches(r"\S+").to_numpy().mean())
    if distinct == len(known) and len(known) >= 20:
        if length > 2:
            return told("text", "free text, another in each row")
        return told("row id", "every row has its own value: nothing can be learnt from it")
    if length > 4 and distinct > 0.2 * len(known):
        return told("text", f"free text, {length:.0f} words in the mean")
    return told("category", "words")
