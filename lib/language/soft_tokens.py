"""Vectors from elsewhere as tokens of a language model, at the scale of its own tokens.

A soft token that is thirty times as long as a word, or a hundredth of it, is either all the model
hears or nothing.  So every projector ends in a norm and a learnable gain that starts at the root
mean square of the backbone's own token rows.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["AttentionPool", "Projector", "TokenScale", "answer_ids", "read_answers", "token_rms"]


@torch.no_grad()
def token_rms(model: PreTrainedModel) -> float:
    """Root mean square of the entries of the model's token rows."""
    return float(model.get_input_embeddings().weight.float().square().mean().sqrt())


class TokenScale(nn.Module):
    """Norm, then one learnable gain that starts at the backbone's token RMS.  (*, D) -> (*, D)

    >>> TokenScale(4, 0.5)(torch.tensor([[1.0, -1.0, 1.0, -1.0]]) * 9)
    tensor([[ 0.5000, -0.5000,  0.5000, -0.5000]], grad_fn=<MulBackward0>)
    """

    def __init__(self, n_dims: int, rms: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_dims, elementwise_affine=False)
        self.gain = nn.Parameter(torch.tensor(float(rms)))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.gain


class Projector(nn.Module):
    """d_in -> d_inner -> d_model at token scale, field by field.  (B, S, d_in) -> (B, S, d_model)

    ``n_slots`` learnt vectors tell the slots apart: without them the model could not know which
    field a token came from.
    """

    def __init__(self, d_in: int, d_inner: int, d_model: int, *, n_slots: int, rms: float) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(d_in, d_inner), nn.Linear(d_inner, d_model)
        self.slots = nn.Parameter(torch.zeros(n_slots, d_model))
        self.scale = TokenScale(d_model, rms)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.contract(nn.functional.gelu(self.expand(x))) + self.slots)


class AttentionPool(nn.Module):
    """F fields into S tokens by S learnt queries.  (B, F, D) -> (B, S, D)

    The model's cost is linear in S, and 24 fields rarely say 24 different things.
    """

    def __init__(self, n_dims: int, n_tokens: int, n_fields: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(n_tokens, n_dims) * n_dims**-0.5)
        self.keys = nn.Linear(n_dims, n_dims)
        self.fields = nn.Parameter(torch.randn(n_fields, n_dims) * n_dims**-0.5)
        self.values = nn.Linear(n_dims, n_dims)

    def forward(self, x: Tensor) -> Tensor:
        keys = self.keys(x) + self.fields
        weights = (keys @ self.queries.T * x.shape[-1] ** -0.5).softmax(dim=1)  # (B, F, S)
        return weights.transpose(1, 2) @ self.values(x)


def answer_ids(tokenizer: object, no: str, yes: str) -> tuple[int, int]:
    """The ids of the two answers, each one token and different, or a refusal."""
    found = [tokenizer.encode(text, add_special_tokens=False) for text in (no, yes)]  # type: ignore[attr-defined]
    if any(len(ids) != 1 for ids in found) or found[0] == found[1]:
        raise ValueError(
            f"answers {no!r} and {yes!r} become tokens {found[0]} and {found[1]}; expected one "
            "token each, and different ones: try '0' and '1', or 'No' and 'Yes'"
        )
    return found[0][0], found[1][0]


def read_answers(state: Tensor, head: Tensor, ids: tuple[int, int]) -> Tensor:
    """logit(yes) − logit(no), from two rows of the head.  (B, D), (V, D) -> (B,)"""
    return state @ (head[ids[1]] - head[ids[0]])
