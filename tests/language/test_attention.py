"""Fused attention in float32: the library's own numbers, whatever autocast says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.language.attention import FUSED, attend, behind_prompt
from lib.language.backbone import hidden_states, set_attention
from lib.language.prompt_cache import ReadOnlyLayer
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


def attend_one_by_one(query, key, value, prompt, kept, scaling):
    """One query at a time: the prompt, then the row's own kept tokens up to itself."""
    n_rows, n_heads, n_own, width = query.shape
    share = n_heads // key.shape[1]
    out = torch.zeros(n_rows, n_own, n_heads, width, dtype=query.dtype)
    for row in range(n_rows):
        for head in range(n_heads):
            for place in range(n_own):
                own = [t for t in range(place + 1) if kept[row, t]]
                keys = torch.cat([prompt[0][0, head // share], key[row, head // share, own]])
                values = torch.cat([prompt[1][0, head // share], value[row, head // share, own]])
                weights = (keys @ query[row, head, place] * scaling).softmax(0)
                out[row, place, head] = weights @ values
    return out


@given(
    st.integers(1, 3), st.sampled_from([(2, 1), (4, 2), (3, 3)]), st.integers(1, 4),
    st.integers(1, 5), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_behind_a_prompt_equals_one_query_at_a_time(
    n, heads, own, n_prompt, pads, hides, scaled, seed
):
    generator = torch.Generator().manual_seed(seed)
    shapes = [
        (n, heads[0], own, 6),
        *[(n, heads[1], own, 6)] * 2,
        *[(1, heads[1], n_prompt, 6)] * 2,
    ]
    parts = [
        torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes
    ]
    kept = torch.ones(n, own, dtype=torch.bool)
    if pads:  # right-padded; a row may have no token of its own
        kept = torch.arange(own) < torch.randint(0, own + 1, (n, 1), generator=generator)
    seen = torch.ones(own, own, dtype=torch.bool).tril() & kept[:, None, None, :]
    reach = torch.rand(n_prompt, generator=generator) < 0.7 if hides else torch.ones(n_prompt) > 0
    reach[0] = True
    mask = torch.cat([reach.expand(n, 1, own, -1), seen.expand(n, 1, own, own)], -1)
    mask = mask if pads or hides else None
    scaling = 0.3 if scaled else None
    query, key, value, *prompt = parts
    found = behind_prompt(query, key, value, tuple(prompt), mask, scaling)
    near = [part[:, :, reach] for part in prompt]  # as under a window that leaves some out
    wanted = attend_one_by_one(query, key, value, near, kept, scaling or 6**-0.5)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad((x * weights).sum(), parts) for x in (found, wanted)),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b)


def test_behind_a_prompt_short_floats_are_widened_on_a_cpu():
    shapes = (2, 4, 3, 6), (2, 2, 3, 6), (2, 2, 3, 6), (1, 2, 5, 6), (1, 2, 5, 6)
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(shape, generator=generator) for shape in shapes]
    query, key, value = (part.bfloat16() for part in parts[:3])
    exact = behind_prompt(
        query.double(), key.double(), value.double(), tuple(parts[3:]), None, None
    )
    key.prompt = ReadOnlyLayer(*parts[3:], shared=True)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = attend(torch.nn.Module(), query, key, value, None)
    assert found.dtype == torch.bfloat16
    assert (found.double() - exact).abs().max() < 0.01


def test_behind_a_prompt_dropout_scales_what_it_keeps():
    """One token asks a prompt whose values are all one: the mean stays one, single queries do not."""
    query, own = torch.randn(4000, 1, 1, 2), torch.ones(4000, 1, 1, 2)
    prompt = torch.zeros(1, 1, 3, 2), torch.ones(1, 1, 3, 2)
    found = behind_prompt(query, torch.zeros_like(own), own, prompt, None, None, 0.5)
    assert found.mean().item() == pytest.approx(1, abs=0.05)
    assert found.std() > 0.3
    assert (
        behind_prompt(query, torch.zeros_like(own), own, prompt, None, None) - 1
    ).abs().max() < 1e-6
