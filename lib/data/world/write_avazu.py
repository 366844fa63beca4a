"""The three published variants of Avazu: the same rows, split and encoded in three ways."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.files import write_atomic
from lib.data.world.avazu_log import FIELDS, SIZES, ClickLog
from lib.data.world.config import WorldConfig
from lib.data.world.rng import generator, hash_pairs, unique_codes

__all__ = ["SPLITS", "encode_x1", "encode_x2", "encode_x4", "split_rows", "write_avazu"]

AD = FIELDS.index("C14")
SPLITS = {
    "avazu_x1": ("train", "valid", "test"),
    "avazu_x2": ("train", "test"),
    "avazu_x4": ("train", "valid", "test"),
}
HEX = "0123456789abcdef"
X1_HOUR = 1_544_248  # feat_22 = this + hour of day; every other id of x1 is below
X2_MDAY, X2_HOUR, X2_WDAY = 645_154, 645_164, 645_188  # mday counts from October 21
FIRST_WEEKDAY = 1  # October 21, 2014 was a Tuesday; Monday is 0
RAW = {  # codes that are numbers in x4: field -> raw value of each code, or where they begin
    "C1": (1005, 1002, 1010),
    "banner_pos": range(8),
    "device_type": (0, 1, 4),
    "device_conn_type": (0, 2, 3, 5),
    "C15": tuple(width for width, _ in SIZES),
    "C16": tuple(height for _, height in SIZES),
    "C18": range(4),
}
BEGIN = {"C14": 375, "C17": 112, "C19": 33, "C20": 100_000, "C21": 1}


def split_rows(log: ClickLog, seed: int) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Row numbers of each file: x1 by time 7:1:2, x2 at random 8:2, x4 stratified 8:1:1."""
    rng = generator(seed, "avazu splits")
    n = len(log.labels)
    edges = [0, n * 7 // 10, n * 8 // 10, n]
    x1 = {name: np.arange(edges[i], edges[i + 1]) for i, name in enumerate(SPLITS["avazu_x1"])}
    held_out = np.zeros(n, dtype=bool)
    held_out[rng.permutation(n)[: n // 5]] = True
    folds = np.empty(n, dtype=np.int8)
    for label in (0, 1):
        rows = np.flatnonzero(log.labels == label)
        folds[rng.permutation(rows)] = np.arange(len(rows)) % 10
    x4 = {"train": folds > 1, "valid": folds == 1, "test": folds == 0}
    return {
        "avazu_x1": x1,
        "avazu_x2": {"train": np.flatnonzero(~held_out), "test": np.flatnonzero(held_out)},
        "avazu_x4": {name: np.flatnonzero(mask) for name, mask in x4.items()},
    }


def write_avazu(
    folders: Mapping[str, Path],
    log: ClickLog,
    titles: list[str],
    splits: Mapping[str, Mapping[str, NDArray[np.int64]]],
    config: WorldConfig,
) -> None:
    """Write every file of the three variants, and beside each what its ads say."""
    said = pl.Series([titles[item] for item in log.ads.items]).gather(log.codes[:, AD])
    for variant, frame, ad in (
        ("avazu_x1", encode_x1(log, config.seed), f"feat_{AD + 1}"),
        ("avazu_x2", encode_x2(log, config), FIELDS[AD]),
        ("avazu_x4", encode_x4(log, config.seed), FIELDS[AD]),
    ):
        for name, rows in splits[variant].items():
            _write_csv(folders[variant] / f"{name}.csv", frame[rows])
        text = pl.DataFrame({"field": ad, "value": frame[ad], "title": said})
        if variant == "avazu_x2":  # the rare ads share one id there, so it says nothing
            text = text.filter(pl.col("title").n_unique().over("value") == 1)
        text = text.unique("value", keep="first", maintain_order=True).sort("value")
        _write_csv(folders[variant] / "ad_text.tsv", text, separator="\t")


def encode_x1(log: ClickLog, seed: int) -> pl.DataFrame:
    """label, feat_1 … feat_22: one id space, ids within a field in no order, the hour last."""
    least = 1
    while sum(_kept(codes, least).size + 1 for codes in log.codes.T) >= X1_HOUR:
        least += 1  # the published ids leave rare values out too
    columns: dict[str, NDArray[np.generic]] = {"label": log.labels}
    begin = 1
    for number, codes in enumerate(log.codes.T, start=1):
        ids, used = _ids(codes, least, generator(seed, "x1", number))
        columns[f"feat_{number}"] = ids + begin
        begin += used
    columns[f"feat_{len(FIELDS) + 1}"] = log.hours % 24 + X1_HOUR
    return pl.DataFrame(columns)


def encode_x2(log: ClickLog, config: WorldConfig) -> pl.DataFrame:
    """click and named columns: another id space, values rarer than a minimum count are one."""
    columns: dict[str, NDArray[np.generic]] = {"click": log.labels}
    begin = 0
    for name, codes in zip(FIELDS, log.codes.T, strict=True):
        ids, used = _ids(codes, config.x2_min_count, generator(config.seed, "x2", name))
        columns[name] = ids + begin
        begin += used
    if begin > X2_MDAY:
        raise ValueError(
            f"x2_min_count {config.x2_min_count} leaves {begin} ids, expected at most {X2_MDAY}, "
            "where the published ids of the day begin; raise it"
        )
    day = log.hours // 24
    columns["mday"] = day + X2_MDAY
    columns["hour"] = log.hours % 24 + X2_HOUR
    columns["wday"] = (day + FIRST_WEEKDAY) % 7 + X2_WDAY
    return pl.DataFrame(columns)


def encode_x4(log: ClickLog, seed: int) -> pl.DataFrame:
    """id, click, hour YYMMDDHH and the columns as the ad exchange logged them."""
    number = hash_pairs(np.arange(len(log.labels)), seed, 41) >> np.uint64(1)
    low = np.arange(len(log.labels), dtype=np.uint64)  # makes the ids different for certain
    ids = number - number % np.uint64(2**31) + low
    columns: dict[str, NDArray[np.generic] | pl.Series] = {"id": ids, "click": log.labels}
    columns["hour"] = 14_102_100 + log.hours // 24 * 100 + log.hours % 24
    for salt, (name, codes) in enumerate(zip(FIELDS, log.codes.T, strict=True)):
        if name in RAW:
            columns[name] = np.array(list(RAW[name]))[codes]
        elif name == "C20":
            columns[name] = np.where(codes == 0, -1, codes + BEGIN[name])
        elif name in BEGIN:
            columns[name] = codes * (1 if name == "C21" else 7) + BEGIN[name]
        else:
            values, places = np.unique(codes, return_inverse=True)
            names = unique_codes(int(values[-1]) + 1, 8, HEX, 50 + salt)[values].astype(str)
            columns[name] = pl.Series(names).gather(places)
    return pl.DataFrame(columns)


def _kept(codes: NDArray[np.int32], least: int) -> NDArray[np.int64]:
    return np.flatnonzero(np.bincount(codes) >= least)


def _ids(
    codes: NDArray[np.int32], least: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], int]:
    """Ids from 0 in random order, 0 for the rare, and how many ids that makes."""
    kept = _kept(codes, least)
    table = np.zeros(int(codes.max()) + 1, dtype=np.int64)
    table[kept] = rng.permutation(len(kept)) + 1
    return table[codes], len(kept) + 1


def _write_csv(path: Path, frame: pl.DataFrame, *, separator: str = ",") -> None:
    write_atomic(path, lambda file: frame.write_csv(file, separator=separator))
