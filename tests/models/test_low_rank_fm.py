import itertools

import pytest
import torch

from lib.models.low_rank_fm import LowRankFMHead, LowRankFMHeadConfig

PLAIN = {"n_heads": 2, "rank": 3, "d_projection": 5, "hidden": (8,), "dropout": 0.0}


def make(blocks=(1, 2, 4), **options):
    torch.manual_seed(1)
    return LowRankFMHead(blocks, 6, LowRankFMHeadConfig(**{**PLAIN, **options})).double()


@pytest.fixture
def z(generator):
    return torch.randn(4, 7, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("grouping", ["all", "block"])
def test_interactions_are_twice_the_sum_over_pairs_in_every_head_and_block(grouping, z):
    head = make(use_se=False, pair_grouping=grouping)
    blocks = [range(7)] if grouping == "all" else [range(1, 3), range(3, 7)]
    parts = []
    for g, block in enumerate(blocks):
        for h in range(2):
            u = head.u[:, h * 3 : h * 3 + 3]
            pairs = sum((z[:, i] @ u) * (z[:, j] @ u) for i, j in itertools.combinations(block, 2))
            parts.append(2 * pairs @ head.v[g, h])
    torch.testing.assert_close(head.interactions(z), torch.cat(parts, dim=1))


def test_squeeze_excitation_gates_by_the_means_of_the_rows_own_vectors(z):
    head, bare = make(), make(use_se=False)
    first, _, second = head.excite
    with torch.no_grad():
        bare.u.copy_(head.u), bare.v.copy_(head.v)
    inner = torch.relu(z.mean(2) @ first.weight.T + first.bias)
    gate = torch.sigmoid(inner @ second.weight.T + second.bias)
    torch.testing.assert_close(head.interactions(z), bare.interactions(z) * gate)


def test_a_row_has_the_same_logit_alone_and_in_a_batch(z):
    head = make()
    torch.testing.assert_close(torch.cat([head(row[None]) for row in z]), head(z))


def test_without_residual_the_mlp_reads_the_interactions_alone(z):
    head = make(use_residual=False, norm="none")
    assert head.mlp.hidden[0].in_features == 2 * 5
    torch.testing.assert_close(head(z), head.mlp(head.interactions(z)))


def test_the_norm_covers_the_flat_vector(z):
    head = make()
    flat = z.flatten(1)
    rms = flat / (flat.square().mean(1, keepdim=True) + torch.finfo(torch.float64).eps).sqrt()
    inter = head.interactions(rms.view_as(z))
    torch.testing.assert_close(head(z), head.mlp(torch.cat([rms, inter], dim=1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, "norm='batch': expected rms, layer or none"),
        ({"pair_grouping": "blocks"}, "pair_grouping='blocks'"),
        ({"rank": 0}, "rank=0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_blocks_without_any_pair_are_refused():
    with pytest.raises(ValueError, match=r"blocks of sizes \(1, 1\) hold no pair"):
        make(blocks=(1, 1), pair_grouping="block")
