"""The Toss-like log: 119 columns, one row group, three blocks of nulls, a test on day 7.

Who is clicked by whom is the matter of ``toss_law``; here rows are drawn, labelled and written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.data.files import write_atomic
from lib.data.world.choice import Law, styles_at
from lib.data.world.clicks import (
    Ads,
    Floats,
    draw_ads,
    expected_probability,
    find_intercept,
    history_counts,
    make_ads,
    sigmoid,
    wants,
)
from lib.data.world.config import WorldConfig
from lib.data.world.rng import generator
from lib.data.world.toss_columns import COLUMNS, STRINGS, fill_numbers
from lib.data.world.toss_law import N_AGES, SLOTS, Row, Weights, draw_weights, logits_of
from lib.data.world.toss_seq import (
    N_MEANINGS,
    N_TOKENS,
    call_for,
    draw_sequences,
    draw_worth,
    print_sequences,
)
from lib.data.world.words import DEPARTMENTS, TYPES

__all__ = ["TossTruth", "write_toss"]

MOMENT = 1_413_849_600_000
CHUNK = 50_000
VISIT = 1.5  # rows per visit: the same person, hour and sequence, different ads
TARGETED = 0.7  # share of rows whose ad is the more wanted of two
DEPARTMENT = np.array([each.department for each in TYPES])  # of each type
ROWS_PER_AD = 3_300  # as published: 10.7 million rows, 3,237 ad sets
FIRST_NULLS, SECOND_NULLS, THIRD_NULLS = 0.00161, 0.00174, 0.10141  # shares as published


@dataclass(frozen=True, slots=True)
class TossTruth:
    """For the rows of one file: the label, its probability, and the best that can be stated."""

    labels: NDArray[np.int8]
    probabilities: Floats
    expected: Floats


@dataclass(frozen=True, slots=True)
class _Setting:
    """What all rows share."""

    config: WorldConfig
    law: Law
    items: NDArray[np.int32]
    counts: NDArray[np.int64]
    ads: Ads
    names: NDArray[np.int64]  # token id of each meaning
    worth: Floats  # of each meaning
    weights: Weights


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One chunk before its labels are known."""

    table: dict[str, pa.Array]
    logits: Floats


def write_toss(
    folder: Path, config: WorldConfig, law: Law, items: NDArray[np.int32]
) -> dict[str, TossTruth]:
    """Write train, test and the sample submission; return what is true of each row."""
    setting = _make_setting(config, law, items)
    sample = _draw_chunk(setting, "sample", 0, min(config.n_toss, 2 * CHUNK), None)
    intercept = find_intercept(sample.logits, config.remainder, config.toss_ctr)
    n_test = max(1, config.n_toss // 7)
    found: dict[str, TossTruth] = {}
    for name, n_rows, day in (("train", config.n_toss, None), ("test", n_test, 7)):
        found[name] = _write_file(folder / f"{name}.parquet", setting, name, n_rows, day, intercept)
    ids = pl.DataFrame({"ID": [f"TEST_{row:07d}" for row in range(n_test)], "clicked": 0.0})
    write_atomic(folder / "sample_submission.csv", lambda file: ids.write_csv(file))
    return found


def _make_setting(config: WorldConfig, law: Law, items: NDArray[np.int32]) -> _Setting:
    rng = generator(config.seed, "toss")
    n_ads = int(np.clip(config.n_toss // ROWS_PER_AD, 60, 3237))
    return _Setting(
        config=config,
        law=law,
        items=items,
        counts=history_counts(law, MOMENT),
        ads=make_ads(law.catalogue, n_ads, config.seed, "toss"),
        names=rng.permutation(N_TOKENS - 1)[:N_MEANINGS] + 1,
        worth=draw_worth(rng),
        weights=draw_weights(rng),
    )


def _write_file(
    path: Path, setting: _Setting, name: str, n_rows: int, day: int | None, intercept: float
) -> TossTruth:
    """Stream the chunks into one row group, labels drawn as they pass."""
    truth = TossTruth(
        np.empty(n_rows, np.int8), np.empty(n_rows, np.float32), np.empty(n_rows, np.float32)
    )
    spread = setting.config.remainder

    def batches() -> Iterator[pa.RecordBatch]:
        for low in range(0, n_rows, CHUNK):
            size = min(CHUNK, n_rows - low)
            part = slice(low, low + size)
            chunk = _draw_chunk(setting, name, low, size, day)
            rng = generator(setting.config.seed, "toss labels", name, low)
            logits = chunk.logits + np.float32(intercept)
            noise = rng.standard_normal(size, dtype=np.float32)
            truth.probabilities[part] = sigmoid(logits + np.float32(spread) * noise)
            truth.expected[part] = expected_probability(logits, spread)
            draw = rng.random(size, dtype=np.float32)
            truth.labels[part] = draw < truth.probabilities[part]
            table = chunk.table
            if name == "train":
                table["clicked"] = pa.array(truth.labels[part].astype(np.int32))
            else:
                ids = [f"TEST_{row:07d}" for row in range(low, low + size)]
                table = {"ID": pa.array(ids), **table}
            yield pa.RecordBatch.from_pydict(table)

    def write(file: object) -> None:
        writer: pq.ParquetWriter | None = None
        for batch in batches():
            if writer is None:
                writer = pq.ParquetWriter(file, batch.schema)
            writer.write_batch(batch, row_group_size=n_rows)
        if writer is not None:
            writer.close()

    write_atomic(path, write)
    return truth


def _draw_chunk(setting: _Setting, name: str, low: int, n: int, day: int | None) -> _Chunk:
    """Rows of one chunk: who, when, where, which ad, what was looked at before."""
    law = setting.law
    rng = generator(setting.config.seed, "toss rows", name, low)
    new_visit = rng.random(n) < 1 / VISIT
    new_visit[0] = True
    visit = np.cumsum(new_visit) - 1
    n_visits = int(visit[-1]) + 1
    who = rng.integers(0, law.people.n_users, n_visits)
    styles = styles_at(law, who, np.full(n_visits, MOMENT))
    want = wants(law, setting.items, who, setting.counts, MOMENT)
    want = want.reshape(n_visits, len(DEPARTMENTS), -1).sum(axis=2)  # types stand by department
    hours = rng.integers(0, 24, n_visits)[visit]
    days = rng.integers(1, 8, n_visits)[visit] if day is None else np.full(n, day)
    sequences = draw_sequences(want, setting.config.toss_tokens, rng)
    slots = np.minimum(rng.geometric(0.22, n) - 1, len(SLOTS) - 1)
    wants_now = want[visit]
    ad = _draw_targeted(setting, wants_now, (days - rng.random(n)) / 7, rng)
    item = setting.ads.items[ad]
    kind = law.catalogue.types[item].astype(np.int64)
    department = DEPARTMENT[kind]
    age = (styles.argmax(axis=1) + rng.integers(0, 4, n_visits))[visit] % N_AGES
    gender = ((who[visit] % 5) < 2).astype(np.int64)
    affinity = law.catalogue.title_affinity + law.catalogue.hidden_affinity
    liking = np.einsum("bm,bm->b", styles[visit], affinity.T[item])
    row = Row(
        slot=slots, hour=hours, day=days, ad=ad, department=department, age=age,
        gender=gender, liking=liking, wanted=wants_now[np.arange(n), department],
        intent=call_for(sequences, setting.worth, visit, department),
    )  # fmt: skip
    strings = {
        "gender": (gender + 1).astype(str).astype(object),
        "age_group": (age + 1).astype(str).astype(object),
        "inventory_id": np.array(SLOTS)[slots].astype(str),
        "day_of_week": days.astype(str),
        "hour": np.char.zfill(hours.astype(str), 2),
    }
    number = fill_numbers(
        who[visit],
        ad,
        item,
        kind,
        department,
        liking,
        row.wanted,
        wants_now,
        styles[visit],
        np.diff(sequences.offsets)[visit],
        rng,
    )
    table = {key: pa.array(value) for key, value in strings.items()}
    table["seq"] = print_sequences(sequences, setting.names, visit)
    for column in COLUMNS[len(STRINGS) : -1]:
        table[column] = pa.array(number[column])
    return _Chunk(
        table=_with_nulls(table, n, rng), logits=logits_of(setting.weights, setting.ads, row)
    )


def _draw_targeted(
    setting: _Setting, wants_now: Floats, moments: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """One running ad for each row, in part for those who want such things.  -> (B,)"""
    ad, other = (draw_ads(setting.ads, moments, rng) for _ in range(2))
    of_ad = DEPARTMENT[setting.law.catalogue.types[setting.ads.items]]
    rows = np.arange(len(ad))
    better = wants_now[rows, of_ad[other]] > wants_now[rows, of_ad[ad]]
    return np.where((rng.random(len(ad)) < TARGETED) & better, other, ad)


def _with_nulls(
    table: dict[str, pa.Array], n: int, rng: np.random.Generator
) -> dict[str, pa.Array]:
    """Blank the three blocks: who the visitor is, feat_a, and feat_e_3."""
    first = [
        f"{kind}_{i}"
        for kind, count in (("feat_e", 10), ("feat_d", 6), ("feat_c", 8), ("feat_b", 6))
        for i in range(1, count + 1)
    ]
    blocks = (
        (FIRST_NULLS, ["gender", "age_group", *(c for c in first if c != "feat_e_3")]),
        (SECOND_NULLS, [f"feat_a_{i}" for i in range(1, 19)]),
        (THIRD_NULLS, ["feat_e_3"]),
    )
    for share, columns in blocks:
        gone = pa.array(rng.random(n) < share)
        for column in columns:
            empty = pa.scalar(None, table[column].type)
            table[column] = pa.compute.if_else(gone, empty, table[column])
    return table
