"""A person's click log looked at: what each column is used for.

What a column is comes from ``proposal_columns``; here it gets its part in a click model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from lib.studies.proposal_columns import (
    Column,
    as_text,
    cleaned,
    describe_column,
    number_of,
    time_of,
)
from lib.studies.proposal_files import Table, collect
from lib.studies.proposal_roles import (
    Label,
    choose_label,
    find_column,
    find_role,
    label_of,
    tells_label,
)

__all__ = ["PARTS", "ClickChoices", "ClickLook", "Split", "Use", "look_at_clicks"]

SAMPLE_ROWS = 500_000  # looked at, of a file above SAMPLE_BYTES; smaller files are read whole
SAMPLE_BYTES = 300 << 20
DAY = 86_400_000
PARTS = ("train", "valid", "test")
Split = Literal["files", "time", "user", "random"]


@dataclass(frozen=True, kw_only=True)
class ClickChoices:
    """What a person decides; empty is left to the proposal."""

    label: str = ""
    positive: tuple[str, ...] = ()
    user: str = ""
    item: str = ""
    time: str = ""
    ignore: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    split: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A column and what becomes of it: its name in the dataset, as a field, a number, …"""

    column: Column
    use: Literal["category", "number", "sequence", "time", "label", "ignored"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class ClickLook:
    uses: tuple[Use, ...]
    label: Label
    user: str
    item: str
    time: str
    clock: tuple[str, ...]  # fields made of the time: hour, weekday
    split: Split
    why_split: str
    cuts: tuple[int, int]  # of the time: first millisecond of valid and of test
    rows: Mapping[str, int]
    clicks: Mapping[str, int]
    missing_labels: int
    sampled: int  # rows that the kinds were judged on; 0: all
    notes: tuple[str, ...]

    def named(self, use: str) -> list[str]:
        return [each.column.name for each in self.uses if each.use == use]


def look_at_clicks(tables: Mapping[str, Table], choices: ClickChoices) -> ClickLook:
    """Judge every column on the training file (or the one file) and choose the roles."""
    main = tables.get("train") or tables["all"]
    if main.kind == "words":
        raise ValueError(
            f"{main.paths[0].name}: lines of ids and no columns; for sequences of items say "
            "--sequences FILE"
        )
    name = main.paths[0].name
    whole = main.n_bytes <= SAMPLE_BYTES
    frame = collect(as_text(main.frame if whole else main.frame.head(SAMPLE_ROWS)), name)
    if not len(frame):
        raise ValueError(f"{name} has a header and no rows; expected rows with a label")
    for option, given in (("--ignore", choices.ignore), ("--categorical", choices.categorical),
                          ("--numeric", choices.numeric)):  # fmt: skip
        for wanted in given:
            find_column(frame.columns, wanted, option)
    columns = [describe_column(frame[column]) for column in frame.columns]
    free = [c for c in columns if c.name not in choices.ignore]
    label = choose_label(free, choices.label, choices.positive)
    roles = choose_roles([c for c in free if c.name != label.name], choices, frame.columns)
    times = time_span(frame, roles["time"], columns)
    clock = clock_fields(roles["time"], times)
    labels = frame.select(label_of(label))[label.name]
    known = frame.filter(labels.is_not_null())
    uses = tuple(
        judge(column, label, roles, choices, known, labels.drop_nulls()) for column in columns
    )
    if not any(use.use in ("category", "number", "sequence") for use in uses) and not clock:
        raise ValueError(
            f"{name}: no column is left to learn from; every one is constant, a row id or ignored. "
            "Name some with --categorical or --numeric"
        )
    look = ClickLook(
        uses=uses, label=label, user=roles["user"], item=roles["item"], time=roles["time"],
        clock=clock, split="random", why_split="", cuts=(0, 0), rows={}, clicks={},
        missing_labels=0, sampled=0 if whole else len(frame), notes=(),
    )  # fmt: skip
    return look


def choose_roles(
    columns: Sequence[Column], choices: ClickChoices, names: Sequence[str]
) -> dict[str, str]:
    """User, item and time, as asked for or by name; empty where there is none."""
    found: dict[str, str] = {}
    for role in ("user", "item", "time"):
        wanted = getattr(choices, role)
        if wanted == "none":
            found[role] = ""
        elif wanted:
            found[role] = find_column(names, wanted, f"--{role}")
            kind = next(c.kind for c in columns if c.name == found[role])
            if role == "time" and kind != "time":
                raise ValueError(
                    f"--time {wanted}: does not read as a time in every row; expected ISO dates, "
                    "31.12.2024, or seconds since 1970"
                )
        else:
            left = [c for c in columns if c.name not in found.values()]
            kinds = ("time",) if role == "time" else ("category",)
            column = find_role(left, role, lambda c, kinds=kinds: c.kind in kinds)  # type: ignore[misc]
            times = [c for c in left if c.kind == "time"]
            if column is None and role == "time" and len(times) == 1:
                column = times[0]
            found[role] = column.name if column else ""
    return found


def judge(
    column: Column, label: Label, roles: Mapping[str, str], choices: ClickChoices,
    frame: pl.DataFrame, labels: pl.Series,
) -> Use:  # fmt: skip
    """What becomes of one column."""
    name = column.name
    if name == label.name:
        return Use(column, "label", label.reason)
    if name in choices.ignore:
        return Use(column, "ignored", "as asked for")
    if name in choices.categorical:
        return Use(column, "category", "as asked for")
    if name in choices.numeric:
        form = column.form if column.kind == "number" else "."
        if (
            frame.select(number_of(name, form).is_null() > cleaned(name).is_null())
            .to_series()
            .any()
        ):
            raise ValueError(f"--numeric {name}: holds {column.values[0]!r}, which is no number; "
                             "leave it a category")  # fmt: skip
        return Use(replace(column, form=form), "number", "as asked for")
    if name == roles["time"]:
        return Use(column, "time", f"{column.reason}; orders the rows")
    if column.kind == "time":
        return Use(column, "ignored", f"{column.reason}, and not the one rows are ordered by")
    if not column.is_used:
        return Use(column, "ignored", column.reason)
    owner = name in (roles["user"], roles["item"])
    if column.kind == "category" and not owner and column.distinct > 0.9 * column.n >= 90:
        told = f"id-like: {column.distinct:,} values in {column.n:,} rows"
        return Use(column, "ignored", f"{told}, nearly every row has its own")
    if tells_label(frame, name, labels):
        told = "gives the label away, so it is known only after the click"
        return Use(column, "ignored", f"{told}; --categorical {name} takes it all the same")
    kind = "category" if owner else column.kind
    role = next((role for role in ("user", "item") if roles[role] == name), "")
    return Use(column, kind, f"the {role}: {column.reason}" if role else column.reason)  # type: ignore[arg-type]


def time_span(frame: pl.DataFrame, time: str, columns: Sequence[Column]) -> int:
    """Milliseconds between the first and the last row."""
    if not time:
        return 0
    form = next(column.form for column in columns if column.name == time)
    times = frame.select(time_of(time, form))[time].drop_nulls()
    return int(np.ptp(times.to_numpy())) if len(times) else 0


def clock_fields(time: str, span: int) -> tuple[str, ...]:
    """Hour where the log covers two days, weekday where it covers two weeks."""
    if not time:
        return ()
    return (*((f"{time}_hour",) if span >= 2 * DAY else ()),
            *((f"{time}_weekday",) if span >= 14 * DAY else ()))  # fmt: skip
