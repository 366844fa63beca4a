"""Fused attention in float32: the library's own numbers, whatever autocast says."""

import pytest
import torch

from lib.language.attention import FUSED
from lib.language.backbone import hidden_states, set_attention
from tests.language.conftest import make_model

IDS = torch.randint(1, 300, (3, 7), generator=torch.Generator().manual_seed(1))
PADDED = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])


def states_and_gradient(family, implementation, mask, attention, half=False):
    model = make_model(family, implementation=implementation)
    set_attention(model, attention)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        states = hidden_states(model, IDS, mask)
    kept = torch.ones_like(IDS) if mask is None else mask
    weights = torch.arange(float(states.numel())).cos().view(states.shape)
    (states.float() * weights * kept[..., None]).sum().backward()
    return states.detach().float() * kept[..., None], model.get_input_embeddings().weight.grad


@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_the_librarys_numbers_and_gradients_in_float32(family, mask, attention):
    ours = states_and_gradient(family, FUSED, mask, attention)
    for found, wanted in zip(
        ours, states_and_gradient(family, "eager", mask, attention), strict=True
    ):
        assert (found - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "padded"])
def test_under_autocast_no_further_from_float32_than_the_librarys_own(family, mask):
    exact = states_and_gradient(family, "eager", mask, "causal")
    ours = states_and_gradient(family, FUSED, mask, "causal", half=True)
    theirs = states_and_gradient(family, "sdpa", mask, "causal", half=True)
    for right, own, other in zip(exact, ours, theirs, strict=True):
        error = (own - right).norm() / right.norm()
        assert 0 < error < max(1.2 * (other - right).norm() / right.norm(), 0.005)


def test_the_kernel_meets_float32_on_a_cpu(family, monkeypatch):
    kernel, met = torch.nn.functional.scaled_dot_product_attention, []

    def watched(query, key, value, *rest, **options):
        met.append((query.dtype, key.dtype, value.dtype, torch.is_autocast_enabled("cpu")))
        return kernel(query, key, value, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    states_and_gradient(family, FUSED, None, "causal", half=True)
    assert set(met) == {(torch.float32,) * 3 + (False,)}
