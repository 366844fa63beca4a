"""The soft-token recommender: what it sees, what it predicts, and what moves."""

import pytest
import torch

from lib.models.soft_token import SoftTokenConfig, SoftTokenRecommender
from lib.studies.soft_token_loss import LossConfig, SoftTokenLoss
from tests.language.conftest import FAMILIES, make_model

ITEMS = torch.tensor([[3, 1, 4, 2], [2, 5, 0, 0], [5, 0, 0, 0]])
USERS = torch.tensor([0, 3, 1])


def make(family: str = "qwen3", *, titles: bool = False, **changes) -> SoftTokenRecommender:
    torch.manual_seed(4)
    settings = {
        "n_users": 4,
        "n_items": 6,
        "d_rec": 8,
        "max_len": 5,
        "score": "dot",
        "temperature": 0.5,
        **changes,
    }
    rows = torch.randn(7, 5) if titles else None
    model = SoftTokenRecommender(
        make_model(family).base_model, SoftTokenConfig(**settings), titles=rows
    )
    return model.double().eval()


def cross_entropy(model, *, predict=ITEMS > 0):
    """The loss that is trained, of the whole softmax alone."""
    config = LossConfig(
        softmax="full", full_up_to=6, n_sampled=1, collaborative=1.0, bpr=0.0, regularisation=0.0,
        lambda_c=0.0, n_negatives=1, pool="shared",
    )  # fmt: skip
    batch = {"users": USERS, "items": ITEMS, "predict": predict}
    return SoftTokenLoss(config, sampler=None)(model, batch)["softmax"]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_same_padded_and_alone_and_never_see_the_future(family):
    model = make(family)
    together = model(USERS, ITEMS)
    for row, length in enumerate([4, 2, 1]):
        alone = model(USERS[row : row + 1], ITEMS[row : row + 1, :length])
        torch.testing.assert_close(together[row, : length + 1], alone[0], rtol=0, atol=1e-6)
    changed = ITEMS.clone()
    changed[0, 3] = 6
    torch.testing.assert_close(model(USERS, changed)[0, :4], together[0, :4])
    assert not torch.allclose(model(USERS, changed)[0, 4], together[0, 4])


@pytest.mark.parametrize("score", ["dot", "cosine"])
@pytest.mark.parametrize("titles", [False, True])
@pytest.mark.parametrize("held", [4, 2])
def test_loss_is_the_mean_over_all_training_targets_the_first_included(score, titles, held):
    """``held``: from which place of the first row on an item belongs to another split."""
    model = make(score=score, titles=titles)
    if titles:
        torch.nn.init.normal_(model.title_in.weight)
    predict = ITEMS > 0
    predict[0, held:] = False
    loss = cross_entropy(model, predict=predict)
    loss.backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    table = model.item_rows(torch.arange(1, 7))
    if score == "cosine":
        table = torch.nn.functional.normalize(table, dim=-1)
    terms = []
    for row, length in enumerate([held, 2, 1]):
        for t in range(length):  # only what came before is given
            state = model(USERS[row : row + 1], ITEMS[row : row + 1, :t])[0, -1]
            if score == "cosine":
                state = torch.nn.functional.normalize(state, dim=-1) / 0.5
            terms.append(-torch.log_softmax(table @ state, 0)[ITEMS[row, t] - 1])
    slow = torch.stack(terms).mean()
    slow.backward()
    torch.testing.assert_close(loss, slow, rtol=0, atol=1e-5)  # rotary angles are float32
    assert "items.weight" in fast
    for name, p in model.named_parameters():
        if name in fast and name != "users.weight":
            torch.testing.assert_close(fast[name], p.grad, rtol=0, atol=1e-5)


def test_tokens_start_at_the_length_of_words_or_where_they_are_told_to():
    words = make_model("qwen3").get_input_embeddings().weight.detach()
    rms = float(words.double().square().mean().sqrt())
    for told, expected in ((None, rms), (1.5, 1.5)):
        model = make(token_gain=told)
        tokens = []
        hook = model.trunk.register_forward_pre_hook(
            lambda _m, _a, given, kept=tokens: kept.append(given["inputs_embeds"]), with_kwargs=True
        )
        model(USERS, ITEMS)
        hook.remove()
        lengths = tokens[0][0].square().mean(dim=-1).sqrt()  # a norm's epsilon takes a little
        torch.testing.assert_close(lengths, torch.full_like(lengths, expected), rtol=2e-2, atol=0)


def test_a_frozen_trunk_gets_no_gradient_and_the_tables_do():
    model = make()
    model.trunk.requires_grad_(False)
    model.train()
    cross_entropy(model).backward()
    assert all(p.grad is None for p in model.trunk.parameters())
    rows, gradient = model.users.take_touched()
    assert rows.tolist() == [0, 1, 3]
    assert gradient.abs().sum() > 0


def test_user_token_matters_and_can_be_replaced_by_given_rows():
    model = make()
    own = model(USERS, ITEMS)
    assert not torch.allclose(own, model(USERS.flip(0), ITEMS))
    rows = model.users.weight[USERS]
    torch.testing.assert_close(model(None, ITEMS, user_rows=rows), own)
    nobody = make(use_user=False)
    torch.testing.assert_close(nobody(USERS, ITEMS), nobody(USERS.flip(0), ITEMS))


def test_user_vectors_are_the_last_real_state_and_history_may_be_empty():
    model = make("gpt2", score="cosine")
    ids = torch.cat([ITEMS, torch.zeros(1, 4, dtype=torch.long)])
    users, lengths = torch.tensor([0, 3, 1, 2]), torch.tensor([4, 2, 1, 0])
    vectors = model.user_vectors(users, ids, lengths)
    alone = model.user_vectors(users[3:], ids[3:, :0], lengths[3:])
    torch.testing.assert_close(vectors[3:], alone, rtol=0, atol=1e-6)
    assert (vectors.norm(dim=-1) - 2).abs().max() < 1e-9


def test_titles_of_another_catalogue_and_long_histories_are_refused():
    with pytest.raises(ValueError, match="expected 7"):
        SoftTokenRecommender(
            make_model("qwen3").base_model, make().config, titles=torch.zeros(6, 3)
        )
    with pytest.raises(ValueError, match="max_len=5"):
        make()(USERS[:1], torch.ones(1, 6, dtype=torch.long))
