"""RecBole's SASRec behind a line protocol; run by an interpreter that has RecBole, not by ours.

    PEER_PYTHON tools/peer_recbole.py FOLDER --max-len 50 --batch 256 --threads 2

FOLDER holds ``sequences.txt``, one user a line, oldest first.  The dataset is prepared once; then
each line of JSON on stdin is answered by one on stdout:

    {"do": "train", "steps": 10}      or "seconds": 75: its own loader, model and optimizer
    {"do": "evaluate"}                its own full ranking of the test items

RecBole 1.2.1 is from before numpy 2 and asks for packages that only its tuning uses; both are
patched here and nothing else is.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

ALIASES = {"bool": bool, "int": int, "float": float, "complex": complex, "object": object,
           "str": str, "long": int, "float_": np.float64, "complex_": np.complex128,
           "unicode_": np.str_, "bool8": np.bool_}  # fmt: skip


def patch() -> None:
    """What numpy 2 took away, and stand-ins for tuning packages that are never called."""
    for name, kind in ALIASES.items():
        if name not in np.__dict__:
            setattr(np, name, kind)
    for name in ("ray", "ray.tune", "hyperopt"):
        sys.modules[name] = ModuleType(name)
    sys.modules["ray"].tune = sys.modules["ray.tune"]


def write_interactions(folder: Path) -> None:
    """RecBole's atomic file of the sequences, with the order as the time."""
    target = folder / "bench" / "bench.inter"
    if target.exists():
        return
    target.parent.mkdir()
    with (folder / "sequences.txt").open() as file, target.open("w") as out:
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, line in enumerate(file):
            for place, item in enumerate(line.split()):
                out.write(f"u{user}\ti{item}\t{place}\n")


def prepare(folder: Path, options: argparse.Namespace):
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer

    given = {
        "data_path": str(folder), "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": options.max_len, "train_neg_sample_args": None,
        "loss_type": "CE", "hidden_size": 64, "inner_size": 256, "n_layers": 2, "n_heads": 2,
        "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "learning_rate": 1e-3,
        "train_batch_size": options.batch, "eval_batch_size": 4096,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "metrics": ["Hit", "NDCG"], "topk": [10], "valid_metric": "NDCG@10",
        "use_gpu": False, "seed": 1, "state": "ERROR", "show_progress": False,
        "checkpoint_dir": str(folder / "saved"),
    }  # fmt: skip
    config = Config(model="SASRec", dataset="bench", config_dict=given)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = SASRec(config, train.dataset)
    return model, train, test, Trainer(config, model)


class Session:
    """One prepared model: the loader runs on from where the last request left it."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.model, self.loader, self.test, self.trainer = prepare(folder, options)
        self.batches = iter(self.loader)

    def train(self, steps: int = 0, seconds: float = 0.0) -> dict[str, float]:
        """Steps as its trainer makes them; one target is learnt from each row."""
        self.model.train()
        done, rows, begun = 0, 0, time.perf_counter()
        while done < steps or time.perf_counter() - begun < seconds:
            batch = next(self.batches, None)
            if batch is None:
                self.batches = iter(self.loader)
                continue
            self.trainer.optimizer.zero_grad()
            loss = self.model.calculate_loss(batch)
            loss.backward()
            self.trainer.optimizer.step()
            done, rows = done + 1, rows + len(batch)
        taken = time.perf_counter() - begun
        return {"targets_per_second": rows / taken, "steps": done, "seconds": taken}

    def evaluate(self) -> dict[str, float]:
        begun = time.perf_counter()
        scores = self.trainer.evaluate(self.test, load_best_model=False, show_progress=False)
        taken = time.perf_counter() - begun
        return {"evaluation_seconds": taken, "ndcg@10": float(scores["ndcg@10"]),
                "hit@10": float(scores["hit@10"])}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-len", type=int, default=50)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.folder = options.folder.resolve()
    os.chdir(options.folder)  # RecBole keeps a log of its own wherever it is started
    patch()
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever it prints is not an answer
    write_interactions(options.folder)
    session = Session(options.folder, options)
    print(json.dumps({"ready": True, "samples": len(session.loader.dataset)}), file=answers)
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(session, request.pop("do"))(**request)), file=answers)
        answers.flush()


if __name__ == "__main__":
    main()
