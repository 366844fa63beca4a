"""The rows of the text-and-ID study: their names, their recipes, what they are compared with.

id           a free row per item
NAME         text alone: the embeddings of that name behind an adapter
NAME+id      both, summed
A|B+id       two texts side by side: what the one tells beyond the other
NAME~id      both, weighed by a gate
shuffled+id  the control: TF-IDF rows given to other items
ROW&item-kNN any of these, its probabilities mixed with those of item-kNN
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.histories import Histories, Targets
from lib.evaluate import segments
from lib.models.item_inputs import Kind
from lib.studies.sequences import Recipe

__all__ = [
    "build_recipes",
    "read_baselines",
    "read_embeddings",
    "read_seeds",
    "seed_columns",
    "segment_labels",
    "unmixed",
    "whitened",
]

CONTROL_TEXT = "tfidf"
MIXED = "&item-kNN"


def build_recipes(
    rows: Sequence[str],
    texts: Mapping[str, NDArray[np.float32]],
    settings: Mapping[str, Mapping[str, float]],
    *,
    adapter: Literal["linear", "mlp"] = "linear",
    tuned: bool = False,
) -> dict[str, Recipe]:
    """Recipes in the order asked for; what was tuned is looked up by kind.

    >>> rows = build_recipes(["id"], {}, {"id": {"learning_rate": 1e-3, "dropout": 0.4}})
    >>> rows["id"].kind
    'id'
    """
    recipes = {}
    for row in rows:
        name, kind = _parse(unmixed(row))
        if kind not in settings:
            raise ValueError(f"row {row!r} needs settings for {kind!r}, got {sorted(settings)}")
        sources = [CONTROL_TEXT] if name == "shuffled" else name.split("|")
        missing = [source for source in sources if source not in texts]
        if kind != "id" and missing:
            raise ValueError(f"row {row!r}: no embeddings {missing[0]!r}, got {sorted(texts)}; add "
                             "the stage to 24_extract_item_embeddings or drop the row")  # fmt: skip
        recipes[row] = Recipe(
            kind=kind,
            learning_rate=settings[kind]["learning_rate"],
            dropout=settings[kind]["dropout"],
            embeddings=None if kind == "id" else np.hstack([texts[one] for one in sources]),
            adapter=adapter,
            tuned=tuned,
            shuffled=name == "shuffled",
            mixed=row.endswith(MIXED),
        )
    return recipes


def unmixed(row: str) -> str:
    """The row that is trained.

    >>> unmixed("tfidf+id&item-kNN")
    'tfidf+id'
    """
    return row.removesuffix(MIXED)


def _parse(row: str) -> tuple[str, Kind]:
    if row == "id":
        return row, "id"
    for mark, kind in (("+id", "sum"), ("~id", "gated")):
        if row.endswith(mark):
            return row.removesuffix(mark), cast(Kind, kind)
    return row, "text"


def read_embeddings(folder: Path, n_items: int) -> dict[str, NDArray[np.float32]]:
    """The embeddings of each stage by its name, (V + 1, D) with row 0 for padding, checked."""
    found = {}
    for file in sorted(folder.glob("*.npy")):
        rows = np.load(file, allow_pickle=False)
        if rows.ndim != 2 or len(rows) != n_items + 1:
            raise ValueError(
                f"{file.name} has the shape {rows.shape}, expected {n_items + 1} rows, one for "
                f"each of {n_items} items and one for padding; run 24_extract_item_embeddings on "
                "the same histories"
            )
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(broken):
            raise ValueError(
                f"{file.name} holds NaN or infinite values in {len(broken)} rows, the first "
                f"{broken[:5].tolist()}; look at the stage before, then extract again with "
                "24_extract_item_embeddings"
            )
        found[file.stem] = rows
    return found


def whitened(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Text rows turned to their principal directions, each of variance 1.  (V + 1, D) -> (V + 1, R)

    A language model puts nearly all variance into a few directions, and an adapter behind them
    needs many steps to hear the others.  R ≤ D: directions in which nothing varies are left out.
    """
    centred = rows[1:].astype(np.float64) - rows[1:].mean(axis=0, dtype=np.float64)
    items, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    varies = lengths > 1e-6 * lengths.max(initial=np.finfo(np.float64).tiny)
    return np.pad(items[:, varies] * len(centred) ** 0.5, ((1, 0), (0, 0))).astype(np.float32)


def read_baselines(folder: Path, targets: Targets) -> dict[str, NDArray[np.float64]]:
    """Ranks of the counted rows, one per target, checked to be of the same targets."""
    return _read_columns(folder / "ranks.parquet", targets, "run 13_measure_baselines")


def seed_columns(trained: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Ranks (S, N) of each row as one column a seed, for ``seeds.parquet``.

    >>> sorted(seed_columns({"id": np.ones((2, 3))}))
    ['id#1', 'id#2']
    """
    return {f"{row}#{n}": one for row, table in trained.items() for n, one in enumerate(table, 1)}


def read_seeds(folder: Path, targets: Targets) -> dict[str, NDArray[np.float64]]:
    """What ``seed_columns`` wrote, by row: (S, N) over the same targets."""
    columns = _read_columns(folder / "seeds.parquet", targets, "run 25_evaluate_sasrec")
    rows: dict[str, list[NDArray[np.float64]]] = {}
    for name, ranks in columns.items():
        rows.setdefault(name.rpartition("#")[0], []).append(ranks)
    return {row: np.stack(tables) for row, tables in rows.items()}


def _read_columns(path: Path, targets: Targets, how: str) -> dict[str, NDArray[np.float64]]:
    frame = pl.read_parquet(path)
    same = (
        len(frame) == len(targets)
        and np.array_equal(frame["user"].to_numpy(), targets.users)
        and np.array_equal(frame["position"].to_numpy(), targets.positions)
    )
    if not same:
        raise ValueError(
            f"{path}: ranks of {len(frame)} other targets, expected the {len(targets)} of these "
            f"histories; {how} on the same histories"
        )
    names = [name for name in frame.columns if name not in ("user", "position", "item")]
    return {name: frame[name].to_numpy().astype(np.float64) for name in names}


def segment_labels(histories: Histories, targets: Targets) -> dict[str, NDArray[np.str_]]:
    """Targets by training count, by novelty, and by length of the history before them."""
    wanted = histories.target_items(targets)
    seen = histories.seen(targets.users, targets.positions)
    return {
        "popularity": segments.popularity(wanted, histories.counts),
        "novelty": segments.novelty(wanted, seen),
        "history": segments.history_length(targets.positions),
    }
