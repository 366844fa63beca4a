"""LLM-CTR: a click model's encoder speaks to a language model.

    fields → e (B, F, D) → GEN: g → projector → soft tokens s_1 … s_S
    [prompt] s_1 … s_S [title] → language model → h (last position)
    logit = h · (w_yes − w_no) + b                     faithful: b starts at the logit of the rate
    logit = c + α (h · (w_yes − w_no) + b)             residual: c is the baseline's own logit
    logit = c + α doubt (h · (w_yes − w_no) + b)       where titles are read

In the faithful form only the generated g reaches the language model, and what the baseline knows
beyond it is lost (the public twin fell 1.7 points of AUC behind its own baseline).  In the residual
form e, g and c all reach it, α starts at zero, and what is learnt is what the language model adds.
A title says most of an ad whose clicks nobody has seen, and nothing new of one that c knows well:
doubt is 1 for the first and goes to 0 for the second.

A frozen language model is no part of this module's state: it is neither trained nor saved here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lib.language.prompt_cache import continue_from, encode_prompt
from lib.language.soft_tokens import AttentionPool, Projector, read_answers, token_rms
from lib.models.deepfm import DeepFM
from lib.models.precision import in_float32

__all__ = ["LLMCTR", "LLMCTRConfig", "predict_distinct", "reconstruction_loss"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMCTRConfig:
    """``n_tokens`` 0 gives each field a token of its own; otherwise the fields are pooled."""

    form: Literal["faithful", "residual"]
    d_projector: int
    n_tokens: int
    base_rate: float
    reads_title: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.base_rate < 1:
            raise ValueError(f"base_rate={self.base_rate}: expected the click rate of the training "
                             "rows, between 0 and 1")  # fmt: skip


class LLMCTR(nn.Module):
    """A batch of one variant to logits.  -> (B,)

    ``baselines`` holds one trained DeepFM per data set variant, because their ids do not align;
    ``batch["variant"]`` names the one to use.  Where the configuration reads titles,
    ``batch["title"]`` and ``batch["title_mask"]`` (B, T) are token ids, and ``batch["doubt"]``
    (B,) is 1 for an ad that training never saw and near 0 for one that it knows well.
    """

    def __init__(
        self,
        baselines: Mapping[str, DeepFM],
        language: nn.Module,
        *,
        prompt: Sequence[int],
        answers: tuple[int, int],
        config: LLMCTRConfig,
    ) -> None:
        super().__init__()
        self.config, self.prompt, self.answers = config, tuple(prompt), answers
        self.baselines = nn.ModuleDict(baselines)
        shapes = {(m.config.sizes.n_positions, m.config.embedding.d_embedding)
                  for m in baselines.values()}  # fmt: skip
        if len(shapes) != 1:
            raise ValueError(f"the baselines must share fields and width to share a projector, "
                             f"got {sorted(shapes)} for {sorted(baselines)}")  # fmt: skip
        n_fields, d = shapes.pop()
        is_tuned = any(weight.requires_grad for weight in language.parameters())
        self.tuned = language if is_tuned else None
        self._frozen = [] if is_tuned else [language.eval()]  # in a list: not a submodule
        width = d if config.form == "faithful" else 2 * d
        self.pool = AttentionPool(width, config.n_tokens, n_fields) if config.n_tokens else None
        rms = token_rms(language)  # type: ignore[arg-type]
        self.d_model = d_model = int(language.config.hidden_size)  # type: ignore[union-attr,arg-type]
        self.n_soft = config.n_tokens or n_fields
        self.projector = Projector(width, config.d_projector, d_model, n_slots=self.n_soft, rms=rms)
        self.bias = nn.Parameter(torch.tensor(0.0))
        if config.form == "residual":
            self.share = nn.Parameter(torch.tensor(0.0))
            self.confidence = nn.Linear(1, d_model)  # the baseline's logit as one more token
        else:
            self.bias.data.fill_(math.log(config.base_rate / (1 - config.base_rate)))
        self._prompt_cache: object | None = None

    @property
    def language(self) -> nn.Module:
        return self._frozen[0] if self.tuned is None else self.tuned

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LLMCTR":
        """`.to(device)` takes the frozen language model along, though it is no submodule."""
        for part in self._frozen:
            part._apply(fn, recurse)
        self._prompt_cache = None  # of the place before
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "LLMCTR":
        """Frozen parts stay in ``eval``: their dropout would be noise, and the prompt not one."""
        super().train(mode)
        for part in (self.language, *self.baselines.values()):
            if not any(weight.requires_grad for weight in part.parameters()):
                part.eval()
        return self

    def forward(self, batch: Mapping[str, Tensor | str]) -> Tensor:
        said, offset = self.say(batch)
        if self.config.form == "faithful":
            return said
        doubt = torch.as_tensor(batch["doubt"]) if self.config.reads_title else 1.0
        return offset + self.share * doubt * said

    def say(self, batch: Mapping[str, Tensor | str]) -> tuple[Tensor, Tensor]:
        """The language model's own answer, and the baseline's logit.  -> (B,), (B,)"""
        state, offset = self._read(batch)[:2]
        head = self.language.get_output_embeddings().weight  # type: ignore[operator]
        with in_float32(state):
            return read_answers(state.float(), head.float(), self.answers) + self.bias, offset

    def states(self, batch: Mapping[str, Tensor | str]) -> tuple[Tensor, Tensor]:
        """States of the soft tokens and the embeddings they came from.  (B, S, d), (B, F, D)"""
        return self._read(batch)[2:]

    @torch.no_grad()
    def answer_mass(self, batch: Mapping[str, Tensor | str]) -> Tensor:
        """p(no) + p(yes) among all tokens: whether the model is answering at all.  -> (B,)"""
        state = self._read(batch)[0].float()
        head = self.language.get_output_embeddings().weight.float()  # type: ignore[operator]
        return (state @ head.T).softmax(dim=-1)[:, list(self.answers)].sum(dim=1)

    def ask(self, prompt: Sequence[int], answers: tuple[int, int]) -> None:
        """Put another question, or read other answers; the stored prompt is made anew."""
        self.prompt, self.answers, self._prompt_cache = tuple(prompt), answers, None

    def soft_tokens(self, batch: Mapping[str, Tensor | str]) -> Tensor:
        """What the language model is given for each row.  -> (B, S, d_model)"""
        return self._tokens(batch)[0]

    def _tokens(self, batch: Mapping[str, Tensor | str]) -> tuple[Tensor, Tensor, Tensor]:
        baseline = self.baselines[str(batch["variant"])]
        e = baseline.fields(batch).tokens  # type: ignore[operator,union-attr]
        g = e if baseline.gen is None else baseline.gen(e)  # type: ignore[operator]
        residual = self.config.form == "residual"
        heard = torch.cat([e, g], dim=-1) if residual else g
        soft = self.projector(heard if self.pool is None else self.pool(heard))
        offset = baseline(batch) if residual else soft.new_zeros(len(soft))
        if residual:
            token = self.projector.scale(self.confidence(offset[:, None].to(soft.dtype)))
            soft = torch.cat([token[:, None], soft], dim=1)
        return soft, offset, e

    def _read(self, batch: Mapping[str, Tensor | str]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        soft, offset, e = self._tokens(batch)
        mask, last = None, torch.full((len(soft),), soft.shape[1] - 1, device=soft.device)
        given = soft
        if "without" in batch:  # one soft token left out, to see what it was worth
            kept = [place for place in range(soft.shape[1]) if place != int(batch["without"])]
            given, last = soft[:, kept], last - 1
        if self.config.reads_title:
            words = self.language.get_input_embeddings()(batch["title"])  # type: ignore[operator]
            title_mask = torch.as_tensor(batch["title_mask"])
            mask = nn.functional.pad(title_mask, (given.shape[1], 0), value=1)
            given = torch.cat([given, words.to(soft.dtype)], dim=1)
            last = mask.sum(dim=1) - 1
        states = continue_from(self.language, self._cache(), given, mask)
        own = states[torch.arange(len(soft), device=soft.device), last]
        return own, offset, states[:, soft.shape[1] - self.n_soft : soft.shape[1]], e

    def _cache(self):  # type: ignore[no-untyped-def]
        if self.tuned is not None:  # its prompt changes with every step
            return encode_prompt(self.tuned, self.prompt)
        if self._prompt_cache is None:
            with torch.autocast(next(self.language.parameters()).device.type, enabled=False):
                self._prompt_cache = encode_prompt(self.language, self.prompt)
        return self._prompt_cache


class Reconstruction(nn.Module):
    """Reads each field's embedding back from the soft tokens' states.  (B, S, d) -> (B, F, D)"""

    def __init__(self, d_model: int, n_soft: int, n_fields: int, d_field: int) -> None:
        super().__init__()
        self.mix = nn.Linear(n_soft, n_fields)
        self.read = nn.Linear(d_model, d_field)

    def forward(self, states: Tensor) -> Tensor:
        return self.read(self.mix(states.transpose(1, 2)).transpose(1, 2))


def reconstruction_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean of 1 − cosine over fields: direction, not length.  (B, F, D), (B, F, D) -> ()"""
    return 1 - nn.functional.cosine_similarity(found, wanted.detach(), dim=-1).mean()


@torch.no_grad()
def predict_distinct(model: LLMCTR, batch: Mapping[str, Tensor | str], *, chunk: int) -> Tensor:
    """Logits of many rows, each distinct row computed once.  -> (N,)

    >>> torch.unique(torch.tensor([[1, 2], [1, 2]]), dim=0, return_inverse=True)[1]
    tensor([0, 0])
    """
    was_training = model.training
    model.eval()
    tensors = {name: part for name, part in batch.items() if isinstance(part, Tensor)}
    keys = torch.cat([part.reshape(len(part), -1).double() for part in tensors.values()], dim=1)
    distinct, place = torch.unique(keys, dim=0, return_inverse=True)
    first = torch.full((len(distinct),), len(keys), device=keys.device)
    rows = torch.arange(len(keys), device=keys.device)
    first = first.scatter_reduce(0, place, rows, reduce="amin")
    others = {name: part for name, part in batch.items() if not isinstance(part, Tensor)}
    parts = [model({**{name: part[some] for name, part in tensors.items()}, **others})
             for some in first.split(chunk)]  # fmt: skip
    model.train(was_training)
    return torch.cat(parts)[place]
