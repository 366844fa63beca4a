import math

import pytest
import torch

from lib.models.attention import Attention, TransformerBlock, attend


def attend_by_loops(q, k, v, mask, n_heads):
    """Softmax attention, one row, head and query at a time."""
    width = q.shape[-1] // n_heads
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        keys = [i for i in range(k.shape[1]) if mask[b, i]]
        for h in range(n_heads):
            part = slice(h * width, (h + 1) * width)
            for t in range(q.shape[1]):
                if not keys:
                    continue
                scores = torch.stack([q[b, t, part] @ k[b, i, part] for i in keys])
                weights = torch.softmax(scores / math.sqrt(width), dim=0)
                total = sum(w * v[b, i, part] for w, i in zip(weights, keys, strict=True))
                out[b, t, part] = total
    return out


def test_attention_and_its_gradient_equal_the_loops(generator):
    q, k, v = (torch.randn(3, 4, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    fast = attend(q, k, v, n_heads=2, key_mask=mask)
    slow = attend_by_loops(q, k, v, mask, 2)
    torch.testing.assert_close(fast, slow)
    weight = torch.randn(slow.shape, generator=generator, dtype=torch.float64)
    fast_gradients = torch.autograd.grad((fast * weight).sum(), (q, k, v))
    slow_gradients = torch.autograd.grad((slow * weight).sum(), (q, k, v))
    torch.testing.assert_close(fast_gradients, slow_gradients)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_attention_with_dropout_has_the_mean_of_attention_without(dtype, generator):
    torch.manual_seed(5)
    q, k, v = (torch.randn(1, 4, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([[True, True, False, True]])
    expected = attend(q, k, v, n_heads=2, key_mask=mask)
    many = [part.to(dtype).expand(20_000, -1, -1) for part in (q, k, v)]
    mean = attend(*many, n_heads=2, key_mask=mask.expand(20_000, -1), dropout=0.25).double().mean(0)
    # 20,000 draws, weights at most 1 and values below 3: three spreads of the mean are below 0.04
    torch.testing.assert_close(mean[None], expected, atol=0.04, rtol=0)


def test_a_row_of_padding_returns_zeros_and_a_finite_gradient():
    x = torch.randn(1, 3, 4, requires_grad=True)
    out = attend(x, x, x, n_heads=2, key_mask=torch.zeros(1, 3, dtype=torch.bool))
    out.sum().backward()
    assert torch.equal(out, torch.zeros(1, 3, 4))
    assert torch.isfinite(x.grad).all()


def test_asking_for_the_first_position_gives_the_first_position_of_all(generator):
    x = torch.randn(2, 5, 8, generator=generator)
    attention = Attention(8, n_heads=2, dropout=0.0)
    torch.testing.assert_close(attention(x, n_queries=1), attention(x)[:, :1])


def test_a_block_ignores_what_stands_in_masked_positions(generator):
    x = torch.randn(2, 5, 8, generator=generator)
    mask = torch.arange(5) < torch.tensor([[2], [5]])
    block = TransformerBlock(8, n_heads=2, d_hidden=8, dropout=0.0)
    changed = torch.where(mask[:, :, None], x, 100.0)
    torch.testing.assert_close(block(x, key_mask=mask)[mask], block(changed, key_mask=mask)[mask])


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="d=6 must be a multiple of n_heads=4"):
        Attention(6, n_heads=4, dropout=0.0)
