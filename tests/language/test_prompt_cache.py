"""The stored prompt must be exact: states, gradients, padding, reuse, checkpointing, tuning."""

import pytest
import torch

from lib.language.attention import FUSED
from lib.language.backbone import add_lora, set_attention
from lib.language.prompt_cache import allow_checkpointing, continue_from, encode_prompt
from lib.language.soft_tokens import (
    AttentionPool,
    Projector,
    TokenScale,
    answer_ids,
    read_answers,
    token_rms,
)
from tests.language.conftest import make_model
from tests.language.stories import load_stories

PROMPT = [5, 9, 2, 7, 11]


def naive(model, soft, mask=None):
    """The prompt spelt out in front of every row."""
    table = model.get_input_embeddings().weight
    text = table[torch.tensor(PROMPT)].expand(len(soft), -1, -1)
    full = None if mask is None else torch.nn.functional.pad(mask, (len(PROMPT), 0), value=1)
    both = torch.cat([text, soft], dim=1)
    return model.base_model(
        inputs_embeds=both, attention_mask=full, use_cache=False
    ).last_hidden_state[:, len(PROMPT) :]


def draw(generator, n_rows=3, n_soft=4, width=32, dtype=torch.float64):
    return torch.randn(n_rows, n_soft, width, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("implementation", [FUSED, "sdpa", "eager"])
@pytest.mark.parametrize("n_soft", [1, 4])
def test_states_and_gradients_equal_the_naive_form_over_many_steps(
    family, n_soft, implementation, generator
):
    model = make_model(family, implementation=implementation).double().requires_grad_(False)
    cache = encode_prompt(model, PROMPT)
    for _ in range(3):  # a growing cache would be wrong from the second step on
        soft = draw(generator, n_soft=n_soft)
        a, b = continue_from(model, cache, soft), naive(model, soft)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)  # rotary angles are float32
        weights = torch.randn(a.shape, generator=generator, dtype=torch.float64)
        gradients = [torch.autograd.grad((x * weights).sum(), soft)[0] for x in (a, b)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


def test_padded_rows_equal_themselves_alone(family, generator):
    model = make_model(family).double().requires_grad_(False)
    cache, soft = encode_prompt(model, PROMPT), draw(generator)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    states = continue_from(model, cache, soft, mask)
    for row, length in enumerate([4, 2, 1]):
        alone = continue_from(model, cache, soft[row : row + 1, :length])
        torch.testing.assert_close(states[row, :length], alone[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(states[:, :1], naive(model, soft, mask)[:, :1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama"])
def test_checkpointing_gives_the_same_gradient_where_it_is_legal(kind, generator):
    model = make_model(kind).requires_grad_(False)
    soft = draw(generator, dtype=torch.float32)
    cache = encode_prompt(model, PROMPT)
    plain = torch.autograd.grad(continue_from(model, cache, soft).square().sum(), soft)[0]
    allow_checkpointing(model, PROMPT)
    stored = torch.autograd.grad(continue_from(model, cache, soft).square().sum(), soft)[0]
    torch.testing.assert_close(plain, stored)


def test_checkpointing_is_refused_where_the_prompt_would_be_lost():
    with pytest.raises(ValueError, match="loses the stored prompt"):
        allow_checkpointing(make_model("gpt2").requires_grad_(False), PROMPT)


def test_a_tuned_model_encodes_its_prompt_anew_with_the_right_gradient(generator):
    soft = draw(generator, dtype=torch.float32)
    gradients = []
    for form in ("cached", "naive"):
        tuned = add_lora(make_model("qwen3"), rank=2, alpha=4, dropout=0.0)
        for weight in tuned.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(1))
        if form == "cached":
            states = continue_from(tuned, encode_prompt(tuned, PROMPT), soft)
        else:
            states = naive(tuned.get_base_model(), soft)
        states.square().sum().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])
        )
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_the_prompt_is_asked_by_all_rows_at_once_and_copied_for_none(generator):
    model = make_model("qwen3").requires_grad_(False)
    cache, kept = encode_prompt(model, PROMPT), []
    soft = draw(generator, n_rows=50, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        continue_from(model, cache, soft)
    # one key head is (rows, length, 8); with the prompt in front its length would be nine
    assert not [
        x.shape for x in kept if x.dim() == 4 and x.shape[0] == 50 and x.shape[2:] == (9, 8)
    ]
    stored = {part.data_ptr() for layer in cache.layers for part in (layer.keys, layer.values)}
    assert stored <= {x.data_ptr() for x in kept}


def test_a_model_that_loses_the_prompt_on_its_way_is_refused(generator):
    """One soft token needs no mask, so nothing else would notice."""
    model = make_model("qwen3").requires_grad_(False)
    cache = encode_prompt(model, PROMPT)
    model.set_attn_implementation("sdpa")  # knows nothing of a prompt on the keys
    with pytest.raises(ValueError, match="does not hand the stored prompt to its attention"):
        continue_from(model, cache, draw(generator, n_soft=1, dtype=torch.float32))


def test_the_real_260k_model_keeps_its_prompt(shared_data, generator):
    model = load_stories(shared_data / "stories260k").double().requires_grad_(False)
    soft = draw(generator, width=64)
    a, b = continue_from(model, encode_prompt(model, PROMPT), soft), naive(model, soft)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_model_that_is_not_a_constant_is_refused():
    model = make_model("gpt2").train()
    with pytest.raises(ValueError, match=r"call \.eval\(\)"):
        encode_prompt(model, PROMPT)
    model = make_model("qwen3")
    set_attention(model, "bidirectional")
    with pytest.raises(ValueError, match="only under causal attention"):
        encode_prompt(model, PROMPT)
    with pytest.raises(ValueError, match="no tokens"):
        encode_prompt(make_model("qwen3"), [])


def test_soft_tokens_start_at_the_scale_of_words(family, generator):
    model = make_model(family)
    rms = token_rms(model)
    projector = Projector(16, 24, 32, n_slots=5, rms=rms)
    soft = projector(100 * torch.randn(3, 5, 16, generator=generator))
    assert soft.square().mean().sqrt().item() == pytest.approx(rms, rel=0.02)
    assert isinstance(projector.scale, TokenScale)


def test_pool_ignores_the_batch_and_returns_the_number_of_tokens_asked(generator):
    pool = AttentionPool(8, n_tokens=3, n_fields=6)
    x = torch.randn(4, 6, 8, generator=generator)
    assert pool(x).shape == (4, 3, 8)
    torch.testing.assert_close(pool(x)[2:3], pool(x[2:3]))


def test_answers_are_single_different_tokens_or_refused(tokenizer):
    no, yes = answer_ids(tokenizer, "0", "1")
    assert no != yes
    with pytest.raises(ValueError, match="one token each"):
        answer_ids(tokenizer, "0", "0")
    with pytest.raises(ValueError, match="one token each"):
        answer_ids(tokenizer, "0", "zz top")


@pytest.mark.parametrize(("name", "expected"), [("qwen3", (15, 16)), ("gpt2", (15, 16))])
def test_answers_of_the_real_tokenizers(shared_data, name, expected):
    from transformers import GPT2Tokenizer, Qwen2Tokenizer

    folder = shared_data / "tokenizers" / name
    tokenizer = (
        Qwen2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
        if name == "qwen3"
        else GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
    )
    assert answer_ids(tokenizer, "0", "1") == expected
    if name == "qwen3":
        with pytest.raises(ValueError, match="one token each"):
            answer_ids(tokenizer, " 0", " 1")


def test_two_rows_of_the_head_give_the_difference_of_the_logits(generator):
    state, head = torch.randn(3, 8, generator=generator), torch.randn(20, 8, generator=generator)
    logits = state @ head.T
    torch.testing.assert_close(read_answers(state, head, (15, 16)), logits[:, 16] - logits[:, 15])
