"""What a page of the documentation asks its reader to do: its fenced blocks, in order.

A comment directly before a block, invisible to readers, says how a test treats it:

    <!-- test: skip because it needs a SLURM cluster -->      not run, but read
    <!-- test: as .venv/bin/python run_all.py smoke -->       this runs in its place
    <!-- test: first mkdir -p data/raw/mine -->               runs before it, in the block's language
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("skip because", "as", "first")
COMMENT = re.compile(r"<!--\s*test:\s*(.*?)\s*-->", re.DOTALL)
BLOCK = re.compile(
    r"(?P<comments>(?:^[ ]*<!--(?:(?!-->).)*-->\s*\n)*)"
    r"^(?P<indent>[ ]*)```(?P<language>\w+)\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    page: str
    line: int
    language: str
    body: str
    skip: str = ""
    instead: str = ""
    first: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def documentation() -> list[Path]:
    """Every page that tells a reader what to type."""
    found = [ROOT / "README.md", ROOT / "notebooks" / "START_HERE.md"]
    return found + sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs/how-to").glob("*"))


def read_blocks(text: str, page: str) -> Iterator[Block]:
    for match in BLOCK.finditer(text):
        told = {"skip because": "", "as": "", "first": ""}
        for comment in COMMENT.findall(match["comments"]):
            kind = next((kind for kind in KINDS if comment.startswith(f"{kind} ")), None)
            if kind is None:
                raise ValueError(f"{page}: <!-- test: {comment} -->: expected one of {KINDS}")
            told[kind] = comment.removeprefix(kind).strip()
        indent = len(match["indent"])
        body = "".join(line[indent:] or "\n" for line in match["body"].splitlines(keepends=True))
        yield Block(
            page=page, line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"], body=body,
            skip=told["skip because"], instead=told["as"], first=told["first"],
        )  # fmt: skip


def blocks_of(path: Path) -> list[Block]:
    return list(read_blocks(path.read_text("utf-8"), path.relative_to(ROOT).as_posix()))
