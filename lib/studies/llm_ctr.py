"""LLM-CTR put together: baselines and a language model in, a trained projector out, x4 judged."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from lib.data.clicks import Clicks
from lib.language.backbone import Backbone, add_lora, load_backbone
from lib.language.soft_tokens import answer_ids
from lib.models.deepfm import DeepFM
from lib.models.llm_ctr import (
    LLMCTR,
    LLMCTRConfig,
    Reconstruction,
    predict_distinct,
    reconstruction_loss,
)
from lib.studies.ad_texts import read_ad_texts
from lib.studies.baseline import load_click_model, load_state, save_state
from lib.studies.clicks import ClickSource, judge_logits
from lib.studies.title_reading import AdSource, TitleTokens, left_out_ads
from lib.train import losses
from lib.train.loop import Result, train
from lib.train.orders import shuffled_order
from lib.train.plan import Group, Plan

__all__ = [
    "Design",
    "JoinedSource",
    "build_llm_ctr",
    "click_rate",
    "load_llm_ctr",
    "predict_rows",
    "read_titles",
    "release_encoder",
    "resume_llm_ctr",
    "save_llm_ctr",
    "train_llm_ctr",
    "training_of",
]

KIND = "llm-ctr"
SHARE = 20  # times the learning rate: one number must get from nought to one in a few steps
Batch = dict[str, Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """Everything a row of the comparison chooses; kept beside its weights."""

    variants: tuple[str, ...]
    prompt: str
    no: str
    yes: str
    form: Literal["faithful", "residual"]
    d_projector: int
    n_tokens: int
    reads_title: bool = False
    tunes_language: bool = False
    lora_rank: int = 0
    reconstruction: float = 0.0
    tuned_encoder: bool = False


class JoinedSource:
    """Batches of several variants in one random order; each batch belongs to one of them."""

    def __init__(self, sources: Mapping[str, ClickSource | AdSource], *, seed: int) -> None:
        self.sources, self.seed = sources, seed
        self.owners = [name for name, source in sources.items() for _ in range(len(source))]

    def __len__(self) -> int:
        return len(self.owners)

    def batches(self, epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        order = [self.owners[i] for i in shuffled_order(len(self), self.seed, epoch).tolist()]
        skipped = {name: order[:start].count(name) for name in self.sources}
        streams = {name: source.batches(epoch, skipped[name], rank, world)
                   for name, source in self.sources.items()}  # fmt: skip
        for name in order[start:]:
            yield {**next(streams[name]), "variant": name}


def build_llm_ctr(
    design: Design, baselines: Mapping[str, Path], backbone: Backbone, *, base_rate: float
) -> LLMCTR:
    """Frozen baselines and language model around a fresh projector."""
    models = {name: cast(DeepFM, load_click_model(path)) for name, path in baselines.items()}
    for model in models.values():
        model.requires_grad_(False)
        if design.tuned_encoder and model.gen is not None:
            model.gen.requires_grad_(True)
    language: nn.Module = backbone.model.requires_grad_(design.tunes_language)
    if design.lora_rank:
        rank = design.lora_rank
        language = add_lora(backbone.model, rank=rank, alpha=2 * rank, dropout=0.0)
    config = LLMCTRConfig(
        form=design.form, d_projector=design.d_projector, n_tokens=design.n_tokens,
        base_rate=base_rate, reads_title=design.reads_title,
    )  # fmt: skip
    prompt = backbone.tokenizer.encode(design.prompt, add_special_tokens=False)
    answers = answer_ids(backbone.tokenizer, design.no, design.yes)
    return LLMCTR(models, language, prompt=prompt, answers=answers, config=config)


def train_llm_ctr(
    model: LLMCTR,
    design: Design,
    data: Mapping[str, Clicks],
    plan: Plan,
    *,
    max_rows: int,
    n_validation: int,
    taught_by: Literal["train", "valid"] = "train",
    titles: Mapping[str, TitleTokens] | None = None,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Any = None,
) -> Result:
    """Train on the variants of the design together; the epoch is chosen on their valid rows.

    Ads of ``left_out_ads`` are shown as if they were new, so that the title is believed as far as
    it deserves where there is nothing else.
    """
    rng = np.random.default_rng(plan.seed)
    split = {name: split_rows(data[name], taught_by, rng) for name in design.variants}
    rows = {name: pick(split[name][0], max_rows, rng) for name in design.variants}
    held = {name: pick(split[name][1], n_validation, rng) for name in design.variants}
    make = partial(ClickSource, batch=plan.batch or 32, seed=plan.seed, device=device)
    shown = {name: text.hiding(left_out_ads(text)).add for name, text in (titles or {}).items()}
    sources = {name: make(data[name], rows[name], add=shown.get(name)) for name in design.variants}
    if design.form == "residual":
        fast = Group(match="share", learning_rate=SHARE * plan.learning_rate)
        plan = replace(plan, groups=(fast,))

    def validate(trained: nn.Module) -> dict[str, float]:
        parts = [predict_rows(cast(LLMCTR, trained), name, data[name], held[name], titles=titles)
                 for name in design.variants]  # fmt: skip
        labels = np.concatenate([data[name].label[held[name]] for name in design.variants])
        return judge_logits(labels, np.concatenate(parts), rate=float(labels.mean()))

    if design.reconstruction:
        shape = cast(DeepFM, next(iter(model.baselines.values()))).config
        reader = Reconstruction(
            model.d_model, model.n_soft, shape.sizes.n_positions, shape.embedding.d_embedding
        )
        model.add_module("reader", reader)
    return train(
        model.to(device), JoinedSource(sources, seed=plan.seed),
        partial(llm_ctr_loss, weight=design.reconstruction), plan=plan, validate=validate,
        scratch=scratch, report=report, count=lambda batch: len(batch["label"]),
    )  # fmt: skip


def llm_ctr_loss(model: nn.Module, batch: Batch, *, weight: float) -> dict[str, Tensor]:
    """Log loss of the answer, and how far the states remember the fields they came from."""
    terms = {"click": losses.binary_cross_entropy(model(batch), batch["label"].float())}
    if weight:
        states, wanted = model.states(batch)  # type: ignore[operator]
        terms["fields"] = weight * reconstruction_loss(model.reader(states), wanted)  # type: ignore[operator]
    return terms


def predict_rows(
    model: LLMCTR,
    variant: str,
    clicks: Clicks,
    rows: Ints,
    *,
    titles: Mapping[str, TitleTokens] | None = None,
    chunk: int = 512,
) -> Floats:
    """Logits of rows in their order; equal rows are computed once per chunk.  -> (N,)"""
    device = str(next(model.parameters()).device)
    add = titles[variant].add if titles and variant in titles else None
    source = ClickSource(
        clicks, rows, batch=16 * chunk, seed=0, shuffle=False, device=device, add=add
    )
    parts = []
    for found in source.batches(0):
        batch: Batch = {name: found[name] for name in found.keys() - {"label"}}
        batch["variant"] = variant
        parts.append(predict_distinct(model, batch, chunk=chunk).double().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros(0)


def save_llm_ctr(folder: Path, model: LLMCTR, design: Design, result: Result) -> None:
    """Projector, tuned parts, design and how training went; a frozen language model stays put."""
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    training = {"history": history, "kept": result.best_epoch, "auc": result.best_score,
                "precision": result.precision, "changes": result.changes}  # fmt: skip
    rate = model.config.base_rate
    found = {"design": asdict(design), "base_rate": rate, "training": training}
    save_state(folder, model, found, KIND)


def training_of(folder: Path) -> dict[str, Any]:
    """Design of a saved row, its validation after each pass, and the pass that was kept."""
    return load_state(folder, KIND, made_by="41_train_projector")[0]


def load_llm_ctr(
    folder: Path, baselines: Mapping[str, Path], backbone: Path | str, *, variants: Sequence[str]
) -> tuple[LLMCTR, Design]:
    """A trained model, able to read ``variants`` too: their own encoders, the shared projector."""
    found, weights = load_state(folder, KIND, made_by="41_train_projector")
    given: Any = found["design"]
    design = Design(**{**given, "variants": tuple(given["variants"])})
    loaded = load_backbone(backbone, attention="causal")
    chosen = {name: baselines[name] for name in variants}
    model = build_llm_ctr(design, chosen, loaded, base_rate=found["base_rate"])
    known = set(model.state_dict())
    own = {name: tensor for name, tensor in weights.items() if name in known}
    missing = {name for name in known - set(own) if not name.startswith("baselines.")}
    if missing:
        raise ValueError(f"{folder.name} lacks {sorted(missing)[:5]}: it was trained with another "
                         "design or backbone; train it again")  # fmt: skip
    model.load_state_dict(own, strict=False)
    return model.eval(), design


def click_rate(data: Mapping[str, Clicks]) -> float:
    """The click rate of all training rows."""
    return float(np.concatenate([c.label[c.rows("train")] for c in data.values()]).mean())


def resume_llm_ctr(
    folder: Path,
    baselines: Mapping[str, Path],
    backbone: Path | str,
    *,
    data: Mapping[str, Clicks],
    texts: Mapping[str, Sequence[Path]],
    max_title_tokens: int = 0,
) -> tuple[LLMCTR, Design, dict[str, TitleTokens]]:
    """A trained model with the texts it reads, ready to be trained on or to predict."""
    model, design = load_llm_ctr(folder, baselines, backbone, variants=list(data))
    if not design.reads_title:
        return model, design, {}
    language = load_backbone(backbone, attention="causal")
    return model, design, read_titles(data, texts, language, max_tokens=max(1, max_title_tokens))


def read_titles(
    data: Mapping[str, Clicks], texts: Mapping[str, Sequence[Path]], backbone: Backbone, *,
    max_tokens: int,
) -> dict[str, TitleTokens]:  # fmt: skip
    """What each variant's ads say, from its table of rows and its texts; nothing where no token
    of it is asked for."""
    if not max_tokens:
        return {}
    missing = sorted(data.keys() - texts.keys())
    if missing:
        raise ValueError(f"what an ad says is to be read, but {missing} have none; name the inputs "
                         "`table` (of 11_prepare_avazu) and `texts` (field, value, title) of each "
                         "in the profile")  # fmt: skip
    return {name: TitleTokens(clicks, read_ad_texts(clicks, *texts[name]), backbone,
                              max_tokens=max_tokens)
            for name, clicks in data.items()}  # fmt: skip


def release_encoder(model: LLMCTR, design: Design) -> tuple[LLMCTR, Design]:
    """Let every baseline's GEN learn as well."""
    for baseline in model.baselines.values():
        if cast(DeepFM, baseline).gen is None:
            raise ValueError("the baseline has no GEN encoder to release; train it with use_gen")
        cast(nn.Module, cast(DeepFM, baseline).gen).requires_grad_(True)
    return model, replace(design, tuned_encoder=True)


def split_rows(
    clicks: Clicks, taught_by: Literal["train", "valid"], rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Rows that teach and rows that choose the pass.

    On its own training rows a baseline has memorised the answer, and whatever stands beside its
    logit learns to say nothing.  ``valid`` teaches with one half of the rows that it did not fit.
    """
    valid = clicks.rows("valid")
    if taught_by == "train":
        return clicks.rows("train"), valid
    order = rng.permutation(valid)
    return np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])


def pick(rows: Ints, most: int, rng: np.random.Generator) -> Ints:
    """Up to ``most`` of the rows, in order; 0 takes them all."""
    return rows if not most or most >= len(rows) else np.sort(rng.choice(rows, most, replace=False))
