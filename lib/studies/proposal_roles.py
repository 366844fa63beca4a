"""Which column is the label, the user, the item, the time, the title: by name and by content.

What cannot be decided is an error that names the candidates and the option.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from lib.studies.proposal_columns import Column, cleaned, has_word

__all__ = ["Label", "choose_label", "find_column", "find_role", "label_of", "tells_label"]

NO = ("0", "false", "no", "n", "f", "nein", "neg", "negative", "-1", "0.0", "off")
YES = ("1", "true", "yes", "y", "t", "ja", "pos", "positive", "1.0", "on", "click", "clicked",
       "buy", "bought", "purchase", "purchased")  # fmt: skip
LABELS = ("label", "click", "clicked", "clicks", "target", "is_click", "klick", "geklickt", "y",
          "converted", "conversion", "response", "outcome", "purchased", "bought", "attributed",
          "subscribed", "churn")  # fmt: skip
ROLES = {
    "user": ("user", "visitor", "customer", "client", "member", "person", "reviewer", "reader",
             "kunde", "nutzer", "account", "u", "uid", "cookie", "viewer", "player", "patient",
             "session", "author"),
    "item": ("item", "product", "produkt", "artikel", "article", "ad", "asin", "parentasin", "sku",
             "movie", "film", "song", "track", "book", "news", "creative", "video", "banner",
             "campaign", "content", "document", "doc", "offer", "game", "app", "business",
             "listing", "i", "iid", "mid", "isbn"),
    "time": ("timestamp", "time", "datetime", "eventtime", "unixtime", "date", "ts", "createdat",
             "clicktime", "reviewtime", "zeit", "datum", "day", "hour"),
    "rating": ("rating", "ratings", "stars", "overall", "score", "bewertung", "note", "weight"),
    "title": ("title", "titel", "name", "producttitle", "movietitle", "productname", "itemname",
              "itemtitle", "bezeichnung", "headline", "titles", "description"),
    "group": ("category", "maincategory", "categories", "genre", "genres", "kategorie", "class",
              "group", "brand", "topic", "section", "department"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Label:
    """The label's column, the values that count as 1, and why."""

    name: str
    positive: tuple[str, ...]
    reason: str


def find_column(names: Sequence[str], wanted: str, option: str) -> str:
    """A column asked for by name; a wrong name is told the nearest one."""
    if wanted in names:
        return wanted
    near = get_close_matches(wanted, names, n=1, cutoff=0.4)
    hint = f"nearest is {near[0]!r}" if near else f"there are {', '.join(names[:12])}"
    raise ValueError(f"{option} {wanted}: no such column; {hint}")


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_role(
    columns: Sequence[Column], role: str, allowed: Callable[[Column], bool]
) -> Column | None:
    """The column whose name says the role, in the order of the words known for it.

    ``user``, ``user_id``, ``userId`` and ``id_user`` all say user.
    """
    for word in ROLES[role]:
        forms = {word, f"{word}id", f"id{word}", f"{word}s", f"{word}key", f"{word}nr", f"{word}no"}
        for column in columns:
            if plain(column.name) in forms and allowed(column):
                return column
    return None


def choose_label(
    columns: Sequence[Column], wanted: str = "", positive: Sequence[str] = ()
) -> Label:
    """The column of clicks and no clicks, or an error that says how to name it."""
    by_name = {column.name: column for column in columns}
    if wanted:
        column = by_name[find_column(list(by_name), wanted, "--label")]
        return read_label(column, positive, "as asked for")
    two = [column for column in columns if yes_of(column)]
    named = [column for word in LABELS for column in columns if has_word(column.name, (word,))]
    for column in named:
        if column in two or positive:
            return read_label(column, positive, "its name, and its two values")
    exact = [column for column in named if column.distinct != 2]
    if exact:
        return read_label(exact[0], positive, "")
    if len(two) == 1:
        return read_label(two[0], positive, "the only column of two values such as 0 and 1")
    if two:
        names = ", ".join(column.name for column in two[:12])
        raise ValueError(
            f"{len(two)} columns could be the label: {names}. Say which: --label COLUMN"
        )
    few = sorted((c for c in columns if c.distinct > 1), key=lambda c: c.distinct)[:5]
    told = "; ".join(f"{c.name} ({tell_values(c)})" for c in few) or "every column is constant"
    raise ValueError(
        "no column looks like a label: expected two values such as 0 and 1 in a column called "
        f"label, click or target. Columns with the fewest values: {told}. Say which and what "
        "counts as a click: --label COLUMN --positive VALUE"
    )


def tell_values(column: Column) -> str:
    more = ", …" if column.distinct > len(column.values) else ""
    return f"{column.distinct} values: {', '.join(sorted(column.values))}{more}"


def yes_of(column: Column) -> str:
    """The value that means a click in a column of two values; empty where it is no such column."""
    if column.distinct != 2 or len(column.values) != 2:
        return ""
    first, second = column.values
    for yes, no in ((first, second), (second, first)):
        if yes.lower() in YES and no.lower() in NO:
            return yes
    return ""


def read_label(column: Column, positive: Sequence[str], reason: str) -> Label:
    """What counts as a click; more than two values need ``--positive``."""
    if column.distinct < 2:
        told = f"always {column.values[0]!r}" if column.values else "empty"
        raise ValueError(
            f"label {column.name!r} is {told}: one class alone teaches nothing. Add rows of the "
            "other class, or name another column with --label"
        )
    if positive:
        return Label(
            column.name, tuple(positive), f"{reason}; {', '.join(positive)} count as clicks"
        )
    yes = yes_of(column)
    if not yes:
        raise ValueError(
            f"label {column.name!r} has {tell_values(column)}; expected two such as 0 and 1. Say "
            "what counts as a click (--positive VALUE,VALUE), or name another column with --label"
        )
    return Label(column.name, (yes,), reason)


def label_of(label: Label) -> pl.Expr:
    """1, 0, or null where the cell is empty."""
    text = cleaned(label.name)
    return text.is_in(list(label.positive)).cast(pl.Int8).alias(label.name)


def tells_label(frame: pl.DataFrame, name: str, label: pl.Series) -> bool:
    """Whether the values of a column, or where it is empty, give the label away.

    Such a column is known only after the click: a model that reads it looks perfect and is useless.
    """
    rate = float(label.mean() or 0.0)  # type: ignore[arg-type]
    if not 0.005 < rate < 0.995:
        return False
    pair = frame.select(cleaned(name).alias("value")).with_columns(label.alias("label"))
    for key in (pl.col("value"), pl.col("value").is_null()):
        found = pair.group_by(key.alias("key")).agg(pl.len().alias("n"), pl.col("label").mean())
        if 2 <= len(found) <= len(pair) / 20:  # of few rows each, chance alone is sure
            sure = found.select(
                (pl.col("n") * pl.max_horizontal("label", 1 - pl.col("label"))).sum()
            )
            if sure.item() >= 0.9995 * len(pair):
                return True
    return False
