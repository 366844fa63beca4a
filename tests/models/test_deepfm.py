import itertools

import pytest
import torch

from lib.models.deepfm import DeepFM, DeepFMConfig
from lib.models.fields import EmbeddingConfig
from lib.models.gen import GENConfig


def make(sizes, gen=None):
    torch.manual_seed(1)
    config = DeepFMConfig(
        sizes=sizes,
        embedding=EmbeddingConfig(d_embedding=4, std=0.5, lazy=False),
        hidden=(8,),
        dropout=0.0,
        gen=gen,
    )
    return DeepFM(config).double()


@pytest.mark.parametrize("n_rows", [1, 5])
def test_logits_and_gradients_equal_the_sum_over_pairs(n_rows, sizes, make_batch):
    batch, model = make_batch(n_rows, dtype=torch.float64), make(sizes)
    e, linear = model.fields(batch)
    pairs = sum((e[:, i] * e[:, j]).sum(1) for i, j in itertools.combinations(range(6), 2))
    slow = linear + pairs + model.mlp(e.flatten(1))
    fast = model(batch)
    torch.testing.assert_close(fast, slow)
    parameters = [p for p in model.parameters() if p.requires_grad]
    torch.testing.assert_close(
        torch.autograd.grad(fast.square().sum(), parameters),
        torch.autograd.grad(slow.square().sum(), parameters),
    )


def test_an_identity_encoder_is_plain_deepfm(sizes, make_batch):
    batch = make_batch(5, dtype=torch.float64)
    identity = GENConfig(kind="identity", gamma=1.0, activation="linear")
    torch.testing.assert_close(make(sizes, identity)(batch), make(sizes)(batch))


def test_generated_vectors_meet_raw_ones_in_order_and_the_deep_part_stays_raw(sizes, make_batch):
    batch = make_batch(5, dtype=torch.float64)
    model = make(sizes, GENConfig(kind="all_fields", gamma=6.0, activation="relu"))
    e, linear = model.fields(batch)
    g = model.gen(e)
    pairs = sum((g[:, i] * e[:, j]).sum(1) for i, j in itertools.combinations(range(6), 2))
    torch.testing.assert_close(model(batch), linear + pairs + model.mlp(e.flatten(1)))
    torch.testing.assert_close(model.encode(batch), g)


def test_symmetric_pairs_are_pairs_of_generated_vectors(sizes, make_batch):
    batch = make_batch(5, dtype=torch.float64)
    model = make(sizes, GENConfig(kind="all_fields", gamma=6.0, activation="relu", symmetric=True))
    e, linear = model.fields(batch)
    g = model.gen(e)
    pairs = sum((g[:, i] * g[:, j]).sum(1) for i, j in itertools.combinations(range(6), 2))
    torch.testing.assert_close(model(batch), linear + pairs + model.mlp(e.flatten(1)))
