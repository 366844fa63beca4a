"""Speed and memory of preparing click logs, each measured in a process of its own; prints JSON.

    python tools/bench_clicks.py normalise --rows 4000000   ours beside pandas, same result checked
    python tools/bench_clicks.py growth --rows 1000000      1, 4 and 16 times the rows
    python tools/bench_clicks.py toss --rows 1000000        parquet of 119 columns to shards
    python tools/bench_clicks.py open --rows 4000000        opening a prepared dataset

Rows are generated into --folder (a temporary one by default) and kept there for the next run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.data.avazu import CONTENT, FEATURES, TEXT, normalise_avazu  # noqa: E402
from lib.data.clicks import Clicks  # noqa: E402
from lib.data.covisits import CovisitPlan  # noqa: E402
from lib.data.encode import encode_table  # noqa: E402
from lib.data.fit import Piece, Recipe  # noqa: E402
from lib.data.toss import ClicklogOptions, choose_columns, prepare_clicklog  # noqa: E402
from lib.data.world.config import WorldConfig  # noqa: E402
from lib.data.world.simulate import FOLDERS, make_world, write_world  # noqa: E402

SIZES = {"site_id": 4_000, "site_domain": 5_000, "app_id": 6_000, "device_id": 400_000,
         "device_ip": 1_500_000, "device_model": 7_000, "C14": 2_500}  # fmt: skip


def write_x4(path: Path, n_rows: int, *, part: int = 500_000) -> None:
    """Rows in the format of x4, heavy-tailed in every column."""
    if path.is_file():
        return
    rng = np.random.default_rng(1)
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        for start in range(0, n_rows, part):
            n = min(part, n_rows - start)
            columns: dict[str, object] = {"id": rng.integers(10**18, 9 * 10**18, n)}
            columns["click"] = (rng.random(n) < 0.17).astype(np.int8)
            columns["hour"] = 14_102_100 + rng.integers(0, 10, n) * 100 + rng.integers(0, 24, n)
            for name in CONTENT:
                codes = (rng.random(n) ** 4 * SIZES.get(name, 60)).astype(np.int64)
                mixed = codes * 2_654_435_761 % 2**32
                columns[name] = [f"{code:08x}" for code in mixed] if name in TEXT else codes
            pl.DataFrame(columns).write_csv(file, include_header=start == 0)
    temporary.replace(path)


def normalise_with_pandas(source: Path, target: Path, *, vectorised: bool) -> None:
    """The straightforward way: all of the file in memory, the hour by ``apply`` as scripts do.

    ``vectorised`` computes the hour with arithmetic, the best that can be said for this way.
    """
    import pandas as pd

    types = dict.fromkeys(TEXT, str) | {"id": str}
    table = pd.read_csv(source, dtype=types)
    if not table["click"].isin([0, 1]).all():
        raise ValueError("labels other than 0 and 1")
    result = pd.DataFrame({"label": table["click"].astype("int32")})
    for name, feature in zip(CONTENT, FEATURES, strict=True):
        column = table[name]
        result[feature] = column if name in TEXT else column.astype("int32")
    result["split"] = np.uint8(0)
    if vectorised:
        result["hour"] = (table["hour"] % 100).astype("int32")
    else:
        result["hour"] = table["hour"].apply(lambda stamp: int(str(stamp)[6:8])).astype("int32")
    if not result["hour"].between(0, 23).all():
        raise ValueError("hours outside the day")
    result.to_parquet(target, index=False)


class MemoryWatch(threading.Thread):
    """The largest resident memory of this process, in all and without mapped files (bytes)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.all, self.own = 0, 0

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text("ascii").splitlines()
            found = {
                line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")
            }
            own = 1024 * int(found["RssAnon"])
            self.own = max(self.own, own)
            self.all = max(self.all, own + 1024 * int(found["RssFile"]))
            time.sleep(0.05)


def prepare_toss(folder: Path, target: Path, covisits: bool) -> None:
    train = folder / "toss" / "train.parquet"
    recipe = Recipe(
        categorical=choose_columns(
            train, ("gender", "age_group", "inventory_id", "hour", "l_feat_*")
        ),
        numeric=choose_columns(train, ("feat_*", "history_*")),
        sequence="seq",
        group="inventory_id",
        min_count=10,
    )
    options = ClicklogOptions(n_splits=3)
    if covisits:
        plans = (CovisitPlan(target="inventory_id"), CovisitPlan(target="l_feat_14"))
        options = replace(options, covisits=plans)
    prepare_clicklog(target, train, folder / "toss" / "test.parquet", recipe, options)


def work(task: str, source: Path, target: Path) -> None:
    """What one measured process does; it reports its own seconds and its own peak."""
    started, watch = time.perf_counter(), MemoryWatch()
    watch.start()
    match task:
        case "ours":
            normalise_avazu(source, target, variant="x4")
        case "pandas" | "pandas_vectorised":
            normalise_with_pandas(source, target, vectorised=task == "pandas_vectorised")
        case "encode":
            rows = pl.scan_parquet(source).select(pl.len()).collect().item()
            piece = Piece(name="train", path=source, split=pl.col("split"), n_rows=rows)
            recipe = Recipe(categorical=(*FEATURES, "hour"), min_count=2)
            encode_table(target, [piece], recipe, made={})
        case "toss" | "toss_covisits":
            prepare_toss(source, target, task == "toss_covisits")
        case "open":
            clicks = Clicks.open(target)
            seconds = time.perf_counter() - started
            rows = np.random.default_rng(0).integers(0, len(clicks), 8192)
            clicks.take(rows)
            report(seconds, watch)
            return
    report(time.perf_counter() - started, watch)


def report(seconds: float, watch: MemoryWatch) -> None:
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    cpu = time.process_time()  # of all threads, imports included: says more on a busy machine
    found = {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3)}
    found |= {"peak_mb": round(peak / 1024, 1), "own_peak_mb": round(watch.own / 2**20, 1)}
    print(json.dumps(found))


def measure(task: str, source: Path, target: Path, rounds: int = 1) -> dict[str, float]:
    """The fastest of several rounds, each in a fresh process."""
    found = []
    for _ in range(rounds):
        if target.is_dir():
            remove(target)
        command = [sys.executable, __file__, "work", task, str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{task} failed: {done.stderr.strip()[-800:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return min(found, key=lambda one: one["seconds"])


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()


def same_tables(left: Path, right: Path) -> bool:
    """Equal cell by cell, compared a column at a time."""
    for name in ("label", *FEATURES, "split", "hour"):  # ours has the hash of the id as well
        one, two = (pl.read_parquet(path, columns=[name])[name] for path in (left, right))
        if not one.cast(two.dtype).equals(two):
            return False
    return True


def bench_normalise(folder: Path, rows: int, rounds: int) -> dict[str, object]:
    source = folder / f"x4_{rows}.csv"
    write_x4(source, rows)
    ours = measure("ours", source, folder / "ours.parquet", rounds)
    pandas = measure("pandas", source, folder / "pandas.parquet", rounds)
    return {
        "rows": rows,
        "ours": ours,
        "pandas": pandas,
        "pandas_vectorised": measure("pandas_vectorised", source, folder / "p.parquet", rounds),
        "times_faster": round(pandas["seconds"] / ours["seconds"], 2),
        "share_of_memory": round(ours["peak_mb"] / pandas["peak_mb"], 3),
        "same_result": same_tables(folder / "ours.parquet", folder / "pandas.parquet"),
    }


def bench_growth(folder: Path, rows: int, rounds: int) -> dict[str, object]:
    found = {}
    for times in (1, 4, 16):
        source = folder / f"x4_{rows * times}.csv"
        write_x4(source, rows * times)
        one = measure("ours", source, folder / f"growth{times}.parquet", rounds)
        found[times] = one | {"rows_per_second": round(rows * times / one["seconds"])}
        source.unlink()
    speed = [one["rows_per_second"] for one in found.values()]
    peak = [one["peak_mb"] for one in found.values()]
    return {
        "rows": rows,
        "by_factor": found,
        "time_spread": round(max(speed) / min(speed) - 1, 3),
        "memory_spread": round(max(peak) / min(peak) - 1, 3),
    }


def bench_toss(folder: Path, rows: int, rounds: int) -> dict[str, object]:
    world = folder / f"world_{rows}"
    if not (world / "truth").is_dir():
        small = WorldConfig(seed=1, n_users=3_000, n_items=1_500, n_avazu=0, n_toss=rows)
        write_world(make_world(small), {name: world / name for name in FOLDERS})
    found = {}
    for task in ("toss", "toss_covisits"):
        one = measure(task, world, folder / task, rounds)
        n = len(Clicks.open(folder / task))
        found[task] = one | {"rows": n, "rows_per_second": round(n / one["seconds"])}
    return found


def bench_open(folder: Path, rows: int, rounds: int) -> dict[str, object]:
    source, target = folder / f"x4_{rows}.csv", folder / "opened"
    write_x4(source, rows)
    measure("ours", source, folder / "open.parquet")
    encode = measure("encode", folder / "open.parquet", target)
    command = [sys.executable, __file__, "work", "open", str(source), str(target)]
    found = []
    for _ in range(max(rounds, 3)):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout)["seconds"])
    return {"rows": rows, "encode": encode, "open_seconds": min(found)}


def main() -> None:
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    benches = {"normalise": bench_normalise, "growth": bench_growth, "toss": bench_toss,
               "open": bench_open}  # fmt: skip
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bench", choices=sorted(benches))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="bench-clicks-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(benches[chosen.bench](folder, chosen.rows, chosen.rounds), indent=1))


if __name__ == "__main__":
    main()
