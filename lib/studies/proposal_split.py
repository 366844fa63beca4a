"""How a click log is split: as its files say, by time, or at random; and whether that will do.

Each part must hold clicks and rows without one. A split that cannot is given up for the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from lib.data.tabular import carve_valid
from lib.studies.proposal_clicks import PARTS, ClickLook, Split
from lib.studies.proposal_columns import as_text, time_of
from lib.studies.proposal_files import Table, collect
from lib.studies.proposal_roles import label_of

__all__ = ["choose_split", "part_of"]

LEAST_ROWS, LEAST_CLICKS = 100, 20  # of each class
LEAST_JUDGED = 5  # of each class in each part


def part_of(look: ClickLook, missing: Sequence[str] = ("valid", "test")) -> pl.Expr:
    """0 train, 1 valid, 2 test of each row of the (training) file; only ``missing`` parts are cut.

    A hash of the row number decides at random; of the user, so that each stands in one part only.
    """
    if look.split == "time":
        form = next(u.column.form for u in look.uses if u.column.name == look.time)
        time = time_of(look.time, form)
        tests = pl.when(time >= look.cuts[1]).then(2)
        return tests.when(time >= look.cuts[0]).then(1).otherwise(0).cast(pl.UInt8)
    row = pl.col("row number")
    if look.split == "user":
        row = pl.col(look.user).fill_null("").hash(1) % (1 << 31)
    test = carve_valid(row, share=0.1, seed=1) == 1
    valid = carve_valid(row, share=0.1 / 0.9, seed=2) == 1
    test = test if "test" in missing else pl.lit(False)
    valid = valid if "valid" in missing else pl.lit(False)
    return pl.when(test).then(2).when(valid).then(1).otherwise(0).cast(pl.UInt8)


def choose_split(tables: Mapping[str, Table], look: ClickLook, wanted: str) -> ClickLook:
    """The first split, of those that are possible, in which every part can be judged."""
    if wanted not in ("", "files", "time", "user", "random"):
        raise ValueError(f"--split {wanted}: expected files, time, user or random")
    labelled = {part: table for part, table in tables.items() if look.label.name in table.names}
    notes = [f"{part}: its rows have no label, so they judge nothing and are left out"
             for part in tables if part not in labelled]  # fmt: skip
    missing = [part for part in ("valid", "test") if part not in labelled]
    tries: list[tuple[Split, str]] = []
    if not missing:
        tries.append(("files", "train, valid and test as the files are named"))
    if look.time and len(labelled) == 1:
        tries.append(
            ("time", f"by {look.time}: a model is judged on later rows than it was trained on")
        )
    if look.user and wanted == "user":
        tries.append(("user", f"by {look.user}: each user's rows in one part only, so all that is "
                      "judged is new users"))  # fmt: skip
    cut = " and ".join(missing)
    if missing:
        tries.append(("random", f"{cut}: a tenth of the rows each, by a hash of the row number"
                  + ("" if look.time else "; there is no time to split by")))  # fmt: skip
    if wanted:
        kept = [each for each in tries if each[0] == wanted]
        if not kept:
            options = ", ".join(each[0] for each in tries)
            raise ValueError(f"--split {wanted}: not possible here; possible is {options}")
        tries = kept
    told = ""
    for split, why in tries:
        tried = replace(look, split=split, why_split=why, notes=tuple(notes))
        tried = count_parts(
            labelled, cut_by_time(labelled, tried) if split == "time" else tried, missing
        )
        told = unjudged(tried)
        if not told:
            return tried
        notes.append(f"not split {split if split != 'files' else 'as the files say'}: {told}")
    raise ValueError(f"{next(iter(labelled.values())).paths[0].name}: {told}")


def cut_by_time(tables: Mapping[str, Table], look: ClickLook) -> ClickLook:
    """The last tenth of the rows is test, the tenth before it valid; equal times stay together."""
    table = next(iter(tables.values()))
    form = next(u.column.form for u in look.uses if u.column.name == look.time)
    times = collect(as_text(table.frame).select(time_of(look.time, form)), table.paths[0].name)
    counts = times.drop_nulls().group_by(look.time).len().sort(look.time, descending=True)
    share = counts.with_columns(pl.col("len").cum_sum() / max(counts["len"].sum(), 1))
    starts: list[int] = []
    for least in (0.0999, 0.1999):  # a hair below, for shares that are a tenth but for rounding
        reached = share.filter(pl.col("len") >= least)[look.time]
        starts.append(int(reached[0]) if len(reached) else 0)
    return replace(look, cuts=(min(starts), max(starts)))


def count_parts(tables: Mapping[str, Table], look: ClickLook, missing: Sequence[str]) -> ClickLook:
    """Rows and clicks of each part of the labelled files."""
    rows, clicks, empty = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0), 0
    for given, table in tables.items():
        part = pl.lit(PARTS.index(given) if given != "all" else 0, dtype=pl.UInt8)
        if given in ("all", "train") and look.split != "files":
            part = part_of(look, missing if given == "train" else ("valid", "test"))
        label = label_of(look.label).alias("label")
        known = as_text(table.frame).with_row_index("row number").select(part.alias("part"), label)
        query = known.group_by("part").agg(
            pl.col("label").count().alias("n"),
            pl.col("label").sum().alias("clicks"),
            pl.col("label").null_count().alias("empty"),
        )
        for number, n, clicked, none in collect(query, table.paths[0].name).rows():
            rows[PARTS[number]] += n
            clicks[PARTS[number]] += clicked or 0
            empty += none
    return replace(look, rows=rows, clicks=clicks, missing_labels=empty)


def unjudged(look: ClickLook) -> str:
    """Why the rows cannot be judged; empty where they can."""
    n, clicked = sum(look.rows.values()), sum(look.clicks.values())
    if n < LEAST_ROWS or min(clicked, n - clicked) < LEAST_CLICKS:
        return (
            f"{n} rows with a label, {clicked} of them clicks; expected {LEAST_ROWS} rows or more, "
            f"with {LEAST_CLICKS} clicks and {LEAST_CLICKS} rows without"
        )
    for part in PARTS:
        n, clicked = look.rows[part], look.clicks[part]
        if min(clicked, n - clicked) < LEAST_JUDGED:
            return (
                f"{part} would hold {n} rows with {clicked} clicks; expected {LEAST_JUDGED} clicks "
                f"and {LEAST_JUDGED} rows without in each part"
            )
    return ""
