"""What a row costs where two processes exchange gradients, beside one process. Prints JSON.

    python tools/bench_processes.py
    python tools/bench_processes.py --rounds 1 --steps 20    # a try

DeepFM of the click setting: 22 fields, 400,000 ids, embedding 16, MLP 400 x 3, a step of 4,096 rows
whatever the number of processes, one thread each. Each round trains first one process, then two, on
the same rows; their losses are equal where the gradients are really exchanged. CPU is that of all
threads of all training processes, from one call of the loss to a later one: what a process takes to
start (torch's compiler alone loads for 1.6 s) is before the first.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.models.fields import Sizes  # noqa: E402
from lib.models.ladder import build_click_model  # noqa: E402
from lib.train.loop import train  # noqa: E402
from lib.train.losses import binary_cross_entropy  # noqa: E402
from lib.train.plan import Plan  # noqa: E402
from lib.train.sources import TensorSource  # noqa: E402

BATCH, FIELDS, IDS, WARM = 4_096, 22, 400_000, 8
SIZES = {"d_embedding": 16, "hidden": [400, 400, 400], "dropout": 0.0}
PRODUCTS = FIELDS * 16 * 400 + 2 * 400 * 400 + 400  # multiplications of a row in the MLP, forward


class TensorClicks(nn.Module):
    """DeepFM in a form that can be sent to other processes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_click_model("deepfm", Sizes(n_ids=IDS, n_fields=FIELDS), SIZES)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.inner({"categorical": ids})
        return logits


@dataclass(kw_only=True)
class ClockedLoss:
    """The loss; at its last call it leaves CPU, clock and rows of each call in a file.

    Between two calls lie the backward pass, the exchange, the update and the next batch.
    """

    folder: Path
    steps: int
    laps: list[tuple[float, float, int]] = field(default_factory=list)

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        self.laps.append((time.process_time(), time.perf_counter(), len(batch["y"])))
        if len(self.laps) == self.steps:
            (self.folder / f"{os.getpid()}.json").write_text(json.dumps(self.laps))
        return binary_cross_entropy(model(batch["ids"]), batch["y"])


def train_with(count: int, steps: int) -> dict[str, float]:
    """Rates after the first steps, all within one epoch, so that nothing is saved between them."""
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    ids = (IDS ** torch.rand(steps * BATCH, FIELDS, generator=generator)).int().clamp(max=IDS - 1)
    source = TensorSource({"ids": ids, "y": (ids[:, 0] % 7 == 0).float()}, batch=BATCH, seed=1)
    plan = Plan(learning_rate=1e-3, seed=1, epochs=1, processes=count, checkpoint_seconds=3_600,
                precision="bfloat16")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        loss = ClockedLoss(folder=Path(name), steps=steps)
        result = train(TensorClicks(), source, loss, plan=plan)
        laps = np.array([json.loads(path.read_text()) for path in Path(name).glob("*.json")])
    if len(laps) != count:
        raise RuntimeError(f"{count} processes were asked for, {len(laps)} trained")
    cpu, clock, rows = (laps[:, WARM:, place] for place in range(3))  # each (processes, steps)
    trained = float(rows[:, :-1].sum())
    return {"rows": trained, "loss": result.history[-1]["loss"],
            "rows_per_cpu_second": trained / float((cpu[:, -1] - cpu[:, 0]).sum()),
            "rows_per_second": trained / float((clock[:, -1] - clock[:, 0]).max())}  # fmt: skip


def summed_up(count: int, rounds: list[dict[str, float]]) -> dict[str, object]:
    """Medians and ranges of the rounds of one number of processes."""
    line: dict[str, object] = {"processes": count, "rows_a_round": int(rounds[0]["rows"]),
                               "loss": round(rounds[0]["loss"], 5)}  # fmt: skip
    for name in ("rows_per_cpu_second", "rows_per_second"):
        rates = [one[name] for one in rounds]
        line |= {
            name: round(median(rates)),
            f"{name}_range": [round(min(rates)), round(max(rates))],
        }
    middle = median(one["rows_per_cpu_second"] for one in rounds)
    return line | {"mlp_gflop_per_cpu_second": round(6e-9 * PRODUCTS * middle)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    if options.steps < WARM + 2:
        parser.error(f"--steps {options.steps}: the first {WARM} do not count; give {WARM + 2}")
    torch.set_num_threads(1)
    rounds = [{n: train_with(n, options.steps) for n in (1, 2)} for _ in range(options.rounds)]
    lines = [summed_up(n, [one[n] for one in rounds]) for n in (1, 2)]
    more = [one[1]["rows_per_cpu_second"] / one[2]["rows_per_cpu_second"] for one in rounds]
    answer = {"model": "DeepFM, 22 fields, 400,000 ids, 400 x 3, bfloat16", "batch": BATCH,
              "mlp_flop_per_row": 6 * PRODUCTS, "lines": lines,
              "cpu_per_row_of_two_over_one": round(median(more), 2)}  # fmt: skip
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
