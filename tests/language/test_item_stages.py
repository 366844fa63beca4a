"""Masked titles, contrastive titles, extraction, writing."""

import numpy as np
import pytest
import torch

from lib.language.backbone import Backbone, hidden_states, set_attention
from lib.language.collaborative import tokenise_titles
from lib.language.contrast import TitleViews, contrast_loss, mean_pool
from lib.language.embed import embed_tokens, embedding_key, export_sentence_transformer
from lib.language.generate import Trie, write_titles, write_titles_from_catalogue
from lib.language.masked import (
    MaskedTitles,
    Masking,
    mask_token_id,
    mask_tokens,
    masked_guesses,
    masked_title_loss,
)
from lib.language.pretrain import SmallSize, build_small_model, language_loss, pack_blocks
from lib.language.tokens import TokenTable, budget_batches, pad_rows, tokenise
from tests.language.conftest import TEXTS, make_model


def cross_entropy(hidden, table, targets):
    return torch.nn.functional.cross_entropy(hidden @ table.T, targets)


def masking(**changes) -> Masking:
    return Masking(
        **{"share": 0.2, "to_mask": 0.8, "to_random": 0.1, "mask_id": 7, "n_ids": 300, **changes}
    )


def test_shares_of_hidden_tokens_are_those_asked_for(generator):
    ids = torch.full((2000, 50), 9)
    hidden, labels = mask_tokens(ids, torch.ones_like(ids), masking(), generator)
    chosen = labels != -100
    assert not chosen[:, 0].any()
    n = chosen.sum().item()
    # 98,000 draws, 5 standard deviations
    assert n / (2000 * 49) == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / 98_000) ** 0.5)
    assert (hidden[chosen] == 7).float().mean().item() == pytest.approx(0.8 + 0.1 / 300, abs=0.015)
    assert (hidden[chosen] == 9).float().mean().item() == pytest.approx(0.1 + 0.1 / 300, abs=0.012)
    assert (hidden[~chosen] == 9).all()


def test_short_and_padded_titles_always_leave_something_to_predict(generator):
    ids, mask = pad_rows([np.array([5, 6]), np.array([7]), np.array([8, 9, 4])], 0)
    for _ in range(50):
        _, labels = mask_tokens(ids, mask, masking(share=0.01), generator)
        assert ((labels != -100).sum(1) == torch.tensor([1, 0, 1])).all()
        assert (labels[mask == 0] == -100).all()


def test_state_before_a_hidden_token_predicts_it(family, generator):
    model = make_model(family).double()
    set_attention(model, "bidirectional")
    table = TokenTable.from_rows([[5, 6, 7, 8], [9, 10]])
    batch = MaskedTitles(table, np.array([0, 1]), masking(share=0.5), pad_id=0).batch(
        np.array([0, 1]), generator
    )
    logits = model(input_ids=batch["ids"], attention_mask=batch["mask"], use_cache=False).logits
    terms = [-torch.log_softmax(logits[b, i - 1], -1)[batch["labels"][b, i]]
             for b in range(2) for i in range(1, 4) if batch["labels"][b, i] != -100]  # fmt: skip
    loss = masked_title_loss(model, batch, criterion=cross_entropy)
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=0, atol=1e-6)
    expected = [logits[b, i - 1].argmax() == batch["labels"][b, i] for b in range(2) for i in range(1, 4)
                if batch["labels"][b, i] != -100]  # fmt: skip
    assert masked_guesses(model, batch).tolist() == [bool(x) for x in expected]


def test_mask_token_is_found_or_refused(tokenizer):
    assert tokenizer.decode([mask_token_id(tokenizer)]) == "_"
    with pytest.raises(ValueError, match="must be one token"):
        mask_token_id(tokenizer, "zzzz qqqq")


def test_mask_shares_beyond_one_are_refused():
    with pytest.raises(ValueError, match="must not exceed 1"):
        masking(to_mask=0.9, to_random=0.2)


def test_mean_pool_ignores_padding_and_serves_empty_texts(generator):
    states = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    pooled = mean_pool(states, mask)
    torch.testing.assert_close(pooled[0], states[0, :2].mean(0))
    assert not pooled[1].any()
    torch.testing.assert_close(pooled[2], states[2].mean(0))


def test_contrast_sees_two_views_and_the_duplicates():
    table = TokenTable.from_rows([[5, 6], [7, 8, 9], [5, 6]])
    seen = {}

    def criterion(first, second, *, groups):
        seen.update(first=first, second=second, meanings=groups)
        return (first - second).square().sum()

    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        **{**make_model("qwen3").config.to_dict(), "attention_dropout": 0.3}
    )
    model = AutoModelForCausalLM.from_config(config).train()
    set_attention(model, "bidirectional")
    views = TitleViews(table, np.array([0, 1, 2]), pad_id=0)
    loss = contrast_loss(model, views.batch(np.array([2, 1, 0])), criterion=criterion)
    assert loss > 0
    assert seen["meanings"].tolist() == [0, 1, 0]
    model.eval()
    assert contrast_loss(model, views.batch(np.array([0])), criterion=criterion) == 0


def test_vectors_do_not_depend_on_batch_mates_and_empty_titles_are_zero(family):
    model = make_model(family)
    set_attention(model, "bidirectional")
    table = TokenTable.from_rows([[5, 6, 7], [], [8], list(range(1, 30)), [9, 10, 11]])
    together = embed_tokens(model, table, token_budget=1000, pad_id=0)
    for row in range(5):
        alone = embed_tokens(model, TokenTable.from_rows([table[row]]), token_budget=8, pad_id=0)
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)
    assert not together[1].any()
    states = hidden_states(model, torch.tensor([[5, 6, 7]]), None)[0].mean(0)
    np.testing.assert_allclose(together[0], states.detach(), atol=1e-5)


def test_bfloat16_reads_as_autocast_does_with_weights_rounded_once(family, monkeypatch):
    model, product, met = make_model(family), torch.nn.functional.linear, []
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    table = TokenTable.from_rows([[5, 6, 7], [8], list(range(1, 30)), [9, 10, 11]])

    def watched(given, weight, bias=None):
        met.append(weight.dtype)
        return product(given, weight, bias)

    exact = embed_tokens(model, table, token_budget=40, pad_id=0)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        each = [hidden_states(model.eval(), torch.tensor(row)[None].long(), None) for row in table]
    other = np.stack([states[0].float().mean(0) for states in each])
    model.train()
    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    ours = embed_tokens(model, table, token_budget=40, pad_id=0, precision=torch.bfloat16)
    gaps = [np.linalg.norm(found - exact) for found in (ours, other)]
    assert 0 < gaps[0] < 1.1 * gaps[1]
    assert set(met) == ({torch.bfloat16} if family != "gpt2" else set())  # GPT-2 has Conv1D
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert model.training


def test_words_as_they_enter_stand_in_front_of_the_last_states(family):
    model, table = make_model(family), TokenTable.from_rows([[5, 6, 7], [], [8]])
    last = embed_tokens(model, table, token_budget=8, pad_id=0)
    both = embed_tokens(model, table, token_budget=1000, pad_id=0, words=True)
    assert both.shape == (3, 64)
    assert not both[1].any()
    entered = model.get_input_embeddings().weight.detach().numpy()
    for row, ids in ((0, [5, 6, 7]), (2, [8])):
        for found, wanted in ((both[row, :32], entered[ids].mean(0)), (both[row, 32:], last[row])):
            np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_the_name_of_vectors_changes_with_weights_titles_and_attention():
    model, table = make_model("qwen3"), TokenTable.from_rows([[1], [2]])
    names = {embedding_key(model, table, "causal"), embedding_key(model, table, "bidirectional"),
             embedding_key(model, table, "causal", words=True),
             embedding_key(model, TokenTable.from_rows([[1, 2], []]), "causal")}  # fmt: skip
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    names.add(embedding_key(model, table, "causal"))
    assert len(names) == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_sentence_transformers_loads_the_export_and_gives_the_same_vectors(tmp_path, tokenizer):
    from sentence_transformers import SentenceTransformer

    backbone = Backbone(make_model("qwen3", len(tokenizer)), tokenizer)
    set_attention(backbone.model, "bidirectional")
    backbone.tokenizer.chat_template = "{{ messages[0]['content'] }}!!!"
    export_sentence_transformer(backbone, tmp_path / "st", max_tokens=64)
    theirs = SentenceTransformer(str(tmp_path / "st"), device="cpu").encode(TEXTS)
    ours = embed_tokens(
        backbone.model, tokenise(tokenizer, TEXTS, max_tokens=64), token_budget=512, pad_id=0
    )
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert backbone.tokenizer.chat_template is not None


def test_budget_is_kept_and_every_row_comes_once(generator):
    lengths = torch.randint(0, 40, (200,), generator=generator).numpy()
    batches = budget_batches(lengths, 100)
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(len(rows) * lengths[rows].max() <= 100 for rows in batches)
    assert budget_batches(np.array([500]), 100)[0].tolist() == [0]
    assert budget_batches(np.array([], dtype=np.int64), 100) == []


def test_writing_freely_and_from_the_catalogue(tokenizer):
    torch.manual_seed(0)
    backbone = Backbone(make_model("qwen3", len(tokenizer)), tokenizer)
    endings = tokenise_titles(tokenizer, ["", *TEXTS, TEXTS[0]], max_tokens=32).ending
    prompt = torch.tensor(tokenizer.encode("red kettle"))
    assert isinstance(write_titles(backbone, [prompt], max_tokens=4)[0], str)
    trie = Trie(endings)
    rows = write_titles_from_catalogue(backbone, [prompt], trie, n_beams=7, max_tokens=40)[0]
    assert sorted(rows) == list(range(len(TEXTS) + 1))  # seven distinct titles, duplicates once
    scores = []
    for row in rows:  # exact probabilities of every title, by brute force
        target = torch.tensor(endings[row].astype(int))
        ids = torch.cat([prompt, target])[None]
        log_p = torch.log_softmax(backbone.model(input_ids=ids, use_cache=False).logits[0], -1)
        scores.append(sum(log_p[len(prompt) - 1 + i, t].item() for i, t in enumerate(target)))
    assert scores == sorted(scores, reverse=True)


def test_a_small_backbone_learns_its_corpus(tokenizer, generator):
    size = SmallSize(
        d_hidden=16,
        n_layers=1,
        n_heads=2,
        n_key_value_heads=1,
        d_head=8,
        d_inner=16,
        max_positions=64,
    )
    model = build_small_model(size, tokenizer, generator)
    tokens = tokenise(tokenizer, TEXTS * 5, max_tokens=32)
    blocks = torch.from_numpy(
        pack_blocks(tokens, block=16, eos_id=0, generator=np.random.default_rng(1))
    ).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = language_loss(model, {"ids": blocks}, criterion=cross_entropy)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_an_empty_corpus_is_refused():
    with pytest.raises(ValueError, match="no token at all"):
        pack_blocks(
            TokenTable.from_rows([[]]), block=4, eos_id=0, generator=np.random.default_rng(1)
        )
