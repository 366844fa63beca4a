"""Where the item vectors of a sequence model come from: a free table, texts, or both.

A sequence model reads one table of vectors, row 0 for padding.  These modules build it:

    FreeTable        E                                 (one learnt row per item: "ID")
    AdaptedTable     A(T),  A linear or a small MLP    (T: frozen or tuned text embeddings)
    SumOfTables      E + A(T)
    GatedTables      σ(g) ⊙ E + (1 − σ(g)) ⊙ A(T),  g = W [E; A(T)] + b

Each returns (V + 1, D) in one call per step, because the full softmax needs every row anyway.
"""

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = [
    "AdaptedTable",
    "FreeTable",
    "GatedTables",
    "Kind",
    "SumOfTables",
    "build_item_input",
]

Kind = Literal["id", "text", "sum", "gated"]


class FreeTable(nn.Module):
    """One learnt row per item.  () -> (V + 1, D)

    >>> FreeTable(4, 3)()[0].tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(self, n_items: int, n_dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_items, n_dims))
        nn.init.normal_(self.weight, std=n_dims**-0.5)  # rows of length about one

    def forward(self) -> Tensor:
        return nn.functional.pad(self.weight, (0, 0, 1, 0))


class AdaptedTable(nn.Module):
    """Given embeddings behind a light adapter.  () -> (V + 1, D)

    The embeddings are standardised per dimension first (one affine map that an adapter could learn
    itself, at a cost in steps): language models put nearly all variance into a few directions.
    """

    def __init__(
        self, embeddings: Tensor, n_dims: int, *, adapter: Literal["linear", "mlp"], tuned: bool
    ) -> None:
        super().__init__()
        if not bool(torch.isfinite(embeddings).all()):
            rows = (~torch.isfinite(embeddings).all(dim=1)).nonzero().flatten()[:5].tolist()
            raise ValueError(f"item embeddings hold NaN or infinite values in rows {rows}…; "
                             "extract them again with 24_extract_item_embeddings")  # fmt: skip
        centred = embeddings - embeddings.mean(dim=0)
        scaled = centred / centred.std(dim=0).clamp(min=1e-6)
        if tuned:
            self.embeddings = nn.Parameter(scaled)
        else:
            self.register_buffer("embeddings", scaled)
        d_text = embeddings.shape[1]
        self.adapter: nn.Module
        if adapter == "linear":
            self.adapter = nn.Linear(d_text, n_dims)
        else:
            d_inner = 2 * n_dims
            self.adapter = nn.Sequential(
                nn.Linear(d_text, d_inner), nn.GELU(), nn.Linear(d_inner, n_dims)
            )
        for layer in self.adapter.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self) -> Tensor:
        return nn.functional.pad(self.adapter(self.embeddings), (0, 0, 1, 0))


class SumOfTables(nn.Module):
    """Free rows plus adapted text.  () -> (V + 1, D)"""

    def __init__(self, free: FreeTable, text: AdaptedTable) -> None:
        super().__init__()
        self.free, self.text = free, text

    def forward(self) -> Tensor:
        return self.free() + self.text()


class GatedTables(nn.Module):
    """A gate per item and dimension chooses between free row and text.  () -> (V + 1, D)"""

    def __init__(self, free: FreeTable, text: AdaptedTable) -> None:
        super().__init__()
        self.free, self.text = free, text
        n_dims = free.weight.shape[1]
        self.gate = nn.Linear(2 * n_dims, n_dims)
        nn.init.zeros_(self.gate.weight)  # starts as the plain mean of both
        nn.init.zeros_(self.gate.bias)

    def forward(self) -> Tensor:
        free, text = self.free(), self.text()
        gate = torch.sigmoid(self.gate(torch.cat([free, text], dim=-1)))
        return gate * free + (1 - gate) * text


def build_item_input(
    kind: Kind,
    *,
    n_items: int,
    n_dims: int,
    embeddings: Tensor | None = None,
    adapter: Literal["linear", "mlp"] = "linear",
    tuned: bool = False,
) -> nn.Module:
    """Build one kind of item input; ``embeddings`` has one row per item, without padding.

    >>> build_item_input("id", n_items=5, n_dims=4)().shape
    torch.Size([6, 4])
    """
    if kind == "id":
        return FreeTable(n_items, n_dims)
    if embeddings is None or len(embeddings) != n_items:
        found = "none" if embeddings is None else f"{len(embeddings)} rows"
        raise ValueError(f"item input {kind!r} needs an embedding row for each of {n_items} items, "
                         f"got {found}; extract them from the same prepared histories")  # fmt: skip
    text = AdaptedTable(embeddings, n_dims, adapter=adapter, tuned=tuned)
    if kind == "text":
        return text
    join = {"sum": SumOfTables, "gated": GatedTables}
    if kind not in join:
        raise ValueError(f"unknown item input {kind!r}; expected id, text, sum or gated")
    return join[kind](FreeTable(n_items, n_dims), text)
