"""What single ideas in the click models save: seconds per training step, with and without each.

    python tools/bench_click_blocks.py --rounds 5

ft_transformer  our step beside rtdl's module with the same weights, and with a last block that
                computes every token
dare            400 events, the top 60 kept and one Transformer block, beside the block over all
cin             the last layer summed before its product, beside Eq. 6 written out

Each round runs all variants one after another in this process; medians are reported.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rtdl_revisiting_models import FTTransformer as PeerFTTransformer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.data.files import write_json
from lib.models.dare import DAREEncoder
from lib.models.dare_config import DAREConfig
from lib.models.fields import EmbeddingConfig, Sizes
from lib.models.ft_transformer import FTTransformer, FTTransformerConfig
from lib.models.xdeepfm import CompressedInteraction

Step = Callable[[], torch.Tensor]


class FullLastBlock(FTTransformer):
    """The same model without the saving: every token goes through the last block."""

    def represent(self, batch):
        tokens = self.fields(batch).tokens
        x = torch.cat([self.class_token.expand(len(tokens), 1, -1), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, 0]


def ft_transformer_steps(n_rows: int) -> dict[str, Step]:
    """3 blocks of width 192 over 24 categorical and 8 numeric features, rtdl's own dropout."""
    cardinalities = [1_000] * 24
    kwargs = PeerFTTransformer.get_default_kwargs(3)
    peer = PeerFTTransformer(n_cont_features=8, cat_cardinalities=cardinalities, d_out=1, **kwargs)
    config = FTTransformerConfig(
        sizes=Sizes(n_ids=24_000, n_fields=24, n_numeric=8),
        embedding=EmbeddingConfig(d_embedding=kwargs["d_block"], lazy=False),
        n_blocks=3,
        n_heads=kwargs["attention_n_heads"],
        attention_dropout=kwargs["attention_dropout"],
        ffn_dropout=kwargs["ffn_dropout"],
    )
    ours, full = FTTransformer(config), FullLastBlock(config)
    local, numbers = torch.randint(0, 1_000, (n_rows, 24)), torch.randn(n_rows, 8)
    batch = {"categorical": (local + torch.arange(24) * 1_000).int(), "numeric": numbers}
    return {
        "rtdl": lambda: peer(numbers, local)[:, 0],
        "ours": lambda: ours(batch),
        "ours, last block over all tokens": lambda: full(batch),
    }


def dare_steps(n_rows: int) -> dict[str, Step]:
    """Histories of up to 400 events among 600 tokens."""
    sizes = Sizes(
        n_ids=3_000, n_fields=2, n_tokens=600, max_len=400, field_offsets=(0, 20),
        field_sizes=(20, 2_980),
    )  # fmt: skip
    lengths = torch.randint(50, 401, (n_rows,))
    tokens = torch.randint(1, 600, (n_rows, 400))
    tokens[torch.arange(400) >= lengths[:, None]] = 0
    fields = torch.stack([torch.randint(0, 20, (n_rows,)), torch.randint(20, 3_000, (n_rows,))], 1)
    batch = {"categorical": fields, "sequence": tokens.int(), "length": lengths}

    def step(top_k: int) -> Step:
        config = DAREConfig(
            sizes=sizes, d_attention=32, d_representation=48, d_time=16, top_k=top_k, tau=256.0,
            query_mode="concat", query_fields=(1, 0), n_blocks=1, n_heads=4, d_block_hidden=128,
        )  # fmt: skip
        encoder = DAREEncoder(config)
        return lambda: encoder(batch).features

    return {"top 60": step(60), "all 400": step(400)}


class WrittenOut(CompressedInteraction):
    """Every layer as Eq. 6 has it, the last one too."""

    def forward(self, e):
        x0 = e.transpose(1, 2).contiguous()
        x, pooled = x0, []
        for layer in self.layers:
            pairs = (x[..., :, None] * x0[..., None, :]).view(len(e) * e.shape[2], -1)
            x = layer(pairs).view(len(e), e.shape[2], -1)
            pooled.append(x.sum(dim=1))
        return torch.cat(pooled, dim=1)


def cin_steps(n_rows: int) -> dict[str, Step]:
    """22 fields of width 16, two layers of 128 maps."""
    e = torch.randn(n_rows, 22, 16, requires_grad=True)
    ours = CompressedInteraction(n_fields=22, maps=(128, 128))
    plain = WrittenOut(n_fields=22, maps=(128, 128))
    return {"last layer summed first": lambda: ours(e), "written out": lambda: plain(e)}


def measure(steps: dict[str, Step], rounds: int, *, low: bool) -> dict[str, float]:
    """Median seconds of forward and backward, variants interleaved."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
                loss = step().float().square().mean()
            loss.backward()
            if round_:  # the first round warms up
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows below")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    made = {
        "ft_transformer": (ft_transformer_steps, 1024),
        "dare": (dare_steps, 8192),
        "cin": (cin_steps, 4096),
    }
    rows = []
    for block, (make, n_rows) in made.items():
        count = max(2, int(n_rows * options.scale))
        for precision in ("float32", "bfloat16"):
            seconds = measure(make(count), options.rounds, low=precision == "bfloat16")
            for name, value in seconds.items():
                rows.append({"block": block, "rows": count, "precision": precision,
                             "variant": name, "seconds": value})  # fmt: skip
                print(f"{block:16}{count:7}{precision:>10}  {name:34}{value:9.3f} s")
    if options.out:
        write_json(options.out, {"rounds": options.rounds, "rows": rows})


if __name__ == "__main__":
    main()
