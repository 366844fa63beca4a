"""Speed and memory of the language floor beside the plain way; prints one JSON line per case.

    python tools/bench_language.py DATA --rounds 5 --out docs/results/language.json

DATA (data/raw) holds beauty/items.tsv and tokenizers/qwen3, or csft and embed are left out.

Cases (processes of their own, in turn, with the surroundings of a notebook's kernel; the plain way
is float32 in both, and csft in bfloat16 is set beside model(labels=…) under autocast as well):
    csft      next-title step, vocabulary 151,936, 6 layers of 256: model(labels=…) on padded random
              batches against the head on target tokens only, bucketed, prefixes not shared
    embed     12,101 titles: sentence-transformers at its defaults against batches of like lengths
    prompt    training step of a projector: the prompt spelt out for every row and the full head
              against the stored prompt and two rows of the head, in three settings
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from peers import ratios

ROOT = Path(__file__).resolve().parents[1]
PROMPT_SETTINGS = {
    # name: (model, prompt tokens, soft tokens, rows)
    "embedded model, 31-token prompt, 1 soft token": ("embedded", 31, 1, 256),
    "Qwen3-0.6B shape, 31-token prompt, 24 soft tokens": ("qwen3-0.6b", 31, 24, 8),
    "Qwen3-0.6B shape, 96-token prompt, 8 soft tokens": ("qwen3-0.6b", 96, 8, 8),
}


def make_model(kind: str, n_tokens: int) -> torch.nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shapes = {
        "small": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 768},
        "embedded": {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
                     "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 256},
        "qwen3-0.6b": {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
                       "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072},
    }  # fmt: skip
    torch.manual_seed(1)
    config = Qwen3Config(vocab_size=n_tokens, tie_word_embeddings=True, bos_token_id=None,
                         eos_token_id=0, pad_token_id=0, **shapes[kind])  # fmt: skip
    return Qwen3ForCausalLM(config)


def real_tokenizer(data: Path):  # type: ignore[no-untyped-def]
    from transformers import Qwen2Tokenizer

    folder = data / "tokenizers" / "qwen3"
    return Qwen2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"),
                          eos_token="<|endoftext|>", pad_token="<|endoftext|>")  # fmt: skip


def beauty_titles(data: Path) -> list[str]:
    lines = (data / "beauty" / "items.tsv").read_text("utf-8").splitlines()[1:]
    return [line.split("\t", 1)[1] if "\t" in line else "" for line in lines]


def next_titles(data: Path, n: int):  # type: ignore[no-untyped-def]
    """``n`` targets with histories of 3 to 10 titles."""
    from lib.language.collaborative import Branches, NextTitles, tokenise_titles

    tokens = tokenise_titles(real_tokenizer(data), ["", *beauty_titles(data)], max_tokens=64)
    lengths = np.random.default_rng(1).integers(4, 12, n)
    items = np.random.default_rng(2).integers(1, len(tokens.first), lengths.sum()).astype(np.int32)
    starts = np.cumsum([0, *lengths[:-1]])
    rows = [Branches(int(s), (int(s + k - 1),)) for s, k in zip(starts, lengths, strict=True)]
    return NextTitles(items, rows, tokens, max_tokens=1024, pad_id=0)


def csft(way: str, data: Path, precision: str, n_examples: int) -> dict[str, float]:
    from lib.language.attention import FUSED
    from lib.language.collaborative import next_title_loss
    from lib.language.tokens import budget_batches
    from lib.train.losses import full_softmax

    titles = next_titles(data, n_examples)
    model = make_model("small", 151_936)
    if way == "ours":
        model.set_attn_implementation(FUSED)  # type: ignore[operator]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if way == "plain":
        order = np.random.default_rng(3).permutation(len(titles))
        batches = [titles.batch(order[i : i + 16]) for i in range(0, len(order), 16)]
    else:
        batches = [titles.batch(rows) for rows in budget_batches(titles.lengths, 4096)]
    real = sum(int(b["mask"].sum()) + len(b["from_row"].unique()) for b in batches)
    before, losses = peak(), []
    started = time.perf_counter()
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            if way == "plain":
                labels = torch.full_like(batch["ids"], -100)
                places = batch["from_state"].long() + 1
                inside = places < labels.shape[1]
                labels[batch["from_row"][inside], places[inside]] = batch["labels"][inside]
                loss = model(batch["ids"], attention_mask=batch["mask"], labels=labels).loss
            else:
                loss = next_title_loss(model, batch, criterion=full_softmax)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    seconds = time.perf_counter() - started
    return {"tokens_per_second": real / seconds, "seconds": seconds, "first_loss": losses[0],
            "extra_mib": (peak() - before) / 2**20, "peak_mib": peak() / 2**20}  # fmt: skip


def embed(way: str, data: Path, precision: str, n_titles: int) -> dict[str, float]:
    from lib.language.backbone import Backbone, set_attention
    from lib.language.embed import embed_tokens, export_sentence_transformer
    from lib.language.tokens import tokenise

    # sentence-transformers cannot encode a batch of empty titles
    titles = [title for title in beauty_titles(data)[:n_titles] if title.strip()]
    backbone = Backbone(make_model("small", 151_936).eval(), real_tokenizer(data))  # type: ignore[arg-type]
    set_attention(backbone.model, "bidirectional")
    size, dtype = (2048, torch.bfloat16) if precision == "bfloat16" else (4096, torch.float32)
    if way == "plain":
        from sentence_transformers import SentenceTransformer

        with tempfile.TemporaryDirectory() as folder:
            export_sentence_transformer(backbone, Path(folder) / "st", max_tokens=256)
            encoder = SentenceTransformer(str(Path(folder) / "st"), device="cpu")
        started = time.perf_counter()
        vectors = encoder.encode(titles)
    else:
        texts = tokenise(backbone.tokenizer, titles, max_tokens=256)
        started = time.perf_counter()
        texts = tokenise(backbone.tokenizer, titles, max_tokens=256)
        vectors = embed_tokens(backbone.model, texts, token_budget=size, pad_id=0, precision=dtype)
    seconds = time.perf_counter() - started
    texts = tokenise(backbone.tokenizer, titles, max_tokens=256)
    exact = embed_tokens(backbone.model, texts, token_budget=2048, pad_id=0)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (exact, vectors)]
    return {"texts_per_second": len(titles) / seconds, "seconds": seconds,
            "least_cosine_to_float32": float((unit[0] * unit[1]).sum(axis=1).min())}  # fmt: skip


def prompt(way: str, setting: str) -> dict[str, float]:
    from lib.language.attention import FUSED
    from lib.language.prompt_cache import continue_from, encode_prompt
    from lib.language.soft_tokens import Projector, read_answers, token_rms

    kind, n_prompt, n_soft, n_rows = PROMPT_SETTINGS[setting]
    model = make_model(kind, 2048 if kind == "embedded" else 151_936).requires_grad_(False).eval()
    ids = list(range(5, 5 + n_prompt))
    width = int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]
    projector = Projector(16, 512, width, n_slots=n_soft, rms=token_rms(model))  # type: ignore[arg-type]
    fields = torch.randn(n_rows, n_soft, 16, generator=torch.Generator().manual_seed(2))
    labels = (torch.arange(n_rows) % 2).float()
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    text = model.get_input_embeddings().weight[torch.tensor(ids)]  # type: ignore[operator]
    if way == "ours":
        model.set_attn_implementation(FUSED)  # type: ignore[operator]
    cache = encode_prompt(model, ids) if way == "ours" else None
    before, seconds = fresh_peak(), []
    for _ in range(4):
        started = time.perf_counter()
        soft = projector(fields)
        if cache is None:
            given = torch.cat([text.expand(n_rows, -1, -1), soft], dim=1)
            logits = model(inputs_embeds=given, use_cache=False).logits[:, -1]
            said = logits[:, 16] - logits[:, 15]
        else:
            said = read_answers(continue_from(model, cache, soft)[:, -1], head, (15, 16))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(said, labels)
        projector.zero_grad()
        loss.backward()
        seconds.append(time.perf_counter() - started)
    extra = (peak() - before) / 2**20
    made = [said.detach(), *(p.grad for p in projector.parameters() if p.grad is not None)]
    np.savez(found_path(setting, way), *(part.numpy() for part in made))
    return {"seconds": min(seconds[1:]), "extra_mib": extra, "logit": float(said[0].detach())}


def found_path(setting: str, way: str) -> Path:
    """Where logits and gradients of one way wait for the other's."""
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{setting} {way}")
    return Path(tempfile.gettempdir()) / f"bench-prompt-{name}.npz"


def differences(setting: str) -> dict[str, float]:
    """Largest difference of logits, and of gradients relative to the largest entry of each."""
    paths = (found_path(setting, way) for way in ("plain", "ours"))
    with np.load(next(paths)) as plain, np.load(next(paths)) as ours:
        gaps = [float(np.abs(plain[k] - ours[k]).max()) for k in plain.files]
        sizes = [float(np.abs(plain[k]).max()) for k in plain.files]
    relative = [gap / max(size, 1e-12) for gap, size in zip(gaps[1:], sizes[1:], strict=True)]
    return {"logit_difference": gaps[0], "gradient_difference": max(gaps[1:]),
            "gradient_difference_relative": max(relative)}  # fmt: skip


def peak() -> int:
    """Most memory held since the start, or since ``fresh_peak``."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def fresh_peak() -> int:
    """Forget the peak of building the model, where Linux allows it; what is held now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    return peak()


def in_process(*words: str) -> dict[str, float]:
    from lib.pipeline.surroundings import FIXED

    command, around = [sys.executable, __file__, *words], os.environ | FIXED
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=around)
    return json.loads(answer.stdout.splitlines()[-1])


def pair(
    case: str, detail: str, options: argparse.Namespace, key: str, better: Callable[..., float]
) -> dict[str, object]:
    """Both ways in turn; the ratio of each round, its median and range."""
    shared = [str(options.data), "--examples", str(options.examples), "--titles",
              str(options.titles), "--threads", str(options.threads)]  # fmt: skip
    ways = {"plain": ("plain", detail if case == "prompt" else "float32"), "ours": ("ours", detail)}
    if (case, detail) == ("csft", "bfloat16"):
        ways["plain_bfloat16"] = ("plain", detail)
    rounds = [{name: in_process(*shared, "--run", case, *way) for name, way in ways.items()}
              for _ in range(options.rounds)]  # fmt: skip
    each = [better(r["ours"][key], r["plain"][key]) for r in rounds]
    line = {"case": f"{case}, {detail}", **ratios(each, [1.0] * len(each)),
            **rounds[-1]}  # fmt: skip
    if "plain_bfloat16" in ways:
        each = [better(r["ours"][key], r["plain_bfloat16"][key]) for r in rounds]
        line["beside_plain_bfloat16"] = ratios(each, [1.0] * len(each))
    if case == "prompt":
        shares = [r["ours"]["extra_mib"] / max(r["plain"]["extra_mib"], 1e-9) for r in rounds]
        line |= {"extra_memory_share": round(statistics.median(shares), 3), **differences(detail)}
    print(json.dumps(line), flush=True)
    return line


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    usable = ["float32", "bfloat16"] if torch.cpu._is_avx512_bf16_supported() else ["float32"]
    needed = [options.data / "beauty" / "items.tsv", options.data / "tokenizers" / "qwen3"]
    absent = ", ".join(f"{path.parent.name}/{path.name}" for path in needed if not path.exists())
    lines = []
    for case in options.cases:
        if case == "prompt":
            lines += [pair(case, setting, options, "seconds", lambda ours, plain: plain / ours)
                      for setting in PROMPT_SETTINGS]  # fmt: skip
        elif absent:
            lines.append({"case": case, "measured": False, "problem": f"DATA has no {absent}"})
            print(json.dumps(lines[-1]), flush=True)
        else:
            key = "tokens_per_second" if case == "csft" else "texts_per_second"
            lines += [pair(case, precision, options, key, lambda ours, plain: ours / plain)
                      for precision in usable if precision in options.precisions]  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=ROOT / "data" / "raw")
    parser.add_argument("cases", nargs="*", default=["csft", "embed", "prompt"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=64, help="of csft")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--titles", type=int, default=12_101, help="of embed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="write all lines as JSON")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.run:
        case, way, detail = options.run
        run = {"csft": lambda: csft(way, options.data, detail, options.examples),
               "embed": lambda: embed(way, options.data, detail, options.titles),
               "prompt": lambda: prompt(way, detail)}[case]  # fmt: skip
        print(json.dumps(run()))
        return
    lines = measure(options)
    if options.out:
        from lib.data.files import write_json
        from lib.studies.speed import describe_machine

        write_json(options.out, {"machine": describe_machine(), "threads": options.threads,
                                 "measured": lines})  # fmt: skip


if __name__ == "__main__":
    main()
