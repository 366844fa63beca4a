"""Reviews and metadata in the raw format of Amazon Reviews 2023, gzipped JSON lines."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.files import write_atomic
from lib.data.world.catalogue import Catalogue
from lib.data.world.choice import Law, styles_at
from lib.data.world.config import WorldConfig
from lib.data.world.gzips import write_gzip
from lib.data.world.people import People
from lib.data.world.rng import digits, generator, hash_pairs, unique_codes
from lib.data.world.titles import describe, feature_lists, make_titles, words_of

__all__ = ["META", "REVIEWS", "item_keys", "user_keys", "write_amazon"]

REVIEWS, META = "Marketplace.jsonl.gz", "meta_Marketplace.jsonl.gz"
BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
VARIANTS = 4  # asins of one parent_asin; the first is the parent itself
CHUNK = 100_000  # reviews turned into text at a time
OPENINGS = ("I bought this", "Got the", "My new", "This", "Really like the", "Not sure about the")
ENDINGS = (
    "and it works as described.",
    "and would buy it again.",
    "but the box arrived damaged.",
    "and my family uses it every day.",
    "though it is smaller than I thought.",
    "and it was a gift.",
)
HEADLINES = ("Not for me", "Could be better", "It is okay", "Pretty good", "Love it")


def item_keys(n_items: int, *, variant: int = 0) -> NDArray[np.bytes_]:
    """The asin of each item in the order of the catalogue; variant 0 is the parent."""
    codes = unique_codes(n_items * VARIANTS, 8, BASE36, 5)[variant::VARIANTS]
    return np.char.add(b"B0", codes)


def user_keys(n_users: int) -> NDArray[np.bytes_]:
    """28 letters for each user, as reviewers have.  -> [U]"""
    users = np.arange(n_users, dtype=np.int64)
    head = unique_codes(n_users, 7, BASE32, 3)  # makes them different
    tails = [digits(hash_pairs(users, 0, salt), 10, BASE32) for salt in (21, 22)]
    return np.char.add(np.char.add(np.char.add(b"A", head), tails[0]), tails[1])


def write_amazon(
    folder: Path, config: WorldConfig, law: Law, items: NDArray[np.int32], seed: int
) -> dict[str, int]:
    """Write both files; return how many rows each has."""
    catalogue, people = law.catalogue, law.people
    owner = np.repeat(np.arange(people.n_users), np.diff(people.offsets))
    ratings = _ratings(law, owner, items, seed)
    rows = _rows(config, people, seed)
    frame = _review_pieces(catalogue, people, items, owner, ratings, rows, seed)
    write_atomic(folder / REVIEWS, lambda file: write_gzip(file, frame))
    meta = _meta_pieces(catalogue, items, ratings, seed)

    def write_meta(file: BinaryIO) -> None:
        write_gzip(file, meta)

    write_atomic(folder / META, write_meta)
    return {"reviews": len(rows), "items": catalogue.n_items, "users": people.n_users}


def _rows(config: WorldConfig, people: People, seed: int) -> NDArray[np.int64]:
    """Which purchase each review row shows: every one once, a few twice, in no useful order."""
    rng = generator(seed, "review order")
    n_events = len(people.times)
    lengths = np.diff(people.offsets)
    left = np.repeat(people.offsets[1:], lengths) - np.arange(n_events)  # 1 for a user's last
    twice = np.flatnonzero((rng.random(n_events) < config.duplicate_share) & (left > 3))
    return rng.permutation(np.concatenate([np.arange(n_events), twice]))


def _ratings(
    law: Law, owner: NDArray[np.int64], items: NDArray[np.int32], seed: int
) -> NDArray[np.int8]:
    """One to five stars; higher where the user's styles like the item."""
    rng = generator(seed, "ratings")
    affinity = (law.catalogue.title_affinity + law.catalogue.hidden_affinity).T.copy()  # [V, M]
    ratings = np.empty(len(items), dtype=np.int8)
    for low in range(0, len(items), CHUNK):
        part = slice(low, low + CHUNK)
        styles = styles_at(law, owner[part], law.people.times[part])
        liking = np.einsum("bm,bm->b", styles, affinity[items[part]])
        noise = 0.9 * rng.standard_normal(len(liking), dtype=np.float32)
        ratings[part] = np.clip(np.rint(3.9 + 0.45 * liking + noise), 1, 5)
    return ratings


def _review_pieces(
    catalogue: Catalogue,
    people: People,
    items: NDArray[np.int32],
    owner: NDArray[np.int64],
    ratings: NDArray[np.int8],
    rows: NDArray[np.int64],
    seed: int,
) -> Iterator[bytes]:
    """JSON lines of the reviews, a chunk at a time, built column by column."""
    users = pl.Series(user_keys(people.n_users).astype(str))
    asins = [
        pl.Series(item_keys(catalogue.n_items, variant=v).astype(str)) for v in range(VARIANTS)
    ]
    every_asin = pl.concat(asins)
    nouns = pl.Series([_phrase(words) for words in words_of(catalogue)])
    for low in range(0, len(rows), CHUNK):
        rng = generator(seed, "review text", low)
        part = rows[low : low + CHUNK]
        n, bought = len(part), items[part]
        variant = np.where(rng.random(n) < 0.3, rng.integers(0, VARIANTS, n), 0)
        votes = rng.geometric(0.7, n) - 1
        text = pl.DataFrame(
            {
                "a": pl.Series(OPENINGS).gather(rng.integers(0, len(OPENINGS), n)),
                "b": nouns.gather(bought),
                "c": pl.Series(ENDINGS).gather(rng.integers(0, len(ENDINGS), n)),
            }
        )
        frame = pl.DataFrame(
            {
                "rating": ratings[part].astype(np.float64),
                "title": pl.Series(HEADLINES).gather(ratings[part].astype(np.int64) - 1),
                "text": text.select(pl.concat_str("a", "b", "c", separator=" ")).to_series(),
                "images": pl.Series([[]], dtype=pl.List(pl.String)).gather(np.zeros(n, np.int64)),
                "asin": every_asin.gather(variant * catalogue.n_items + bought),
                "parent_asin": asins[0].gather(bought),
                "user_id": users.gather(owner[part]),
                "timestamp": people.times[part],
                "helpful_vote": votes,
                "verified_purchase": rng.random(n) < 0.92,
            }
        )
        buffer = io.BytesIO()
        frame.write_ndjson(buffer)
        yield buffer.getvalue()


def _phrase(words: dict[str, str]) -> str:
    trait = words["feature"] or words["variety"] or words["colour"]
    return " ".join(part for part in (words["brand"], trait, words["noun"]) if part)


def _meta_pieces(
    catalogue: Catalogue, items: NDArray[np.int32], ratings: NDArray[np.int8], seed: int
) -> Iterator[bytes]:
    """JSON lines of the items, in no useful order."""
    rng = generator(seed, "meta")
    n_items = catalogue.n_items
    counts = np.bincount(items, minlength=n_items)
    totals = np.bincount(items, weights=ratings, minlength=n_items)
    keys = item_keys(n_items).astype(str)
    titles, words = make_titles(catalogue), words_of(catalogue)
    no_price = rng.random(n_items) < 0.25
    order = rng.permutation(n_items)
    for low in range(0, n_items, 10_000):
        lines = []
        for index in order[low : low + 10_000].tolist():
            count, shown = int(counts[index]), words[index]
            lines.append(
                {
                    "main_category": shown["department"],
                    "title": titles[index],
                    "average_rating": round(totals[index] / count, 1) if count else None,
                    "rating_number": count,
                    "features": feature_lists(shown),
                    "description": describe(shown),
                    "price": None if no_price[index] else round(float(catalogue.prices[index]), 2),
                    "images": [],
                    "videos": [],
                    "store": shown["brand"],
                    "categories": [shown["department"], shown["noun"].title()],
                    "details": _details(shown, int(catalogue.arrivals[index])),
                    "parent_asin": str(keys[index]),
                    "bought_together": None,
                }
            )
        yield "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _details(words: dict[str, str], arrival: int) -> dict[str, str]:
    first = datetime.fromtimestamp(arrival / 1000, tz=UTC)
    named = {"Brand": "brand", "Color": "colour", "Material": "material", "Size": "size"}
    found = {name: words[slot].title() for name, slot in named.items() if words[slot]}
    return found | {"Date First Available": f"{first:%B} {first.day}, {first.year}"}
