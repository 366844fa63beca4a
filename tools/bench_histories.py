"""How long raw reviews take to become Histories, and in how much memory.

    python tools/bench_histories.py --reviews 5000000

Writes reviews in the format of Amazon Reviews 2023 (heavy-tailed users and items, texts of 50 to
600 characters, gzip), prepares them in a process of its own, opens the result, and prints JSON:
seconds by step, CPU seconds and peak memory of the preparing process, counts.
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CHUNK = 100_000
TEXT = "Sturdy, smaller than it looks, and it came two days early with a dent in the box. " * 8
FIRST_MS, SPAN_MS = 1_262_304_000_000, 430_000_000_000  # 2010 and about 13.6 years


def write_reviews(folder: Path, n_reviews: int, seed: int) -> int:
    """Reviews and metadata; returns the bytes before compression."""
    rng = np.random.default_rng(seed)
    n_users, n_items = max(10, n_reviews // 5), max(10, n_reviews // 40)
    names = rng.permutation(n_items)
    written = 0
    with gzip.open(folder / "Bench.jsonl.gz", "wb", compresslevel=1) as file:
        for start in range(0, n_reviews, CHUNK):
            n = min(CHUNK, n_reviews - start)
            users = (n_users * rng.random(n) ** 2.5).astype(np.int64)
            items = names[(n_items * rng.random(n) ** 3).astype(np.int64)]
            times = FIRST_MS + (SPAN_MS * rng.random(n)).astype(np.int64)
            sizes, stars = rng.integers(50, 600, n), rng.integers(1, 6, n)
            columns = (
                users.tolist(),
                items.tolist(),
                times.tolist(),
                sizes.tolist(),
                stars.tolist(),
            )
            block = "".join(
                f'{{"rating": {star}.0, "title": "As shown", "text": "{TEXT[:size]}", '
                f'"images": [], "asin": "B{item + 7:09d}", "parent_asin": "B{item:09d}", '
                f'"user_id": "A{user:027d}", "timestamp": {moment}, "helpful_vote": 0, '
                f'"verified_purchase": true}}\n'
                for user, item, moment, size, star in zip(*columns, strict=True)
            ).encode()
            written += len(block)
            file.write(block)
    with gzip.open(folder / "meta_Bench.jsonl.gz", "wt", compresslevel=1) as file:
        for item in range(n_items):
            title = f"Kettle number {item} with lid, 1.7 l, &quot;steel&quot;"
            row = {"parent_asin": f"B{item:09d}", "title": title, "main_category": "Kitchen"}
            file.write(json.dumps(row) + "\n")
    return written


def prepare(folder: Path, split: str) -> dict[str, object]:
    """What notebook 10 does, timed step by step."""
    from lib.data.filters import Filters, filter_interactions
    from lib.data.histories import Histories
    from lib.data.prepare import build_histories, judge_items, read_raw

    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def lap(name: str) -> None:
        seconds[name] = round(time.perf_counter() - began - sum(seconds.values()), 2)

    raw = read_raw(folder, "amazon-2023")
    lap("read")
    raw, judged = judge_items(raw, "full", 20)
    lap("titles")
    filters = Filters(
        min_rating=0.0, repeats="first", user_core=5, item_core=5, start="", end="", min_items=0,
    )  # fmt: skip
    kept, funnel = filter_interactions(raw.rows, filters, judged.usable)
    lap("filters and k-core")
    out = folder / "histories"
    histories = build_histories(out, kept, raw.items, split=split, made={})  # type: ignore[arg-type]
    lap("split and write")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    total = round(time.perf_counter() - began, 2)
    cpu = round(time.process_time(), 2)  # imports included; says more on a busy machine
    began = time.perf_counter()
    Histories.open(out)
    opened = time.perf_counter() - began
    return {
        "seconds": seconds,
        "total_seconds": total,
        "cpu_seconds": cpu,
        "peak_gib": round(peak / 2**30, 2),
        "open_seconds": round(opened, 4),
        "kept": {"users": histories.n_users, "items": histories.n_items},
        "rows": [step["rows"] for step in funnel.steps],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=int, default=5_000_000)
    parser.add_argument("--split", choices=("last", "temporal", "ratio"), default="last")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)  # the measured process
    options = parser.parse_args()
    if options.prepare:
        print(json.dumps(prepare(options.prepare, options.split)))
        return
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        size = write_reviews(Path(name), options.reviews, options.seed)
        made = time.perf_counter() - began
        command = [sys.executable, __file__, "--prepare", name, "--split", options.split]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = {
            "reviews": options.reviews,
            "raw_gib": round(size / 2**30, 2),
            "generating_seconds": round(made, 1),
            **json.loads(done.stdout),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
