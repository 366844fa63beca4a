"""Hostile text in the raw data, which then flows through every notebook and onto its page."""

import csv
import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import polars as pl

from lib.data.files import read_json, sha256_of, write_json
from lib.pipeline.profile import Home
from lib.pipeline.store import Result, Store
from tools.faults.same import lasting
from tools.faults.trial import Expect, Fault, Pair, Trial
from tools.faults.workspace import Workspace

__all__ = ["HOSTILE", "PAGES", "TEXTS"]

SOURCE = "marketplace"  # the node whose outputs are the raw data of all others
TEXTS = (
    '</title></style></script><script>window.owned=1</script><img src=x onerror="owned=1">',
    "=cmd|' /C calc'!A0", "@SUM(1+1)*cmd", "+1-1", '"quoted", and, commas""', "line\nbreak\r\nend",
    "tab\there", "safe \u202egnp.exe\u202c \u200f\u2066 end", "👩\u200d🚀 🏳️\u200d🌈 日本語 كتاب",
    "nul\x00bell\x07escape\x1b[31m", "\u2028line\u2029paragraph\ufeff", "{{ 7*7 }}${7*7}%s%n",
    "../../etc/passwd", "' OR '1'='1", "nan", "null", "  blanks  ", "W" * 10_000,
)  # fmt: skip
EVERY = 4  # each so many-th title or value becomes hostile


def hostile_text(number: int) -> str:
    return TEXTS[number % len(TEXTS)]


def poison(outputs: Path) -> None:
    """Rewrite the raw files of a marketplace: titles, texts, names and categories."""
    poison_lines(outputs / "amazon" / "meta_Marketplace.jsonl.gz", poison_item)
    poison_lines(outputs / "amazon" / "Marketplace.jsonl.gz", poison_review)
    for log in ("avazu_x1", "avazu_x2", "avazu_x4"):
        path = outputs / log / "ad_text.tsv"
        text = pl.read_csv(path, separator="\t", infer_schema=False)
        titles = [poison_title(title, n) for n, title in enumerate(text["title"])]
        text.with_columns(pl.Series("title", titles)).write_csv(path, separator="\t")
    names = ("site_id", "app_id", "device_model")
    poison_tables(sorted((outputs / "avazu_x4").glob("*.csv")), names)
    poison_tables([outputs / "toss" / f"{name}.parquet" for name in ("train", "test")],
                  ("gender", "age_group", "inventory_id"))  # fmt: skip


def poison_title(title: str, number: int) -> str:
    """Every fourth title; half of those keep their words behind the hostile ones."""
    if number % EVERY:
        return title
    text = hostile_text(number // EVERY)
    return text if number % (2 * EVERY) else f"{text} {title}"


def poison_item(item: dict[str, Any], number: int) -> None:
    text = hostile_text(number)
    item["title"] = poison_title(item["title"], number)
    item |= {"store": text, "description": [text], "features": [text, text]}


def poison_review(review: dict[str, Any], number: int) -> None:
    review |= {"title": hostile_text(number), "text": hostile_text(number + 1)}
    if sum(review["user_id"].encode()) % 7 == 0:  # the same name in all reviews of a person
        review["user_id"] = f"{hostile_text(len(review['user_id']))} {review['user_id']}"


def poison_lines(path: Path, change: Callable[[dict[str, Any], int], None]) -> None:
    """Change each object of a gzipped file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for number, row in enumerate(rows):
        change(row, number)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n"
                        for number, row in enumerate(rows))  # fmt: skip


def poison_tables(paths: list[Path], names: tuple[str, ...]) -> None:
    """The same few values of some text columns, in all files of a log."""

    def read(path: Path) -> pl.DataFrame:
        return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)  # fmt: skip  # noqa: E501

    frames = [read(path) for path in paths]
    for column in names:
        values = sorted(set().union(*(frame[column].drop_nulls().unique() for frame in frames)))
        chosen = dict(zip(values[1::3], TEXTS, strict=False))
        frames = [frame.with_columns(pl.col(column).replace(chosen)) for frame in frames]
    for path, frame in zip(paths, frames, strict=True):
        frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)


class Poisoned:
    """A second tree, whose store begins with the poisoned marketplace and nothing else."""

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.tree = Workspace(space.folder / "hostile")
        self.store = Store(Home(self.tree.root), space.store.profile)

    def make(self) -> "Poisoned":
        """Copy the tree, take over the marketplace's result, poison it, declare it whole."""
        if self.store.current(SOURCE) is not None:
            return self
        shutil.rmtree(self.tree.folder, ignore_errors=True)
        own = {str(self.space.root): ["data", "reports"]}  # of the top only: there is a lib/data
        shutil.copytree(self.space.root, self.tree.root, ignore=lambda at, _: own.get(at, []))
        good = self.space.result(SOURCE)
        folder = self.store.folder(SOURCE) / good.key
        shutil.copytree(good.folder, folder)
        poison(folder / "outputs")
        manifest = cast(dict[str, Any], read_json(folder / "manifest.json"))
        manifest["files"] = {
            name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
            for name in manifest["files"]
        }
        write_json(folder / "manifest.json", manifest)
        (self.store.folder(SOURCE) / "current").write_text(good.key, "utf-8")
        return self


def no_raw_text(pair: Pair) -> str:
    return "" if pair.case.inputs or pair.case.optional else "reads no raw data"


@contextmanager
def hostile_raw(pair: Pair) -> Iterator[Trial]:
    """The node runs on what the nodes before it made of the hostile data."""
    poisoned = Poisoned(pair.space).make()
    answer = poisoned.tree.run("smoke", "--until", pair.node)
    problems = damage_of(poisoned, pair) if answer.code == 0 else []
    if f"{SOURCE}: ran" in answer.said:
        problems.append("the raw data was made again, so nothing hostile was read")
    yield Trial((), Expect(0, {}), answer=answer, problems=tuple(problems))


def damage_of(poisoned: Poisoned, pair: Pair) -> list[str]:
    """Outputs that hostile text broke: CSV files must keep their rows, and nothing may be lost."""
    now, good = poisoned.store.current(pair.node), pair.good
    if now is None:
        return ["no result"]
    wrong = []
    for path in sorted(good.folder.rglob("outputs/**/*.csv")):
        name = path.relative_to(good.folder)
        if csv_shape(path) != csv_shape(now.folder / name):
            wrong.append(f"{name} has another shape than with plain text")
    return wrong + missing_files(good, now)


def missing_files(good: Result, now: Result) -> list[str]:
    files = [{lasting(name) for name in cast(dict[str, object], result.manifest["files"])}
             for result in (good, now)]  # fmt: skip
    return [f"missing: {name}" for name in sorted(files[0] - files[1])]


def csv_shape(path: Path) -> tuple[int, set[int]]:
    """Records and their widths, as a reader of CSV sees them."""
    csv.field_size_limit(1 << 24)
    with path.open(newline="", encoding="utf-8") as file:
        widths = [len(row) for row in csv.reader(file)]
    return len(widths), set(widths)


HOSTILE = Fault(
    "hostile text", "a quarter of all titles, and some names and categories of the raw data, are "
    "markup, formulas, quotes and line breaks, direction marks, emoji, control characters, or "
    "10,000 letters", "exit 0, every output is there, CSV files keep their shape",
    (hostile_raw,), no_raw_text,
)  # fmt: skip


@contextmanager
def hostile_page(pair: Pair) -> Iterator[Trial]:
    """The page of the node, made from the hostile data."""
    poisoned = Poisoned(pair.space).make()
    page = poisoned.tree.root / "reports" / "smoke" / f"{pair.node}.html"
    answer = poisoned.tree.run("smoke", "--only", pair.node, pages=True)
    problems = harm_of(page.read_text("utf-8")) if page.exists() else ["there is no page"]
    yield Trial((), Expect(0, {}), answer=answer, problems=tuple(problems))


def harm_of(page: str) -> list[str]:
    """What of a page could act, or show something else than is there.

    >>> harm_of("<p>&lt;script&gt;</p>"), harm_of("<p onclick=x><script>")
    ([], ['script', 'onclick='])
    """
    found = re.findall(r"<(script|iframe|object|embed)\b|<[^>]*?\s(on\w+=)", page)
    raw = sorted({f"U+{ord(c):04X}" for c in re.findall(r"[\x00\x07\x1b\u202a-\u202e\u2066-\u2069]", page)})  # fmt: skip  # noqa: E501
    return [tag or act for tag, act in found] + raw


PAGES = Fault(
    "hostile page", "the page of the node is made from the hostile data",
    "no element that acts, no control character, no direction mark", (hostile_page,), no_raw_text,
)  # fmt: skip
