"""One epoch of a FuxiCTR model, timed; run by an interpreter that has FuxiCTR, not by ours.

    PEER_PYTHON tools/peer_fuxictr.py FOLDER MODEL --batch 4096 --threads 2

FOLDER holds what `tools/bench_click_models.py` wrote.  The installed package ships layers, loop and
loader, but no model classes: the models are put together here from its own layers, in the order of
its model zoo, and trained and evaluated by its own loop.  Prints one line of JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import torch

# Its parquet reader and writer import ray; neither runs here.
for name in ("ray", "ray.data", "ray.data.datasource", "ray.data.datasource.filename_provider"):
    sys.modules.setdefault(name, ModuleType(name))
sys.modules["ray.data.datasource.filename_provider"].FilenameProvider = object
sys.modules["ray.data"].SaveMode = sys.modules["ray.data"].TaskPoolStrategy = object

from fuxictr.features import FeatureMap  # noqa: E402
from fuxictr.pytorch.dataloaders import RankDataLoader  # noqa: E402
from fuxictr.pytorch.layers import (  # noqa: E402
    CompressedInteractionNet,
    CrossNetV2,
    FactorizationMachine,
    FeatureEmbedding,
    LogisticRegression,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel  # noqa: E402
from torch import nn  # noqa: E402


class Peer(BaseModel):
    """What the three models share: embeddings, loss, optimizer, start values."""

    def __init__(self, feature_map, sizes, folder):
        super().__init__(feature_map, verbose=0, model_root=str(folder), metrics=["AUC", "logloss"])
        d, n_fields = sizes["d_embedding"], feature_map.num_fields
        self.embedding_layer = FeatureEmbedding(feature_map, d)
        self.width = d * n_fields
        self.build(sizes)
        self.compile("adam", "binary_crossentropy", sizes["learning_rate"])
        self.reset_parameters()
        self.model_to_device()

    def mlp(self, sizes, output_dim):
        return MLP_Block(
            input_dim=self.width,
            output_dim=output_dim,
            hidden_units=list(sizes["hidden"]),
            hidden_activations="ReLU",
            output_activation=None,
            dropout_rates=0,
            batch_norm=False,
        )

    def forward(self, inputs):
        x = self.get_inputs(inputs)
        return {"y_pred": self.output_activation(self.logits(x, self.embedding_layer(x)))}


class DeepFM(Peer):
    def build(self, sizes):
        self.fm = FactorizationMachine(self.feature_map)
        self.deep = self.mlp(sizes, 1)

    def logits(self, x, e):
        return self.fm(x, e) + self.deep(e.flatten(start_dim=1))


class DCNv2(Peer):
    def build(self, sizes):
        self.cross = CrossNetV2(self.width, sizes["n_cross"])
        self.deep = self.mlp(sizes, None)
        self.head = nn.Linear(self.width + sizes["hidden"][-1], 1)

    def logits(self, _x, e):
        flat = e.flatten(start_dim=1)
        return self.head(torch.cat([self.cross(flat), self.deep(flat)], dim=-1))


class XDeepFM(Peer):
    def build(self, sizes):
        self.lr = LogisticRegression(self.feature_map, use_bias=False)
        self.cin = CompressedInteractionNet(self.feature_map.num_fields, list(sizes["maps"]), 1)
        self.deep = self.mlp(sizes, 1)

    def logits(self, x, e):
        return self.lr(x) + self.cin(e) + self.deep(e.flatten(start_dim=1))


MODELS = {"deepfm": DeepFM, "dcnv2": DCNv2, "xdeepfm": XDeepFM}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    sizes = json.loads((options.folder / "sizes.json").read_text())
    feature_map = FeatureMap("bench", str(options.folder))
    feature_map.load(str(options.folder / "feature_map.json"), {"embedding_dim": 16})
    loaders = {
        part: RankDataLoader(
            feature_map,
            stage=stage,
            batch_size=options.batch,
            shuffle=part == "train",
            **{f"{part}_data": str(options.folder / f"{part}.npz")},
        )
        for part, stage in (("train", "train"), ("test", "test"))
    }
    train_loader = loaders["train"][0]
    model = MODELS[options.model](feature_map, sizes, options.folder)
    model._max_gradient_norm = 10.0  # what its fit() sets before the first epoch
    model._total_steps, model._eval_steps, model._stop_training = 0, 1 << 60, False

    start = time.perf_counter()
    model.train_epoch(train_loader)
    train_seconds = time.perf_counter() - start
    start = time.perf_counter()
    scores = model.evaluate(loaders["test"])
    test_seconds = time.perf_counter() - start
    answer = {
        "train_rows_per_second": train_loader.num_samples / train_seconds,
        "test_rows_per_second": loaders["test"].num_samples / test_seconds,
        "auc": float(scores["AUC"]),
        "logloss": float(scores["logloss"]),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
