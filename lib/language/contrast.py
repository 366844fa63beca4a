"""Contrastive titles, the second half of LLM2Rec's item stage (SimCSE, Gao et al. 2021).

The same title is encoded twice under different attention dropout; each view must find its twin
among the batch.  Titles that are equal as token ids are one meaning and never each other's
negatives.  Qwen and Llama have no dropout but the attention's, which must be set when the model is
loaded (``load_backbone(attention_dropout=…)``).
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.language.backbone import hidden_states
from lib.language.tokens import TokenTable, pad_rows

__all__ = ["PairCriterion", "TitleViews", "contrast_loss", "mean_pool", "meaning_ids"]


class PairCriterion(Protocol):
    """InfoNCE: (B, D), (B, D), (B,) groups -> (); rows of one group do not repel each other."""

    def __call__(self, first: Tensor, second: Tensor, *, groups: Tensor) -> Tensor: ...


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, in float32; a text without tokens gives zeros.

    (B, L, D), (B, L) -> (B, D)

    >>> mean_pool(torch.ones(1, 2, 3), torch.tensor([[1, 0]]))
    tensor([[1., 1., 1.]])
    """
    weights = mask[..., None].to(states.dtype if states.dtype == torch.float64 else torch.float32)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def meaning_ids(titles: TokenTable) -> NDArray[np.int64]:
    """One number per distinct title, so that duplicates can be told.

    >>> meaning_ids(TokenTable.from_rows([[1, 2], [3], [1, 2]])).tolist()
    [0, 1, 0]
    """
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(titles[row].tobytes(), len(known))
                     for row in range(len(titles))], dtype=np.int64)  # fmt: skip


class TitleViews:
    """Titles to be read twice, by row, with the number of what each means."""

    def __init__(self, titles: TokenTable, rows: NDArray[np.int64], *, pad_id: int) -> None:
        self.titles, self.rows, self.pad_id = titles, rows, pad_id
        self.lengths, self.meanings = titles.lengths[rows], meaning_ids(titles)[rows]

    def batch(
        self, indices: NDArray[np.int64], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Ids, mask and meanings; the two readings differ by the model's own dropout."""
        del generator  # nothing is drawn here
        ids, mask = pad_rows([self.titles[row] for row in self.rows[indices]], self.pad_id)
        return {"ids": ids, "mask": mask, "meanings": torch.from_numpy(self.meanings[indices])}


def contrast_loss(
    model: nn.Module, batch: dict[str, Tensor], *, criterion: PairCriterion
) -> Tensor:
    """Two passes under different dropout, compared.  -> ()"""
    first, second = (
        mean_pool(hidden_states(model, batch["ids"], batch["mask"]), batch["mask"])
        for _ in range(2)
    )
    return criterion(first, second, groups=batch["meanings"])
