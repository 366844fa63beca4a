"""SASRec against loops, and the promises about padding, time and the last position."""

import math

import pytest
import torch
from torch import Tensor

from lib.models.item_inputs import FreeTable, build_item_input
from lib.models.sasrec import SASRec, SASRecConfig, encode_users, next_item_loss


def make(score: str = "dot", dropout: float = 0.0, n_items: int = 9, heads: int = 2) -> SASRec:
    torch.manual_seed(5)
    config = SASRecConfig(n_dims=8, n_layers=2, n_heads=heads, d_inner=12, max_len=6,
                          dropout=dropout, score=score, temperature=0.2)  # fmt: skip
    return SASRec(FreeTable(n_items, 8), config).double().eval()


def cross_entropy(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(hidden @ table.T, targets)


IDS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([6, 2, 1])


def states_by_loops(model: SASRec, ids: list[int]) -> Tensor:
    """One unpadded history, one head and one position at a time."""
    c, table = model.config, model.items()
    x = [model.norm_input(table[i]) + model.positions[t] for t, i in enumerate(ids)]
    for block in model.blocks:
        qkv = [block.qkv(block.norm_attention(row)).chunk(3) for row in x]
        size = c.n_dims // c.n_heads
        mixed = []
        for t in range(len(x)):
            heads = []
            for h in range(c.n_heads):
                cut = slice(h * size, (h + 1) * size)
                weights = [
                    math.exp(float(qkv[t][0][cut] @ qkv[s][1][cut]) / math.sqrt(size))
                    for s in range(t + 1)
                ]
                heads.append(sum(w * qkv[s][2][cut] for s, w in enumerate(weights)) / sum(weights))
            mixed.append(torch.cat(heads))
        x = [row + block.out(m) for row, m in zip(x, mixed, strict=True)]
        x = [row + block.inner(block.norm_inner(row)) for row in x]
    return torch.stack([model.norm(row) for row in x])


@pytest.mark.parametrize("score", ["dot", "cosine"])
@torch.no_grad()
def test_states_equal_the_loops_of_the_paper(score):
    model = make(score)
    for row, length in zip(IDS, LENGTHS, strict=True):
        expected = states_by_loops(model, row[:length].tolist())
        torch.testing.assert_close(model(row[None])[0, :length], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_last_position_shortcut_equals_the_full_pass(score):
    model = make(score)
    full = model(IDS)[torch.arange(3), LENGTHS - 1]
    scaled, _ = model.logits_parts(full, model.items())
    torch.testing.assert_close(
        model.user_vectors(IDS, LENGTHS), scaled.detach(), rtol=0, atol=1e-12
    )


def test_later_items_and_padding_do_not_move_earlier_states():
    model = make()
    changed = IDS.clone()
    changed[0, 5] = 2
    torch.testing.assert_close(model(changed)[0, :5], model(IDS)[0, :5])
    torch.testing.assert_close(model(IDS[1:2, :2])[0], model(IDS)[1, :2], rtol=0, atol=1e-12)


def test_loss_is_cross_entropy_over_real_items_at_real_positions_with_its_gradient():
    model = make("cosine")
    targets = torch.tensor([[1, 4, 1, 5, 9, 2], [6, 3, 0, 0, 0, 0], [8, 0, 0, 0, 0, 0]])
    loss = next_item_loss(model, {"inputs": IDS, "targets": targets}, criterion=cross_entropy)
    loss.backward()
    fast = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    items = torch.nn.functional.normalize(model.items()[1:], dim=-1)
    terms = []
    for row in range(3):
        for t in range(int((targets[row] > 0).sum())):
            state = torch.nn.functional.normalize(model(IDS[row : row + 1, : t + 1])[0, t], dim=-1)
            terms.append(-torch.log_softmax(items @ state / 0.2, dim=0)[targets[row, t] - 1])
    slow = torch.stack(terms).mean()
    slow.backward()
    torch.testing.assert_close(loss, slow, rtol=0, atol=1e-12)
    for quick, parameter in zip(fast, model.parameters(), strict=True):
        torch.testing.assert_close(quick, parameter.grad, rtol=0, atol=1e-12)


def test_users_encoded_in_chunks_and_alone_agree_and_a_user_without_history_is_served():
    model = make()
    ids = torch.cat([IDS, torch.zeros(1, 6, dtype=torch.long)])
    lengths = torch.tensor([6, 2, 1, 0])
    together = torch.cat(list(encode_users(model, ids, lengths, chunk=4)))
    alone = torch.cat(list(encode_users(model, ids, lengths, chunk=1)))
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["id", "text", "sum", "gated"])
def test_every_item_input_has_a_zero_row_for_padding_and_learns(kind):
    text = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    table = build_item_input(kind, n_items=5, n_dims=4, embeddings=text)
    rows = table()
    assert rows.shape == (6, 4)
    assert not rows[0].any()
    rows.square().sum().backward()
    assert all(p.grad is not None for p in table.parameters())


def test_an_embedding_table_of_another_size_or_with_nan_is_refused():
    with pytest.raises(ValueError, match=r"each of 5 items.*4 rows"):
        build_item_input("sum", n_items=5, n_dims=4, embeddings=torch.zeros(4, 3))
    broken = torch.zeros(5, 3)
    broken[2, 1] = float("nan")
    with pytest.raises(ValueError, match=r"NaN.*\[2\]"):
        build_item_input("text", n_items=5, n_dims=4, embeddings=broken)


def test_a_history_longer_than_the_model_is_refused():
    with pytest.raises(ValueError, match="max_len=6"):
        make()(torch.ones(1, 7, dtype=torch.long))
