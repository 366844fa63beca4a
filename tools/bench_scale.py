"""What grows with what: the small simulations behind docs/scale.md. Prints JSON.

    python tools/bench_scale.py --out docs/results/scale.json   every case, each in its own process
    python tools/bench_scale.py search                          one case

prepare     the existing benchmarks of preparation at 1, 4 and 16 times the rows
vocabulary  counting distinct values at 1, 4 and 16 times as many
epoch       one epoch of DCN V2 over shards at 1, 4 and 16 times the rows
table       a step of a click model's table at 1, 4, 16 and 64 times the rows of the table
softmax     cross-entropy over a catalogue of 1, 4 and 16 times the items, full and sampled
processes   DeepFM in one process and in two that exchange gradients
search      exact ranking beside k-means lists (IVF) on 349,000 vectors of 128

CPU seconds are told, because other work on the machine does not lengthen them.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.data.files import write_atomic  # noqa: E402
from lib.models.tables import Table  # noqa: E402
from lib.studies.speed import describe_machine, read_answers  # noqa: E402
from lib.train.catalogue import full_softmax, sampled_softmax  # noqa: E402
from lib.train.optimizers import Optimizer  # noqa: E402
from lib.train.plan import Plan  # noqa: E402

Answer = dict[str, Any]
BATCH, FIELDS = 4_096, 22


def cpu_seconds(*, children: bool = False) -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def ask(command: str) -> Answer:
    """One of the other benchmarks; its CPU seconds, generating rows included, and its answer."""
    before, (script, *words) = cpu_seconds(children=True), command.split()
    ran = subprocess.run([sys.executable, str(ROOT / "tools" / script), *words],
                         check=True, stdout=subprocess.PIPE, text=True)  # fmt: skip
    used = round(cpu_seconds(children=True) - before, 2)
    return {"command": f"python tools/{command}", "cpu_seconds": used,
            "answer": read_answers(ran.stdout)[-1]}  # fmt: skip


def prepare() -> Answer:
    """Reviews to histories, and a parquet of 119 columns to shards; CPU of the preparing alone."""
    histories, clicklog = [], []
    for reviews in (50_000, 200_000, 800_000):
        told = ask(f"bench_histories.py --reviews {reviews}")["answer"]
        histories.append(
            {"reviews": reviews, "kept": told["rows"][-1]}
            | {name: told[name] for name in ("cpu_seconds", "seconds", "peak_gib")}
        )
    for rows in (75_000, 300_000, 1_200_000):
        with tempfile.TemporaryDirectory() as folder:
            told = ask(f"bench_clicks.py toss --rows {rows} --folder {folder}")["answer"]
        clicklog.append({kind: {name: one[name] for name in ("rows", "cpu_seconds", "own_peak_mb")}
                         for kind, one in told.items()})  # fmt: skip
    note = "CPU of a process that imports, prepares and ends; own peak: without mapped files"
    return {"histories": histories, "clicklog": clicklog, "note": note}


def epoch() -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        rows = "50000 200000 800000"
        return ask(f"bench_large_log.py --rows {rows} --threads 1 --folder {folder}")


def vocabulary() -> Answer:
    """Distinct strings of eight characters, each met four times, counted and sorted."""
    import polars as pl

    from lib.data.vocabulary import fit_vocabulary

    lines = []
    for distinct in (250_000, 1_000_000, 4_000_000):
        codes = np.random.default_rng(1).permutation(np.repeat(np.arange(distinct), 4))
        text = pl.Series("value", codes).cast(pl.String).str.zfill(8)
        before = cpu_seconds()
        counted = text.value_counts()
        found = fit_vocabulary("field", counted, min_count=2)
        lines.append({"distinct": distinct, "cpu_seconds": round(cpu_seconds() - before, 2),
                      "bytes_kept": int(found.values.estimated_size() + found.counts.nbytes),
                      "peak_mib": peak_mib()})  # fmt: skip
    return {"lines": lines}


def table() -> Answer:
    """Lookup, backward and update: touched rows only, and all rows."""
    lines = []
    for rows in (100_000, 400_000, 1_600_000, 6_400_000):
        line: Answer = {"rows": rows, "mib": round(rows * 17 * 4 / 2**20, 1)}
        for kind in ("lazy", "dense"):
            if kind == "lazy" or rows <= 1_600_000:
                line[f"{kind}_cpu_ms"] = table_step(rows, lazy=kind == "lazy")
        lines.append(line)
    return {"batch": BATCH, "fields": FIELDS, "width": 17, "lines": lines}


def table_step(rows: int, *, lazy: bool, steps: int = 12) -> float:
    generator = torch.Generator().manual_seed(1)
    ids = (rows ** torch.rand(steps, BATCH, FIELDS, generator=generator)).long().clamp(max=rows - 1)
    weights = Table(rows, 17, lazy=lazy)
    optimizer, used = Optimizer(weights, Plan(learning_rate=1e-3, seed=1, steps=1)), []
    for batch in ids:
        before = cpu_seconds()
        weights(batch).square().sum().backward()
        optimizer.step(optimizer.touched() if lazy else [], 1.0)
        used.append(cpu_seconds() - before)
    return round(1e3 * float(np.median(used)), 1)


def softmax() -> Answer:
    """A step of 512 positions over the catalogue, d=64, and the same with 8,192 sampled items."""
    lines = []
    for items in (12_500, 50_000, 200_000):
        generator = torch.Generator().manual_seed(1)
        hidden = torch.randn(512, 64, generator=generator).requires_grad_()
        targets = torch.randint(0, items, (512,), generator=generator)
        drawn = torch.randint(0, items, (8_192,), generator=generator)
        whole = torch.randn(items, 64, generator=generator).mul_(0.1).requires_grad_()
        rows = Table(items, 64, lazy=True)
        optimizer = Optimizer(rows, Plan(learning_rate=1e-3, seed=1, steps=1))
        used: dict[str, list[float]] = {"full": [], "sampled": []}
        for _ in range(5):
            before = cpu_seconds()
            full_softmax(hidden, whole, targets).backward()
            used["full"].append(cpu_seconds() - before)
            before = cpu_seconds()
            own, others = rows(torch.cat([targets, drawn])).split([512, 8_192])
            sampled_softmax(hidden, own, others, targets=targets, negative_ids=drawn,
                            expected=torch.full((8_192,), 8_192 / items)).backward()  # fmt: skip
            used["sampled"].append(cpu_seconds() - before)
            optimizer.step(optimizer.touched(), 1.0)
        told = {f"{kind}_cpu_ms": round(1e3 * float(np.median(s)), 1) for kind, s in used.items()}
        lines.append({"items": items} | told)
    return {"positions": 512, "d": 64, "lines": lines}


def processes() -> Answer:
    answer: Answer = ask("bench_processes.py")["answer"]
    return answer


def search() -> Answer:
    """Recall of the exact first ten among those found in the nearest lists, and its cost."""
    found: Answer = {"items": 349_000, "d": 128, "queries": 256, "lists": 590}
    for kind in ("random", "in 2,000 clusters"):
        items, queries = vectors(kind)
        before = cpu_seconds()
        exact = (queries @ items.T).topk(10).indices
        line: Answer = {"exact_cpu_ms_per_query": per_query(before)}
        before = cpu_seconds()
        centres, owner = cluster(items, lists=590)
        line["build_cpu_seconds"] = round(cpu_seconds() - before, 1)
        order, starts = owner.argsort(), owner.bincount(minlength=590).cumsum(0)
        lists = torch.tensor_split(order, starts[:-1])
        line["probes"] = [probe(items, queries, centres, lists, exact, n) for n in (1, 4, 16, 64)]
        found[kind] = line
    return found


def vectors(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    items = torch.randn(349_000, 128, generator=generator)
    if kind != "random":
        centres = torch.randn(2_000, 128, generator=generator)
        items = centres[torch.randint(0, 2_000, (349_000,), generator=generator)] + 0.7 * items
    near = torch.randint(0, len(items), (256,), generator=generator)
    queries = items[near] + torch.randn(256, 128, generator=generator)
    unit = nn.functional.normalize
    return unit(items, dim=1), unit(queries, dim=1)


def cluster(items: Tensor, *, lists: int, passes: int = 8) -> tuple[Tensor, Tensor]:
    """Spherical k-means: unit centres and the list of each item."""
    generator = torch.Generator().manual_seed(2)
    centres = items[torch.randperm(len(items), generator=generator)[:lists]].clone()
    for _ in range(passes):
        owner = torch.cat([(part @ centres.T).argmax(1) for part in items.split(32_768)])
        summed = torch.zeros_like(centres).index_add_(0, owner, items)
        empty = summed.norm(dim=1) == 0
        centres = torch.where(empty[:, None], centres, nn.functional.normalize(summed, dim=1))
    return centres, torch.cat([(part @ centres.T).argmax(1) for part in items.split(32_768)])


def probe(items: Tensor, queries: Tensor, centres: Tensor, lists: tuple[Tensor, ...],
          exact: Tensor, n: int) -> Answer:  # fmt: skip
    before, hits, read = cpu_seconds(), 0, 0
    for query, wanted in zip(queries, exact, strict=True):
        nearest = (centres @ query).topk(n).indices.tolist()
        candidates = torch.cat([lists[number] for number in nearest])
        scores = items[candidates] @ query
        top = candidates[scores.topk(min(10, len(candidates))).indices]
        hits, read = hits + int(torch.isin(wanted, top).sum()), read + len(candidates)
    return {"lists_read": n, "recall@10": round(hits / exact.numel(), 4),
            "share_of_items_read": round(read / len(queries) / len(items), 4),
            "cpu_ms_per_query": per_query(before)}  # fmt: skip


def per_query(before: float) -> float:
    return round(1e3 * (cpu_seconds() - before) / 256, 3)


CASES: dict[str, Callable[[], Answer]] = {
    case.__name__: case for case in (prepare, vocabulary, epoch, table, softmax, processes, search)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--out", type=Path, help="write all cases here")
    parser.add_argument("--busy", action="store_true", help="say that others used the machine")
    parser.add_argument(
        "--how", default="", help="said beside the cases: what else ran, which cores"
    )
    options = parser.parse_args()
    if len(options.case) == 1 and options.out is None:
        torch.set_num_threads(1)
        print(json.dumps(CASES[options.case[0]]()))
        return
    told: Answer = {"about": "What docs/scale.md rests on; one thread",
                    "command": "python tools/bench_scale.py --out docs/results/scale.json",
                    "machine": describe_machine(), "machine_was_busy": options.busy}  # fmt: skip
    if options.out and options.out.is_file():
        told = json.loads(options.out.read_text("utf-8")) | told
    for case in options.case or CASES:
        ran = subprocess.run([sys.executable, __file__, case], stdout=subprocess.PIPE, text=True,
                             check=True)  # fmt: skip
        told[case] = {"command": f"python tools/bench_scale.py {case}",
                      **({"how": options.how} if options.how else {}),
                      **json.loads(ran.stdout.splitlines()[-1])}  # fmt: skip
    text = json.dumps(told, indent=1, ensure_ascii=False)
    flat = re.sub(r"\[\s+([^\[\]{}]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    write_atomic(options.out, f"{flat}\n".encode()) if options.out else print(flat)


if __name__ == "__main__":
    main()
