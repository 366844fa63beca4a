import itertools

import pytest
import torch

from lib.models.fields import EmbeddingConfig, Sizes
from lib.models.two_tower import TwoTower, TwoTowerConfig


def make(sizes, **options):
    torch.manual_seed(1)
    plain = {"item_fields": (2, 0), "hidden": (8,), "d_out": 3, "temperature": 0.2, "dropout": 0.0}
    embedding = EmbeddingConfig(d_embedding=4, std=0.5, lazy=False)
    return TwoTower(TwoTowerConfig(sizes=sizes, embedding=embedding, **{**plain, **options}))


def test_the_logit_is_the_cosine_over_the_temperature_plus_a_bias(sizes, make_batch):
    batch, model = make_batch(4), make(sizes)
    with torch.no_grad():
        model.bias.fill_(-0.7)
    towers = model.towers(batch)
    cosine = torch.nn.functional.cosine_similarity(towers.users, towers.items)
    torch.testing.assert_close(model(batch), cosine / 0.2 - 0.7)
    torch.testing.assert_close(towers.users.norm(dim=1), torch.ones(4))


def test_the_user_does_not_see_the_item_and_the_item_not_the_user(sizes, make_batch):
    batch, model = make_batch(4), make(sizes)
    before = model.towers(batch)
    other_item = {**batch, "categorical": batch["categorical"].clone()}
    other_item["categorical"][:, 2] = 10 + (other_item["categorical"][:, 2] - 9) % 3
    other_user = {**batch, "numeric": batch["numeric"] + 1, "length": batch["length"].flip(0)}
    torch.testing.assert_close(model.towers(other_item).users, before.users)
    torch.testing.assert_close(model.towers(other_user).items, before.items)
    assert not torch.allclose(model.towers(other_item).items, before.items)
    assert not torch.allclose(model.towers(other_user).users, before.users)


def test_a_catalogue_is_encoded_as_the_items_of_a_batch_are(sizes, make_batch):
    batch, model = make_batch(4), make(sizes)
    catalogue = batch["categorical"][:, [2, 0]]
    torch.testing.assert_close(model.encode_items(catalogue), model.towers(batch).items)


def test_item_keys_are_equal_for_equal_items_only(sizes):
    combinations = torch.tensor(list(itertools.product(range(13), repeat=2)))
    assert len(make(sizes).item_keys(combinations).unique()) == 169


def test_an_empty_history_is_a_zero_mean(sizes, make_batch):
    batch, model = make_batch(3), make(sizes)
    mean = model._mean_of_history(batch)
    expected = model.events.weight[batch["sequence"][1].long()].mean(0)
    assert torch.equal(mean[0], torch.zeros(4))
    torch.testing.assert_close(mean[1], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"item_fields": ()}, r"item_fields=\(\)"),
        ({"item_fields": (1, 1)}, "names a column twice"),
        ({"item_fields": (5,)}, "expected one or more columns from 0 to 2"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_contradicting_options_are_refused(options, message, sizes):
    with pytest.raises(ValueError, match=message):
        make(sizes, **options)


def test_a_user_without_features_is_refused():
    with pytest.raises(ValueError, match="nothing is left for the user"):
        make(Sizes(n_ids=9, n_fields=2), item_fields=(0, 1))
