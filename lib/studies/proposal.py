"""``run_all.py init``: look at a person's own file, propose a profile, write it and link the data.

Everything is looked at before anything is written, and nothing is overwritten without ``--force``.
"""

import argparse
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.studies.proposal_click_graph import plan_clicks
from lib.studies.proposal_clicks import ClickChoices, ClickLook, look_at_clicks
from lib.studies.proposal_convert import Delivery, deliver_clicks, told_bytes
from lib.studies.proposal_cost import Cost, estimate, read_rates, tell_cost
from lib.studies.proposal_files import Table, open_tables
from lib.studies.proposal_sequence_files import deliver_sequences
from lib.studies.proposal_sequence_graph import plan_sequences
from lib.studies.proposal_sequences import SequenceChoices, SequenceLook, look_at_sequences
from lib.studies.proposal_split import choose_split
from lib.studies.proposal_text import PlannedNode, profile_text

__all__ = ["Proposal", "init", "propose_clicks", "propose_sequences"]

NAME = re.compile(r"[A-Za-z0-9_][\w.-]*\Z", re.ASCII)
MARK = ".made-by-init"  # in a folder whose data may be replaced
MADE = ("train.*", "valid.*", "test.*", "interactions.inter", "titles.item")
CODE_ROOT = Path(__file__).resolve().parents[2]
TIMES = 10.0  # the estimate: the limit of a node


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A profile to be written, the data it needs, and what was found out."""

    about: str
    head: tuple[str, ...]
    nodes: tuple[PlannedNode, ...]
    cost: Cost
    delivery: Delivery

    @property
    def text(self) -> str:
        limits = {name: TIMES * s / 60 for name, s in self.cost.seconds.items()}
        return profile_text(self.about, self.head, self.nodes, limits)


def init(root: Path, words: Sequence[str]) -> Iterator[str]:
    """The command, line by line of what it says; a problem is a ValueError that says what to do."""
    options = parse(words)
    target = root / "params" / f"{options.name}.yaml"
    if target.exists() and not (options.force or options.dry_run):
        raise ValueError(
            f"params/{target.name} is there; choose another name, or --force writes over it"
        )
    with tempfile.TemporaryDirectory(prefix="lingrec-") as scratch:
        proposal = propose(root, options, Path(scratch))
        if options.dry_run:
            yield f"# params/{target.name}, not written\n{proposal.text}".rstrip()
            for step in proposal.delivery.steps:
                yield f"# data/raw/{proposal.delivery.folder}: would {step}"
            return
        yield "\n".join(proposal.head)
        folder = root / "data" / "raw" / proposal.delivery.folder
        clear(folder)
        for step in proposal.delivery.steps:
            yield f"data/raw/{proposal.delivery.folder}: {step}"
        proposal.delivery.carry_out(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(proposal.text, encoding="utf-8")
    yield f"wrote params/{target.name}; read it, change what you know better, then"
    yield f"  .venv/bin/python run_all.py {options.name} --explain    # what would run"
    yield f"  .venv/bin/python run_all.py {options.name}    # reports/{options.name}/index.html"


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run_all.py init",
        description="Look at your own file and write params/NAME.yaml for it: which column is "
        "what, the split, the models that make sense at its size, and how long they will take.",
    )
    parser.add_argument("name", help="of the new profile")
    parser.add_argument(
        "--clicks",
        type=Path,
        metavar="FILE",
        help="rows with a label: CSV, TSV, JSON lines, parquet, gzip; or a folder",
    )
    parser.add_argument(
        "--sequences", type=Path, metavar="FILE", help="who met which item, and when"
    )
    parser.add_argument("--titles", type=Path, metavar="FILE", help="what each item is called")
    for option, told in {
        "label": "column of clicks", "user": "column of the user, or none", "item": "column of the "
        "item", "time": "column of the time, or none", "rating": "column of the rating, or none",
        "key": "column of the item in the titles", "title": "column of the title",
        "group": "column of the title file's category", "split": "files, time, user, random; "
        "sequences: last, temporal, ratio",
    }.items():  # fmt: skip
        parser.add_argument(
            f"--{option}", default="", metavar="COLUMN" if option != "split" else "HOW", help=told
        )
    for option, told in {
        "positive": "values of the label that count as a click", "ignore": "columns to leave out",
        "categorical": "columns that are categories", "numeric": "columns that are numbers",
        "columns": "names of the columns of a file without a header",
    }.items():  # fmt: skip
        parser.add_argument(f"--{option}", default="", metavar="A,B", help=told)
    for option, told in {
        "force": "write over params/NAME.yaml", "dry-run": "print, write nothing",
        "rewrite": "allow gigabytes to be rewritten below data/raw",
    }.items():  # fmt: skip
        parser.add_argument(f"--{option}", action="store_true", help=told)
    options = parser.parse_args(words)
    if not NAME.match(options.name):
        raise ValueError(f"{options.name!r}: a profile's name is letters, digits, _ and -")
    if (options.clicks is None) == (options.sequences is None):
        raise ValueError("init NAME needs one of --clicks FILE and --sequences FILE")
    if options.titles and options.clicks:
        raise ValueError(
            "--titles belongs to --sequences; a click log has its words in its columns"
        )
    return options


def listed(given: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in given.split(",") if part.strip())


def propose(root: Path, options: argparse.Namespace, scratch: Path) -> Proposal:
    """Open the files and propose; what an option does not fit is said."""
    if options.sequences:
        return propose_for_sequences(root, options, scratch)
    choices = ClickChoices(
        label=options.label, positive=listed(options.positive), user=options.user,
        item=options.item, time=options.time, ignore=listed(options.ignore),
        categorical=listed(options.categorical), numeric=listed(options.numeric),
        split=options.split,
    )  # fmt: skip
    tables = open_tables(options.clicks, scratch, columns=listed(options.columns))
    folder = folder_for(root, options.name, options.clicks)
    return propose_clicks(tables, choices, folder, allowed=options.rewrite)


def propose_for_sequences(root: Path, options: argparse.Namespace, scratch: Path) -> Proposal:
    for name in ("label", "positive", "ignore", "categorical", "numeric"):
        if getattr(options, name):
            raise ValueError(f"--{name} belongs to --clicks; sequences have users, items and times")
    fields = ("user", "item", "time", "rating", "key", "title", "group", "split")
    choices = SequenceChoices(**{name: getattr(options, name) for name in fields})
    tables = open_tables(options.sequences, scratch, columns=listed(options.columns))
    if len(tables) > 1:
        raise ValueError(f"{options.sequences}: train, valid and test files; sequences are split "
                         "here, so hand in all interactions as one file")  # fmt: skip
    titles = open_tables(options.titles, scratch / "titles") if options.titles else {}
    folder = folder_for(root, options.name, options.sequences)
    return propose_sequences(
        tables["all"], titles.get("all"), choices, folder, allowed=options.rewrite
    )


def folder_for(root: Path, name: str, source: Path) -> str:
    """data/raw/NAME where it is empty or was made here; else a folder below, to touch no file."""
    raw = root / "data" / "raw" / name
    free = not raw.is_dir() or not any(raw.iterdir()) or (raw / MARK).is_file()
    inside = raw.resolve() in (source.resolve(), *source.resolve().parents)
    return name if free and not inside else f"{name}/prepared"


def clear(folder: Path) -> None:
    """A folder for the data; files that an earlier call made go."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in MADE:
        for path in folder.glob(pattern):
            path.unlink()
    (folder / MARK).write_text("made by run_all.py init\n", encoding="utf-8")


def propose_clicks(
    tables: dict[str, Table], choices: ClickChoices, folder: str, *, allowed: bool = False
) -> Proposal:
    """The whole click report for a table."""
    look = choose_split(tables, look_at_clicks(tables, choices), choices.split)
    delivery = deliver_clicks(tables, look, folder, allowed=allowed)
    nodes = plan_clicks(look, delivery)
    cost = estimate(nodes, read_rates(CODE_ROOT))
    source = (tables.get("train") or tables["all"]).paths[0].name
    head = [*tell_clicks(tables, look), *tell_cost(cost, nodes)]
    return Proposal(about=f"Your click log {source}, proposed by init", head=tuple(head),
                    nodes=tuple(nodes), cost=cost, delivery=delivery)  # fmt: skip


def propose_sequences(
    table: Table, titles: Table | None, choices: SequenceChoices, folder: str, *,
    allowed: bool = False,
) -> Proposal:  # fmt: skip
    """The whole report on sequences for a table of interactions, and one of titles."""
    look = look_at_sequences(table, titles, choices)
    delivery, source = deliver_sequences(table, look, folder, allowed=allowed)
    nodes = plan_sequences(look, folder, source)
    cost = estimate(nodes, read_rates(CODE_ROOT))
    head = [*tell_sequences(table, titles, look), *tell_cost(cost, nodes)]
    return Proposal(about=f"Your sequences {table.paths[0].name}, proposed by init",
                    head=tuple(head), nodes=tuple(nodes), cost=cost, delivery=delivery)  # fmt: skip


def tell_sequences(table: Table, titles: Table | None, look: SequenceLook) -> list[str]:
    """What was found out, for the screen and for the head of the profile."""
    rows, users, items = look.kept
    roles = ", ".join(f"{role} {name or 'none'}" for role, name in look.roles.items())
    lines = [
        f"{table.paths[0].name}: {table.describe()}; {len(look.rows):,} rows, {look.n_users:,} "
        f"users, {look.n_items:,} items, {told_bytes(table.n_bytes)}",
        f"columns: {roles}",
        f"core: users with {look.core[0]} rows and items with {look.core[1]} leave {rows:,} rows, "
        f"{users:,} users, {items:,} items",
        f"repeats: {look.repeats:.1%} of the rows; nine in ten users have {look.length} rows or "
        "fewer",
        f"split: {look.split}; {look.why_split}",
    ]
    if not look.title_roles:
        return [*lines, "titles: none, so no language model reads any; items' ids stand in"]
    where = titles.paths[0].name if titles else "the interactions"
    named = ", ".join(f"{role} {name}" for role, name in look.title_roles.items() if name)
    return [*lines, f"titles: of {where} ({named}); {look.titled:.1%} of the kept items have one"]


def tell_clicks(tables: dict[str, Table], look: ClickLook) -> list[str]:
    """What was found out, for the screen and for the head of the profile."""
    main = tables.get("train") or tables["all"]
    rows, clicks = sum(look.rows.values()), sum(look.clicks.values())
    lines = [
        f"{main.paths[0].name}: {main.describe()}; {rows:,} rows with a label, {clicks:,} clicks "
        f"({clicks / rows:.2%}), {told_bytes(sum(t.n_bytes for t in tables.values()))}",
        f"label: {look.label.name}; {' or '.join(look.label.positive)} is a click; "
        f"{look.label.reason}",
        "split: " + look.why_split + "; rows: "
        + ", ".join(f"{part} {n:,}" for part, n in look.rows.items()),
        *look.notes,
    ]  # fmt: skip
    if look.missing_labels:
        lines.append(f"{look.missing_labels:,} rows have no label and are left out")
    if look.sampled:
        lines.append(f"kinds and distinct values below are of the first {look.sampled:,} rows")
    width = min(30, max(len(use.column.name) for use in look.uses))
    lines.append(f"{'column':<{width}}  {'becomes':<9} {'distinct':>9} {'missing':>7}  why")
    for use in look.uses:
        lines.append(f"{use.column.name:<{width}}  {use.use:<9} {use.column.distinct:>9,} "
                     f"{use.column.missing:>7.1%}  {use.reason}")  # fmt: skip
    if look.clock:
        lines.append(f"made of {look.time}: {', '.join(look.clock)}")
    if len(look.named("sequence")) > 1:
        lines.append(f"only the first sequence is read: {look.named('sequence')[0]}")
    return lines
