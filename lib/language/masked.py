"""Masked next-token prediction over titles (MNTP), the first half of LLM2Rec's item stage.

    hide a share of the title's tokens, look both ways, and let the state at i−1 predict token i

Of the hidden tokens 80 % become the mask token, 10 % a random one and 10 % stay (then a
bidirectional model sees its own answer: the share is a parameter).  The token at position 0 has no
state before it and is never a label.  Qwen has no mask token; the paper's code uses "_".
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from lib.language.backbone import hidden_states
from lib.language.pretrain import Criterion
from lib.language.tokens import TokenTable, pad_rows

__all__ = [
    "MaskedTitles",
    "Masking",
    "mask_token_id",
    "mask_tokens",
    "masked_guesses",
    "masked_title_loss",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """How much is hidden, and what a hidden token turns into."""

    share: float
    to_mask: float
    to_random: float
    mask_id: int
    n_ids: int

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.to_mask + self.to_random > 1 + 1e-9:
            raise ValueError(
                f"share={self.share} must lie between 0 and 1, and to_mask={self.to_mask} plus "
                f"to_random={self.to_random} must not exceed 1"
            )


def mask_token_id(tokenizer: Tokenizer, text: str = "_") -> int:
    """The tokenizer's own mask token, or the one token of ``text``."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"the stand-in for a mask must be one token, but {text!r} has {len(ids)}")
    return int(ids[0])


def mask_tokens(
    ids: Tensor, mask: Tensor, masking: Masking, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide tokens.  (B, L), (B, L) -> hidden ids (B, L), labels (B, L) with -100 elsewhere

    Every title of two tokens or more gets at least one label, so that no batch is empty.
    """
    eligible = mask.bool().clone()
    eligible[:, 0] = False
    draw = torch.rand(ids.shape, generator=generator)
    chosen = (draw < masking.share) & eligible
    lacking = ~chosen.any(dim=1) & eligible.any(dim=1)
    smallest = draw.masked_fill(~eligible, 2.0).argmin(dim=1)
    chosen[lacking, smallest[lacking]] = True

    fate = torch.rand(ids.shape, generator=generator)
    random_ids = torch.randint(masking.n_ids, ids.shape, generator=generator)
    hidden = torch.where(chosen & (fate < masking.to_mask), masking.mask_id, ids)
    is_random = (fate >= masking.to_mask) & (fate < masking.to_mask + masking.to_random)
    hidden = torch.where(chosen & is_random, random_ids, hidden)
    return hidden, torch.where(chosen, ids, -100)


class MaskedTitles:
    """Titles to hide tokens of, by row; what is hidden is drawn anew for every batch."""

    def __init__(
        self, titles: TokenTable, rows: NDArray[np.int64], masking: Masking, *, pad_id: int
    ) -> None:
        self.titles, self.rows, self.masking, self.pad_id = titles, rows, masking, pad_id
        self.lengths = titles.lengths[rows]

    def batch(self, indices: NDArray[np.int64], generator: torch.Generator) -> dict[str, Tensor]:
        """Hidden titles and what they hide."""
        ids, mask = pad_rows([self.titles[row] for row in self.rows[indices]], self.pad_id)
        hidden, labels = mask_tokens(ids, mask, self.masking, generator)
        return {"ids": hidden, "mask": mask, "labels": labels}


def masked_title_loss(
    model: nn.Module, batch: dict[str, Tensor], *, criterion: Criterion
) -> Tensor:
    """Mean of -log p(hidden token i | state at i−1); the head sees only those states.  -> ()"""
    states, labels = _predicting(model, batch)
    return criterion(states, model.get_output_embeddings().weight, labels)  # type: ignore[operator]


@torch.no_grad()
def masked_guesses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """For each hidden token whether it is guessed right.  -> (N,) bool"""
    states, labels = _predicting(model, batch)
    guesses = (states @ model.get_output_embeddings().weight.T).argmax(dim=-1)  # type: ignore[operator]
    return guesses == labels


def _predicting(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    states = hidden_states(model, batch["ids"], batch["mask"])[:, :-1]
    labels = batch["labels"][:, 1:]
    wanted = labels != -100
    return states[wanted], labels[wanted]
