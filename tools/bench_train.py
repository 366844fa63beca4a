"""Speed and memory of training's bricks, each in a process of its own; prints JSON lines.

python tools/bench_train.py            all cases: large catalogue, table optimizers, sources
python tools/bench_train.py ce_ours    one case alone, as the parent runs it
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from lib.models.tables import Table
from lib.train.losses import full_softmax
from lib.train.optimizers import Optimizer
from lib.train.plan import Plan
from lib.train.sources import TensorSource

N, V, D = 1_600, 349_000, 128  # positions, items, dimensions
ROWS, FIELDS, BATCH = 824_170, 22, 4_096  # table rows, fields and batch of the click setting


def catalogue() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(N, D, generator=generator).requires_grad_()
    table = torch.randn(V, D, generator=generator).mul_(0.1).requires_grad_()
    return hidden, table, torch.randint(0, V, (N,), generator=generator)


def cross_entropy(loss: Callable[..., torch.Tensor], *, half: bool = False) -> dict[str, float]:
    hidden, table, targets = catalogue()
    hidden.grad, table.grad = torch.zeros_like(hidden), torch.zeros_like(table)  # in the baseline
    before, seconds = peak_bytes(), []
    for _ in range(3):
        hidden.grad.zero_(), table.grad.zero_()
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            value = loss(hidden, table, targets)
        value.backward()
        seconds.append(time.perf_counter() - started)
    print_to_parent(hidden.grad, table.grad)
    return {
        "seconds": min(seconds),
        "extra_mib": (peak_bytes() - before) / 2**20,
        "loss": float(value.detach()),
    }


def print_to_parent(*gradients: torch.Tensor) -> None:
    """Gradients go to files, so that the parent compares what two processes computed."""
    folder = os.environ.get("BENCH_GRADIENTS")
    if folder:
        from safetensors.torch import save_file

        tensors = {str(index): gradient for index, gradient in enumerate(gradients)}
        save_file(tensors, Path(folder) / f"{sys.argv[1]}.safetensors")


def plain(hidden: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(hidden @ table.T, targets)


def table_step(kind: str) -> dict[str, float]:
    """Lookup, backward and update of one table of click ids, zipf-like."""
    generator = torch.Generator().manual_seed(1)
    uniform = torch.rand(40, BATCH, FIELDS, generator=generator)
    ids = (ROWS**uniform).long().clamp(max=ROWS - 1)
    table = Table(ROWS, 17, lazy=kind != "dense")
    tables = "row_adagrad" if kind == "row_adagrad" else "lazy_adam"
    plan = Plan(learning_rate=1e-3, seed=1, steps=1, tables=tables)
    optimizer = Optimizer(table, plan)
    seconds = []
    for batch in ids:
        started = time.perf_counter()
        table(batch).square().sum().backward()
        optimizer.step(optimizer.touched() if kind != "dense" else [], 1.0)
        seconds.append(time.perf_counter() - started)
    return {"milliseconds": sorted(seconds)[len(seconds) // 2] * 1e3}


def switch(name: str) -> dict[str, float]:
    """One step of a deep MLP with a switch on or off; the first compiled step is not counted."""
    layers = [torch.nn.Sequential(torch.nn.Linear(400, 400), torch.nn.ReLU()) for _ in range(12)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), fused=name == "fused")
    if name == "compile":
        model.compile()
    x, seconds = torch.randn(BATCH, 400), []
    for _ in range(12):
        started = time.perf_counter()
        if name == "checkpointing":
            out = torch.utils.checkpoint.checkpoint_sequential(layers, 4, x, use_reentrant=False)
        else:
            out = model(x)
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return {"milliseconds": sorted(seconds)[6] * 1e3, "peak_mib": peak_bytes() / 2**20}


def read_source() -> dict[str, float]:
    n = 2_000_000
    arrays = {"ids": torch.randint(0, ROWS, (n, FIELDS), dtype=torch.int32), "y": torch.zeros(n)}
    source = TensorSource(arrays, batch=BATCH, seed=1)
    started = time.perf_counter()
    rows = sum(len(batch["y"]) for batch in source.batches(0))
    return {"rows_per_second": rows / (time.perf_counter() - started)}


CASES: dict[str, Callable[[], dict[str, float]]] = {
    "ce_plain": lambda: cross_entropy(plain),
    "ce_ours": lambda: cross_entropy(full_softmax),
    "ce_plain_bfloat16": lambda: cross_entropy(plain, half=True),
    "ce_ours_bfloat16": lambda: cross_entropy(full_softmax, half=True),
    "table_dense_adam": lambda: table_step("dense"),
    "table_lazy_adam": lambda: table_step("lazy_adam"),
    "table_row_adagrad": lambda: table_step("row_adagrad"),
    "source": read_source,
    "switches_off": lambda: switch("none"),
    "switch_fused": lambda: switch("fused"),
    "switch_compile": lambda: switch("compile"),
    "switch_checkpointing": lambda: switch("checkpointing"),
}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    if len(sys.argv) > 1:
        torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
        print(json.dumps({"case": sys.argv[1], **CASES[sys.argv[1]]()}))
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"BENCH_GRADIENTS": folder}
        for case in CASES:
            subprocess.run([sys.executable, __file__, case], env=environment, check=True)
        from safetensors.torch import load_file

        ours, theirs = (load_file(Path(folder) / f"ce_{k}.safetensors") for k in ("ours", "plain"))
        differences = [float((ours[k] - theirs[k]).abs().max()) for k in ours]
        largest = [float(theirs[k].abs().max()) for k in ours]
        print(json.dumps({"case": "ce_gradients", "difference": differences, "largest": largest}))


if __name__ == "__main__":
    main()
