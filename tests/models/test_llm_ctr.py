"""LLM-CTR: equal to the naive form, frozen where it says so, honest about what it adds."""

import math

import pytest
import torch

from lib.language.backbone import add_lora
from lib.models.deepfm import DeepFM, DeepFMConfig
from lib.models.fields import EmbeddingConfig, Sizes
from lib.models.gen import GENConfig
from lib.models.llm_ctr import (
    LLMCTR,
    LLMCTRConfig,
    Reconstruction,
    predict_distinct,
    reconstruction_loss,
)
from tests.language.conftest import FAMILIES, make_model

PROMPT, ANSWERS = [5, 9, 2, 7], (15, 16)


def make_baseline(n_ids: int = 20) -> DeepFM:
    gen = GENConfig(kind="all_fields", gamma=6.0, activation="relu")
    config = DeepFMConfig(sizes=Sizes(n_ids=n_ids, n_fields=3), embedding=EmbeddingConfig(d_embedding=4, std=0.5),
                          hidden=(8,), dropout=0.5, gen=gen)  # fmt: skip
    return DeepFM(config)


def make(family="qwen3", *, language=None, freeze_baseline=True, **changes) -> LLMCTR:
    torch.manual_seed(6)
    settings = {"form": "faithful", "d_projector": 12, "n_tokens": 0, "base_rate": 0.17, **changes}
    baselines = {"x1": make_baseline(20), "x2": make_baseline(30)}
    for baseline in baselines.values():
        baseline.requires_grad_(not freeze_baseline)
    language = language or make_model(family).requires_grad_(False)
    model = LLMCTR(
        baselines, language, prompt=PROMPT, answers=ANSWERS, config=LLMCTRConfig(**settings)
    )
    if settings["form"] == "residual":
        torch.nn.init.constant_(model.share, 0.7)
    return model.eval()


def batch(n=5, variant="x2", title=False, seed=1):
    g = torch.Generator().manual_seed(seed)
    rows = {"categorical": torch.randint(20, (n, 3), generator=g), "variant": variant}
    if title:
        lengths = torch.randint(0, 4, (n, 1), generator=g)
        rows["title"] = torch.randint(20, 200, (n, 3), generator=g)
        rows["title_mask"] = (torch.arange(3) < lengths).long()
        rows["doubt"] = torch.rand(n, generator=g)
    return rows


@pytest.mark.parametrize("title", [False, True])
@pytest.mark.parametrize("n_tokens", [0, 1, 2])
@pytest.mark.parametrize("form", ["faithful", "residual"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_prompt_spelt_out_with_the_whole_head(family, form, n_tokens, title):
    model = make(family, form=form, n_tokens=n_tokens, reads_title=title)
    rows = batch(title=title)
    soft = model.soft_tokens(rows)
    table = model.language.get_input_embeddings().weight
    for row in range(5):
        parts = [table[torch.tensor(PROMPT)], soft[row]]
        if title:
            parts.append(table[rows["title"][row, : rows["title_mask"][row].sum()]])
        logits = model.language(inputs_embeds=torch.cat(parts)[None], use_cache=False).logits[0, -1]
        expected = logits[16] - logits[15] + model.bias
        if form == "residual":
            own = {k: v[row : row + 1] if k != "variant" else v for k, v in rows.items()}
            share = 0.7 * rows["doubt"][row] if title else 0.7
            expected = model.baselines["x2"](own)[0] + share * expected
        torch.testing.assert_close(model(rows)[row], expected, rtol=0, atol=1e-5)


def test_only_projector_learns_in_phase_one_and_the_encoder_too_in_phase_two():
    for frozen in (True, False):
        model = make(freeze_baseline=frozen).train()
        assert not model.language.training
        assert model.baselines["x2"].training == (not frozen)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        assert not any(name.startswith("tuned") for name in before)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        torch.nn.functional.softplus(-model(batch())).mean().backward()
        assert all(p.grad is None for p in model.language.parameters())
        optimizer.step()
        moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        assert any("projector" in n for n in moved)
        assert any("gen.weight" in n for n in moved) == (not frozen)


def test_residual_form_starts_as_the_baseline():
    model = make(form="residual")
    torch.nn.init.zeros_(model.share)
    torch.testing.assert_close(model(batch()), model.baselines["x2"](batch()))


def test_bias_starts_at_the_logit_of_the_click_rate():
    assert make().bias.item() == pytest.approx(math.log(0.17 / 0.83), rel=1e-6)
    with pytest.raises(ValueError, match="between 0 and 1"):
        make(base_rate=0.0)


def test_tuned_language_model_belongs_to_the_state_and_its_prompt_follows_it():
    tuned = add_lora(make_model("qwen3"), rank=2, alpha=4, dropout=0.0)
    model = make(language=tuned)
    first = model(batch()).detach()
    assert any("lora" in name for name in model.state_dict())
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.3)
    assert not torch.allclose(model(batch()), first)


@pytest.mark.parametrize("title", [False, True])
def test_equal_rows_are_computed_once_and_all_get_their_answer(title):
    model = make(reads_title=title)
    rows = batch(4, title=title)
    index = torch.tensor([2, 0, 0, 3, 1, 2, 2])
    many = {k: v[index] if k != "variant" else v for k, v in rows.items()}
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    found = predict_distinct(model, many, chunk=2)
    assert len(calls) == 2
    torch.testing.assert_close(found, model(many).detach(), rtol=0, atol=1e-6)


def test_reconstruction_reads_every_field_and_changes_the_encoder_gradient():
    model = make(freeze_baseline=False)
    head = Reconstruction(32, 3, 3, 4)
    states, e = model.states(batch())
    loss = reconstruction_loss(head(states), e)
    loss.backward()
    assert model.projector.expand.weight.grad.abs().sum() > 0
    assert reconstruction_loss(e, 3 * e).abs() < 1e-6


def test_baselines_of_different_shapes_cannot_share_a_projector():
    other = DeepFM(
        DeepFMConfig(
            sizes=Sizes(n_ids=9, n_fields=2),
            embedding=EmbeddingConfig(d_embedding=4),
            hidden=(8,),
            dropout=0.0,
        )
    )
    with pytest.raises(ValueError, match="share fields and width"):
        LLMCTR(
            {"x1": make_baseline(), "x2": other},
            make_model("qwen3"),
            prompt=PROMPT,
            answers=ANSWERS,
            config=make().config,
        )


def test_moving_the_model_takes_the_frozen_language_model_along():
    model = make()
    before = model(batch())
    model.double()
    assert {p.dtype for p in model.language.parameters()} == {torch.float64}
    rows = batch()
    torch.testing.assert_close(model(rows).float(), before, rtol=0, atol=1e-4)
