"""A small DARE + QNN-α run, also as a process that kills itself in its second fold."""

import os
import signal
import sys
from pathlib import Path

import torch

from lib.studies.clicks import LossSettings
from lib.studies.climb import Recipe, train_recipe
from lib.studies.crossfit import make_protocol
from lib.studies.sequence_clicks import sequence_model
from lib.train.plan import Plan
from tests.studies.clicklog import Log

MAX_LEN, TOP_K = 5, 3
ENCODER = {"d_attention": 4, "d_representation": 4, "d_time": 2, "top_k": TOP_K, "tau": 4.0,
           "query_mode": "concat", "query_fields": ["ad", "slot"]}  # fmt: skip
HEAD = {"kind": "qnn", "n_layers": 1, "n_rows": 2, "n_heads": 1, "dropout": 0.1}


def make_recipe(positive_fraction=None, **plan):
    kind, model, weight = sequence_model(
        ENCODER,
        {},
        HEAD,
        {"hidden": [4], "weight": 0.1},
        d_embedding=4,
        dropout=0.1,
        max_len=MAX_LEN,
    )
    settings = {"learning_rate": 0.01, "epochs": 3, "batch": 32, "average": 0.9, "clip": 1.0,
                "checkpoint_every": 2} | plan  # fmt: skip
    return Recipe(
        kind=kind,
        model=model,
        plan=Plan(**settings, metric="score", seed=1, precision="float32"),
        loss=LossSettings(kind="weighted", auxiliary=weight),
        max_len=MAX_LEN,
        new_below=3,
        positive_fraction=positive_fraction,
    )


def train(scratch, log, report=None, **settings):
    recipe = make_recipe(**settings)
    folder = None if scratch is None else Path(scratch) / "model"
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    rung = train_recipe("DARE", recipe, log, protocol, scratch=folder, report=report)
    return rung, recipe


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])

    def kill_in_second_fold(done, total, **values):
        if (folder / "model" / "fold-1" / "checkpoint.json").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    train(folder, Log(400), report=kill_in_second_fold)
