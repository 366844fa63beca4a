"""Recommend from a saved soft-token run: histories in, the best K of the whole catalogue out.

    python -m lib.studies.recommend RUN_FOLDER HISTORIES.jsonl OUT.jsonl --k 10

A line of HISTORIES is {"items": [keys, oldest first], "user": number in training, optional}. A line
of OUT is {"line", "user", "items": [{"key", "title", "score"}, …], "notes": […]}, or {"line",
"error"} where a line cannot be read: one bad line never stops the others. Whoever was not in
training gets a user row from the history alone; items of ``--new-items`` ({"key", "title"} a line)
get a row from their title and compete with all others.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lib.data.files import write_atomic
from lib.evaluate.ranking import top_items
from lib.models.tables import Table
from lib.studies.soft_token_maps import title_rows, user_rows
from lib.studies.soft_token_run import SavedRun, load_run
from lib.studies.soft_tokens import Windows, encode

__all__ = ["Served", "add_items", "recommend", "recommend_file"]

LINES_AT_ONCE = 4_096
NOTED = 3  # unknown items named in a note; the rest is counted


@dataclass(frozen=True)
class Served:
    """How many lines were served, how many of them with notes, how many refused."""

    served: int
    noted: int
    refused: int


@dataclass(frozen=True)
class Asked:
    """One readable line."""

    line: int
    user: object
    row: int  # in the user table; -1: not in training
    items: list[int]
    notes: list[str]


def recommend_file(run: SavedRun, histories: Path, out: Path, *, k: int = 10) -> Served:
    """Serve a file of histories into a file of lists, a few thousand lines at a time."""
    counts = {"served": 0, "noted": 0, "refused": 0}

    def write(file: BinaryIO) -> None:
        with histories.open(encoding="utf-8", errors="replace") as lines:
            for answer in recommend(run, lines, k=k):
                refused = "error" in answer
                counts["refused" if refused else "served"] += 1
                counts["noted"] += bool(answer.get("notes"))
                file.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")

    write_atomic(out, write)
    return Served(**counts)


def recommend(
    run: SavedRun, lines: Iterable[str | dict[str, Any]], *, k: int = 10
) -> Iterator[dict[str, Any]]:
    """Answers in the order of the lines, each a JSON text or an already read dictionary."""
    if k < 1:
        raise ValueError(f"k={k}: expected at least one recommendation")
    ids = {key: item for item, key in enumerate(run.keys) if item}
    vectors = run.model.item_vectors().float().cpu().numpy()
    numbered = enumerate(lines, start=1)
    while part := list(islice(numbered, LINES_AT_ONCE)):
        read = [read_line(run, ids, number, line) for number, line in part]
        asked = [answer for answer in read if isinstance(answer, Asked)]
        served = iter(serve(run, asked, vectors, k))
        for answer in read:
            yield next(served) if isinstance(answer, Asked) else answer


def read_line(
    run: SavedRun, ids: dict[str, int], number: int, line: str | dict[str, Any]
) -> Asked | dict[str, Any]:
    """What a line asks for, or why it cannot be served."""
    try:
        told = json.loads(line) if isinstance(line, str) else line
    except ValueError as error:
        return {"line": number, "error": f'not JSON ({error}); expected {{"items": [keys]}}'}
    if not isinstance(told, dict) or not isinstance(told.get("items"), list):
        return {"line": number, "error": "expected an object with a list \"items\" of item keys, "
                                         "oldest first"}  # fmt: skip
    keys = [str(key) for key in told["items"]]
    found = [ids[key] for key in keys if key in ids]
    notes, unknown = [], list(dict.fromkeys(key for key in keys if key not in ids))
    if unknown:
        named = ", ".join(repr(key) for key in unknown[:NOTED])
        more = f" and {len(unknown) - NOTED} more" if len(unknown) > NOTED else ""
        notes.append(f"not in the catalogue and left out: {named}{more}")
    user, row = told.get("user"), -1
    if isinstance(user, int) and not isinstance(user, bool) and 0 <= user < len(run.known_users):
        row = user if run.known_users[user] else -1
    if user is not None and row < 0:
        notes.append(f"user {user!r} was not in training: its row is inferred from the history")
    if not found:
        notes.append("no known item in the history: served from the user alone")
    return Asked(number, user, row, found, notes)


def serve(
    run: SavedRun, asked: Sequence[Asked], vectors: NDArray[np.float32], k: int
) -> Iterator[dict[str, Any]]:
    if not asked:
        return
    offsets = np.cumsum([0, *(len(a.items) for a in asked)])
    seen = np.array([item for a in asked for item in a.items], dtype=np.int64)
    longest = max(1, max(len(a.items) for a in asked))
    items = np.zeros((len(asked), longest), dtype=np.int32)
    for place, a in enumerate(asked):
        items[place, : len(a.items)] = a.items
    states = encode_lines(run, asked, items)
    lists = top_items(states, vectors, k, (offsets, seen) if run.filter_seen else None)
    scores = (states[:, None, :] * vectors[lists]).sum(axis=-1)
    for a, best, score in zip(asked, lists, scores, strict=True):
        shown = [
            {"key": run.keys[item], "title": run.titles[item], "score": round(float(s), 6)}
            for item, s in zip(best, score, strict=True)
            if item > 0
        ]
        yield {"line": a.line, "user": a.user, "items": shown, "notes": a.notes}


def encode_lines(
    run: SavedRun, asked: Sequence[Asked], items: NDArray[np.int32]
) -> NDArray[np.float32]:
    """States after the newest items, with trained user rows where there are any."""
    model, device = run.model, str(next(run.model.parameters()).device)
    places = np.array([a.row for a in asked])
    table = model.item_table().detach().float().cpu().numpy()
    rows = user_rows(items, table, run.user_map)
    known = places >= 0
    trained = model.users.weight.detach()[torch.from_numpy(places[known]).to(device)]
    rows[known] = trained.float().cpu().numpy()
    lengths = np.array([min(len(a.items), model.config.max_len) for a in asked], dtype=np.int32)
    newest = np.zeros((len(asked), max(1, int(lengths.max()))), dtype=np.int32)
    for place, (a, length) in enumerate(zip(asked, lengths, strict=True)):
        newest[place, :length] = a.items[len(a.items) - length :]
    windows = Windows(np.zeros(len(asked), dtype=np.int32), newest, lengths)
    return encode(model, windows, device=device, user_rows=rows.astype(np.float32))


@torch.no_grad()
def add_items(run: SavedRun, keys: Sequence[str], titles: Sequence[str]) -> SavedRun:
    """A run with items behind its catalogue that have a title and nothing else.

    A key that is in the catalogue already is refused: its row was trained.
    """
    if len(keys) != len(titles):
        raise ValueError(f"{len(keys)} keys but {len(titles)} titles; expected one title each")
    twice = sorted(set(keys) & set(run.keys)) + sorted({k for k in keys if keys.count(k) > 1})
    if twice:
        raise ValueError(f"new items {twice[:NOTED]} are in the catalogue already; leave them out")
    model = run.model
    device = model.items.weight.device
    fresh = torch.from_numpy(title_rows(titles, run.title_map)).to(device)
    table = Table(len(model.items.weight) + len(fresh), model.config.d_rec, lazy=model.items.lazy)
    table.weight = nn.Parameter(torch.cat([model.items.weight, fresh]), requires_grad=False)
    larger = clone(model)
    larger.items = table.to(device)
    larger.config = replace(model.config, n_items=model.config.n_items + len(fresh))
    if model.titles is not None:  # the row already speaks of the title
        old = model.titles
        larger.titles = torch.cat([old, old.new_zeros(len(fresh), old.shape[1])])  # type: ignore[operator,arg-type]
    return replace(run, model=larger, keys=[*run.keys, *keys], titles=[*run.titles, *titles],
                   counts=np.concatenate([run.counts, np.zeros(len(fresh), np.int64)]))  # fmt: skip


def clone(model: Any) -> Any:
    """The same weights under a new module, so that the run given stays as it is."""
    other = object.__new__(type(model))
    other.__dict__ = dict(model.__dict__)
    for kind in ("_parameters", "_buffers", "_modules"):
        other.__dict__[kind] = dict(model.__dict__[kind])
    return other.eval()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when anything was served, 1 when nothing was, 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="python -m lib.studies.recommend", description="The best "
                                     "K items for each history of a JSON-lines file.")  # fmt: skip
    parser.add_argument("run", type=Path, help="folder of a saved run: run/ of a trained row")
    parser.add_argument("histories", type=Path, help='{"items": [keys], "user": number} a line')
    parser.add_argument("out", type=Path, help="written whole or not at all")
    parser.add_argument("--k", type=int, default=10, help="items per list")
    parser.add_argument("--new-items", type=Path, help='{"key": …, "title": …} a line')
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    try:
        run = load_run(options.run, device=options.device)
        if options.new_items:
            lines = options.new_items.read_text(encoding="utf-8").splitlines()
            told = [json.loads(line) for line in lines if line.strip()]
            run = add_items(run, [str(t["key"]) for t in told], [str(t["title"]) for t in told])
        served = recommend_file(run, options.histories, options.out, k=options.k)
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write(f"{served.served} served ({served.noted} with notes), "
                     f"{served.refused} refused\n")  # fmt: skip
    return 0 if served.served else 1


if __name__ == "__main__":
    sys.exit(main())
