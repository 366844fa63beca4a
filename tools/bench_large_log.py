"""Does an epoch grow with the rows alone, and does memory stay flat? Prints JSON.

    python tools/bench_large_log.py --rows 1000000 10000000 --folder SCRATCH

Random shards of the shape of the Toss log (29 fields, 84 numbers, 3 missing flags, label: 117
columns, and two the split needs), one epoch of DCN V2 over all of them through the loop that every
notebook uses, each size in a process of its own.  Peak memory is told twice: with the pages of the
memory-mapped files that the kernel may take back at any time, and without them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from bench_clicks import MemoryWatch  # noqa: E402
from bench_dare import write_data  # noqa: E402

from lib.models.ladder import build_click_model, sizes_of  # noqa: E402
from lib.studies.clicks import ClickLoss, ClickSource, LossSettings  # noqa: E402
from lib.train.loop import train  # noqa: E402
from lib.train.plan import Plan  # noqa: E402

MODEL = {"d_embedding": 4, "n_cross": 2, "hidden": [64], "dropout": 0.1}


def one_epoch(rows: int, options: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    folder = Path(options.folder) / str(rows)
    clicks = write_data(folder, rows)
    watch = MemoryWatch()
    watch.start()
    model = build_click_model("dcnv2", sizes_of(clicks.layout, max_len=0), MODEL)
    source = ClickSource(clicks, np.arange(rows), batch=options.batch, seed=1)
    plan = Plan(learning_rate=1e-3, seed=1, epochs=1)
    start = time.perf_counter()
    train(model, source, ClickLoss(LossSettings(kind="plain"), 0.02), plan=plan)
    seconds = time.perf_counter() - start
    return {
        "rows": rows, "seconds": round(seconds, 1), "rows_per_second": round(rows / seconds),
        "bytes_on_disk": sum(f.stat().st_size for f in folder.glob("*.npy")),
        "peak_bytes": watch.all, "peak_bytes_without_mapped_files": watch.own,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", default="data/scratch/bench_large_log")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(one_epoch(options.rows[0], options)))
        return
    sizes = []
    for rows in options.rows:
        again = [sys.executable, __file__, "--child", "--rows", str(rows)]
        again += ["--batch", str(options.batch), "--threads", str(options.threads)]
        again += ["--folder", options.folder]
        said = subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True).stdout
        sizes.append(json.loads(said.splitlines()[-1]))
    first, last = sizes[0], sizes[-1]
    told = {
        "command": " ".join(["python", "tools/bench_large_log.py", *sys.argv[1:]]),
        "model": MODEL, "batch": options.batch, "threads": options.threads,
        "torch": torch.__version__, "sizes": sizes,
        "rows_ratio": last["rows"] / first["rows"],
        "seconds_ratio": last["seconds"] / first["seconds"],
    }  # fmt: skip
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
