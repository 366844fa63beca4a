"""The soft-token recommender (Stage A, in the manner of CLLM4Rec, Zhu et al., WWW 2024).

    tokens   [ W_u U[u],  W_i E[i_1], …, W_i E[i_T] ]        tables of width d, projected to d_model
    states   h_0 … h_T = W_o LM(tokens)                      back to width d
    score    s(j | u, i_1 … i_t) = h_t · E[j]                every item; no vocabulary is expanded

h_0 sees the user alone and is trained too: the loss is −Σ_t log p(i_t | u, i_<t) from t = 1 on.

NOTE[DIFF] The projected tokens are normed and scaled to the language model's own tokens (with a
learnable gain); the reference's start is a hundred times too short or a thousand times too long.
``token_gain`` starts them elsewhere. In Beauty's backbone a word's entries have a root mean square
of .06 and each of six parts adds .05 to .17, so little of an item is left in the states above it;
at 1 the item stays the larger part, and validation preferred that there and in the demo.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lib.language.soft_tokens import TokenScale, token_rms
from lib.models.dropout import FastDropout
from lib.models.tables import Table

__all__ = ["SoftTokenConfig", "SoftTokenRecommender"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftTokenConfig:
    """Sizes and switches; ``sparse_items`` when the loss is sampled, so that tables stay sparse."""

    n_users: int
    n_items: int
    d_rec: int
    max_len: int
    score: Literal["dot", "cosine"]
    temperature: float
    use_user: bool = True
    user_dropout: float = 0.0  # of whole user tokens, so that histories are read too
    dropout: float = 0.0  # of entries of tokens and states
    token_gain: float | None = None  # where the tokens' scale starts; None: the backbone's words
    sparse_items: bool = False


class SoftTokenRecommender(nn.Module):
    """Users and items as tokens of ``trunk``, a Hugging Face model without its head."""

    def __init__(
        self, trunk: nn.Module, config: SoftTokenConfig, *, titles: Tensor | None = None
    ) -> None:
        """``titles`` (V + 1, D_text): title embeddings added to the item rows by a learnt map."""
        super().__init__()
        if titles is not None and len(titles) != config.n_items + 1:
            raise ValueError(f"titles has {len(titles)} rows, expected {config.n_items + 1} (one "
                             "for each item and row 0 for padding)")  # fmt: skip
        self.trunk, self.config = trunk, config
        d, d_model = config.d_rec, int(trunk.config.hidden_size)  # type: ignore[union-attr,arg-type]
        # A cosine and the token's norm see directions alone, and a step turns a short row further.
        scale = 0.02 if config.score == "cosine" else d**-0.5
        self.users = Table(config.n_users, d, lazy=True, scale=scale)
        self.items = Table(config.n_items + 1, d, lazy=config.sparse_items, scale=scale)
        rms = config.token_gain or token_rms(trunk)  # type: ignore[arg-type]
        self.user_in, self.item_in = (nn.Linear(d, d_model, bias=False) for _ in range(2))
        self.user_scale, self.item_scale = TokenScale(d_model, rms), TokenScale(d_model, rms)
        self.out = nn.Linear(d_model, d, bias=False)
        self._reset_maps()
        self.drop = FastDropout(config.dropout)
        if titles is not None:
            self.register_buffer("titles", _standardise(titles))
            self.title_in = nn.Linear(titles.shape[1], d, bias=False)
            nn.init.zeros_(self.title_in.weight)  # starts as the plain ID model
        else:
            self.titles = None

    @torch.no_grad()
    def _reset_maps(self) -> None:
        """Out undoes in: what the trunk passes on unchanged comes back as the item it was.

        So training starts where a tied SASRec starts, from "more of the same", and not from noise.
        """
        nn.init.orthogonal_(self.item_in.weight)
        nn.init.orthogonal_(self.user_in.weight)
        self.out.weight.copy_(self.item_in.weight.T)

    def item_rows(self, ids: Tensor) -> Tensor:
        """Rows of the item table, with their titles where there are any.  (*,) -> (*, d)"""
        rows = self.items(ids)
        return rows if self.titles is None else rows + self.title_in(self.titles[ids])  # type: ignore[index]

    def item_table(self) -> Tensor:
        """() -> (V + 1, d); row 0 is padding and never competes."""
        table = self.items.weight
        return table if self.titles is None else table + self.title_in(self.titles)  # type: ignore[arg-type]

    def forward(
        self, users: Tensor | None, ids: Tensor, *, user_rows: Tensor | None = None
    ) -> Tensor:
        """States after the user and after each item.  (B,), (B, T) right-padded -> (B, T + 1, d)

        ``user_rows`` (B, d) replaces the table for people who were not in training.
        """
        if ids.shape[1] > self.config.max_len:
            raise ValueError(f"a history of {ids.shape[1]} items, but max_len="
                             f"{self.config.max_len}: keep the newest ones")  # fmt: skip
        first = self._user_token(users, len(ids), user_rows)
        tokens = torch.cat([first[:, None], self.item_scale(self.item_in(self.item_rows(ids)))], 1)
        # Causal and right-padded: no real position can see a pad, so no mask is needed.
        states = self.trunk(inputs_embeds=self.drop(tokens), use_cache=False).last_hidden_state
        return self.out(self.drop(states))

    def train(self, mode: bool = True) -> "SoftTokenRecommender":
        """A frozen trunk stays in ``eval``: GPT-2's own dropout would be noise nothing adapts to"""
        super().train(mode)
        if not any(p.requires_grad for p in self.trunk.parameters()):
            self.trunk.eval()
        return self

    def gradient_checkpointing_enable(self) -> None:
        self.trunk.gradient_checkpointing_enable()  # type: ignore[operator]

    def _user_token(self, users: Tensor | None, n_rows: int, rows: Tensor | None) -> Tensor:
        if not self.config.use_user or (rows is None and users is None):
            rows = self.out.weight.new_zeros(n_rows, self.config.d_rec)
        elif rows is None:
            rows = self.users(users)
        if self.training and self.config.user_dropout:
            keep = torch.rand(n_rows, 1, device=rows.device) >= self.config.user_dropout
            rows = rows * keep
        return self.user_scale(self.user_in(rows))

    def logits_parts(self, states: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """States and item rows whose product is the logits.  (N, d), (V, d)"""
        if self.config.score == "dot":
            return states, table
        unit = nn.functional.normalize
        return unit(states, dim=-1) / self.config.temperature, unit(table, dim=-1)

    @torch.no_grad()
    def user_vectors(
        self, users: Tensor | None, ids: Tensor, lengths: Tensor, *, user_rows: Tensor | None = None
    ) -> Tensor:
        """State after each whole history, ready for a dot product.  (B,), (B, T), (B,) -> (B, d)"""
        states = self(users, ids, user_rows=user_rows)
        last = states[torch.arange(len(ids), device=ids.device), lengths.long()]
        return self.logits_parts(last, last)[0]

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """() -> (V + 1, d)"""
        table = self.item_table().detach()
        return self.logits_parts(table, table)[1]


def _standardise(rows: Tensor) -> Tensor:
    real = rows[1:]
    scaled = (rows - real.mean(dim=0)) / real.std(dim=0).clamp(min=1e-6)
    scaled[0] = 0
    return scaled
