"""Two claims of the sequence pipeline, in CPU seconds and on the clock; prints JSON.

    python tools/bench_dare.py sequences --batch 8192 --rounds 3
    python tools/bench_dare.py shards --rows 10000000 --folder SCRATCH

sequences  400 events, the top 60 kept, one Transformer block over them, beside the same encoder
           that attends over all; forward and backward. Also counts the rows gathered from the
           table of contents: no more than the kept events.
shards     batches gathered whole from memory-mapped shards, beside a dataset that reads a row at
           a time and collates, both shuffled; and beside a plain sequential read of the same bytes.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.data.clicks import Clicks, Layout
from lib.data.clicks_writer import seal_clicks
from lib.data.shards import write_shards
from lib.models.dare import DAREEncoder
from lib.models.dare_config import DAREConfig
from lib.models.fields import Sizes
from lib.studies.clicks import ClickSource

N_EVENTS, TOP_K, N_TOKENS, N_FIELDS, N_NUMBERS, N_MISSING = 400, 60, 600, 29, 84, 3
Timed = dict[str, float]


def measure(work: Callable[[], object], rows: int) -> Timed:
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    return {"rows_per_second": rows / clock, "rows_per_cpu_second": rows / cpu}


def median_of(rounds: list[Timed]) -> Timed:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def compare(variants: dict[str, Callable[[], Timed]], rounds: int) -> dict[str, object]:
    """Rounds of all variants, one after another; medians and the ratio of the first to the rest."""
    for work in variants.values():  # the first pass pays for memory and threads
        work()
    found: dict[str, list[Timed]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            found[name].append(work())
    medians = {name: median_of(each) for name, each in found.items()}
    first = next(iter(medians))
    ratios = {
        f"{first} over {name}": {k: medians[first][k] / each[k] for k in each}
        for name, each in medians.items()
        if name != first
    }
    return {"medians": medians, "ratios": ratios}


def bench_sequences(options: argparse.Namespace) -> dict[str, object]:
    torch.manual_seed(1)
    sizes = Sizes(n_ids=60, n_fields=2, n_tokens=N_TOKENS, max_len=N_EVENTS, field_offsets=(0, 40),
                  field_sizes=(40, 20))  # fmt: skip
    batch = {
        "categorical": torch.stack(
            [torch.randint(0, 40, (options.batch,)), torch.randint(40, 60, (options.batch,))], 1
        ),
        "sequence": torch.randint(1, N_TOKENS, (options.batch, N_EVENTS)),
        "length": torch.full((options.batch,), N_EVENTS),
    }

    def encoder(top_k: int) -> DAREEncoder:
        config = DAREConfig(sizes=sizes, d_attention=64, d_representation=48, d_time=16,
                            top_k=top_k, tau=256.0, query_mode="concat", query_fields=(0, 1),
                            n_blocks=1, n_heads=8, d_block_hidden=128)  # fmt: skip
        return DAREEncoder(config)

    def step(model: DAREEncoder) -> Timed:
        def work() -> None:
            for start in range(0, options.batch, options.piece):
                part = {name: t[start : start + options.piece] for name, t in batch.items()}
                model(part).features.square().sum().backward()
            model.zero_grad(set_to_none=True)

        return measure(work, options.batch)

    kept, whole = encoder(TOP_K), encoder(N_EVENTS)
    whole.load_state_dict(kept.state_dict())
    gathered: list[int] = []
    hook = kept.representation.tokens.register_forward_hook(
        lambda *called: gathered.append(called[1][0].numel())
    )
    kept(batch)
    hook.remove()
    found = compare({"top 60": lambda: step(kept), "all 400": lambda: step(whole)}, options.rounds)
    return {"batch": options.batch, "piece": options.piece, "events": N_EVENTS, "top_k": TOP_K,
            "content_rows_gathered_per_row": sum(gathered) / options.batch, **found}  # fmt: skip


class RowDataset(Dataset[dict[str, np.ndarray]]):
    """One row at a time, each array sliced from its memory map: what is to be beaten."""

    def __init__(self, clicks: Clicks, rows: np.ndarray) -> None:
        self.rows = rows
        self.arrays = {
            n: getattr(clicks, n) for n in ("categorical", "numeric", "missing", "label")
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, np.ndarray]:
        row = self.rows[place]
        return {name: np.array(array[row]) for name, array in self.arrays.items()}


def write_data(folder: Path, rows: int) -> Clicks:
    """Random shards of the shape of the log, two million rows each; kept for a second call."""
    size, rng = 200_000, np.random.default_rng(1)
    layout = Layout(fields=tuple(f"f{i}" for i in range(N_FIELDS)), field_sizes=(100,) * N_FIELDS,
                    numeric_names=tuple(f"x{i}" for i in range(N_NUMBERS)),
                    missing_names=tuple(f"m{i}" for i in range(N_MISSING)))  # fmt: skip
    numbers = rng.standard_normal((size, N_NUMBERS)).astype(np.float32)

    def encode(n: int) -> dict[str, np.ndarray]:
        local = np.random.default_rng(n).integers(0, 100, (n, N_FIELDS), dtype=np.int32)
        return {
            "categorical": local + layout.field_offsets.astype(np.int32),
            "numeric": numbers[:n], "missing": np.zeros((n, N_MISSING), np.uint8),
            "label": (local[:, 0] < 2).astype(np.int8), "fold": np.zeros(n, np.int16),
            "group": np.zeros(n, np.int32), "split": np.zeros(n, np.uint8),
        }  # fmt: skip

    def batches() -> Iterator[tuple[int, Callable[[], dict[str, np.ndarray]]]]:
        for start in range(0, rows, size):
            n = min(size, rows - start)
            yield n, lambda n=n: encode(n)

    found = write_shards(folder, batches(), n_rows=rows, shard_rows=2_000_000, recipe=f"{rows}")
    seal_clicks(folder, layout, found.rows, made={}, reports={}, parts={})
    return Clicks.open(folder)


def bench_shards(options: argparse.Namespace) -> dict[str, object]:
    clicks = write_data(Path(options.folder), options.rows)
    some = np.sort(np.random.default_rng(2).choice(len(clicks), options.read, replace=False))
    few = some[:: max(1, len(some) // options.read_slow)]
    width = N_FIELDS * 4 + N_NUMBERS * 4 + N_MISSING + 1

    def ours() -> Timed:
        source = ClickSource(clicks, some, batch=options.batch, seed=1)
        return measure(lambda: [len(b["label"]) for b in source.batches(0)], len(some))

    def per_row() -> Timed:
        loader = DataLoader(RowDataset(clicks, few), batch_size=options.batch, shuffle=True)
        return measure(lambda: [len(b["label"]) for b in loader], len(few))

    def sequential() -> Timed:
        files = sorted(Path(options.folder).glob("*.n*.npy"))  # numeric: most of the bytes
        total = sum(file.stat().st_size for file in files)

        def work() -> None:
            for file in files:
                array = np.load(file, mmap_mode="r", allow_pickle=False)
                for start in range(0, len(array), 65_536):
                    np.array(array[start : start + 65_536])

        return measure(work, total // width)

    RowDataset(clicks, few)  # maps and joins columns before the clock starts
    found = compare(
        {"shards": ours, "row by row": per_row, "plain read": sequential}, options.rounds
    )
    return {"rows": len(clicks), "shards": len(clicks.shard_rows), "bytes_per_row": width,
            "rows_read": len(some), "rows_read_one_by_one": len(few), "batch": options.batch,
            **found}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("sequences", "shards"))
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--piece", type=int, default=512, help="rows of a batch at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--read", type=int, default=1_000_000, help="rows read from shards")
    parser.add_argument("--read-slow", type=int, default=50_000, help="rows read one by one")
    parser.add_argument("--folder", default="data/scratch/bench_dare")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = bench_sequences(options) if options.what == "sequences" else bench_shards(options)
    told = {"command": " ".join(["python", "tools/bench_dare.py", *sys.argv[1:]]),
            "threads": options.threads, "torch": torch.__version__, **found}  # fmt: skip
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
