"""LLM-CTR put together: baselines and a language model in, a trained projector out, x4 judged."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import polars as pl
from torch import Tensor, nn

from lib.data.clicks import Clicks
from lib.language.backbone import Backbone, add_lora, load_backbone
from lib.language.soft_tokens import answer_ids
from lib.language.tokens import pad_rows, tokenise
from lib.models.deepfm import DeepFM
from lib.models.llm_ctr import (
    LLMCTR,
    LLMCTRConfig,
    Reconstruction,
    predict_distinct,
    reconstruction_loss,
)
from lib.studies.baseline import load_click_model, load_state, save_state
from lib.studies.clicks import ClickSource, judge_logits
from lib.train import losses
from lib.train.loop import Result, train
from lib.train.orders import shuffled_order
from lib.train.plan import Plan

__all__ = [
    "Design",
    "JoinedSource",
    "TitleTokens",
    "build_llm_ctr",
    "click_rate",
    "load_llm_ctr",
    "predict_rows",
    "read_titles",
    "release_encoder",
    "resume_llm_ctr",
    "save_llm_ctr",
    "train_llm_ctr",
]

KIND = "llm-ctr"
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
    lora_rank: int = 0
    reconstruction: float = 0.0
    tuned_encoder: bool = False


class TitleTokens:
    """Token ids of the text that belongs to one field's values, such as what an ad says."""

    def __init__(self, clicks: Clicks, texts: Path, backbone: Backbone, *, max_tokens: int) -> None:
        table = pl.read_csv(texts, separator="\t", infer_schema=False, quote_char=None)
        spoken = table.filter(pl.col("title").is_not_null())
        columns = {"C14": "feat_14"}  # the ad, under the name it has in the common schema
        names = [columns.get(name, name) for name in spoken["field"].unique().to_list()]
        if len(names) != 1 or names[0] not in clicks.fields:
            raise ValueError(f"{texts.name} speaks of the fields {names}; expected exactly one of "
                             f"{clicks.fields}")  # fmt: skip
        self.column = clicks.fields.index(names[0])
        self.offset = int(clicks.field_offsets[self.column])
        ids = pl.read_parquet(clicks.folder / "vocabulary.parquet").filter(field=names[0])
        joined = ids.join(spoken, on="value", how="left").sort("id")
        by_id = dict(zip(joined["id"].to_list(), joined["title"].to_list(), strict=True))
        titles = [by_id.get(i) or "" for i in range(int(clicks.field_sizes[self.column]))]
        self.tokens = tokenise(backbone.tokenizer, titles, max_tokens=max_tokens)
        self.pad_id = backbone.pad_id

    def add(self, batch: Batch) -> Batch:
        """The batch with the text of each row's ad."""
        rows = (batch["categorical"][:, self.column].cpu().numpy() - self.offset).tolist()
        ids, mask = pad_rows([self.tokens[row] for row in rows], self.pad_id)
        device = batch["categorical"].device
        return batch | {"title": ids.to(device), "title_mask": mask.to(device)}


class JoinedSource:
    """Batches of several variants in one random order; each batch belongs to one of them."""

    def __init__(
        self,
        sources: Mapping[str, ClickSource],
        *,
        seed: int,
        titles: Mapping[str, TitleTokens] | None = None,
    ) -> None:
        self.sources, self.seed, self.titles = sources, seed, titles or {}
        self.owners = [name for name, source in sources.items() for _ in range(len(source))]

    def __len__(self) -> int:
        return len(self.owners)

    def batches(self, epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        order = [self.owners[i] for i in shuffled_order(len(self), self.seed, epoch).tolist()]
        skipped = {name: order[:start].count(name) for name in self.sources}
        streams = {name: source.batches(epoch, skipped[name], rank, world)
                   for name, source in self.sources.items()}  # fmt: skip
        for name in order[start:]:
            batch: Batch = {**next(streams[name]), "variant": name}
            yield self.titles[name].add(batch) if name in self.titles else batch


def build_llm_ctr(
    design: Design, baselines: Mapping[str, Path], backbone: Backbone, *, base_rate: float
) -> LLMCTR:
    """Frozen baselines and language model around a fresh projector."""
    models = {name: cast(DeepFM, load_click_model(path)) for name, path in baselines.items()}
    for model in models.values():
        model.requires_grad_(False)
        if design.tuned_encoder and model.gen is not None:
            model.gen.requires_grad_(True)
    language: nn.Module = backbone.model.requires_grad_(False)
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
    titles: Mapping[str, TitleTokens] | None = None,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Any = None,
) -> Result:
    """Train on the variants of the design together; the epoch is chosen on their valid rows."""
    rng = np.random.default_rng(plan.seed)
    make = partial(ClickSource, batch=plan.batch or 32, seed=plan.seed, device=device)
    rows = {name: pick(data[name].rows("train"), max_rows, rng) for name in design.variants}
    sources = {name: make(data[name], rows[name]) for name in design.variants}
    held = {name: pick(data[name].rows("valid"), n_validation, rng) for name in design.variants}

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
        model.to(device), JoinedSource(sources, seed=plan.seed, titles=titles),
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
    source = ClickSource(clicks, rows, batch=16 * chunk, seed=0, shuffle=False, device=device)
    parts = []
    for plain in source.batches(0):
        batch: Batch = {"categorical": plain["categorical"], "numeric": plain["numeric"],
                        "missing": plain["missing"], "variant": variant}  # fmt: skip
        if titles and variant in titles:
            batch = titles[variant].add(batch)
        parts.append(predict_distinct(model, batch, chunk=chunk).double().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros(0)


def save_llm_ctr(folder: Path, model: LLMCTR, design: Design) -> None:
    """Projector, tuned parts and design; a frozen language model stays where it is."""
    rate = model.config.base_rate
    save_state(folder, model, {"design": asdict(design), "base_rate": rate}, KIND)


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
    texts: Path | None = None,
    max_title_tokens: int = 0,
) -> tuple[LLMCTR, Design, dict[str, TitleTokens]]:
    """A trained model with the texts it reads, ready to be trained on or to predict."""
    model, design = load_llm_ctr(folder, baselines, backbone, variants=list(data))
    if not design.reads_title:
        return model, design, {}
    language = load_backbone(backbone, attention="causal")
    return model, design, read_titles(data, texts, language, max_tokens=max(1, max_title_tokens))


def read_titles(
    data: Mapping[str, Clicks], texts: Path | None, backbone: Backbone, *, max_tokens: int
) -> dict[str, TitleTokens]:
    """What each variant's ads say; nothing where no token of it is asked for."""
    if not max_tokens:
        return {}
    if texts is None:
        raise ValueError("what an ad says is to be read, but the input `texts` is missing; name a "
                         "table of field, value and title in the profile")  # fmt: skip
    return {name: TitleTokens(clicks, texts, backbone, max_tokens=max_tokens)
            for name, clicks in data.items()}  # fmt: skip


def release_encoder(model: LLMCTR, design: Design) -> tuple[LLMCTR, Design]:
    """Let every baseline's GEN learn as well."""
    for baseline in model.baselines.values():
        if cast(DeepFM, baseline).gen is None:
            raise ValueError("the baseline has no GEN encoder to release; train it with use_gen")
        cast(nn.Module, cast(DeepFM, baseline).gen).requires_grad_(True)
    return model, replace(design, tuned_encoder=True)


def pick(rows: Ints, most: int, rng: np.random.Generator) -> Ints:
    """Up to ``most`` of the rows, in order; 0 takes them all."""
    return rows if not most or most >= len(rows) else np.sort(rng.choice(rows, most, replace=False))
