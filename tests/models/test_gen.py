import itertools

import pytest
import torch

from lib.models.gen import GEN, GENConfig, generated_pairs


@pytest.fixture
def e(generator):
    return torch.randn(4, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)


def make(kind, *, gamma=1.0, activation="linear", **options):
    torch.manual_seed(1)
    return GEN(3, 4, GENConfig(kind=kind, gamma=gamma, activation=activation, **options)).double()


def test_the_running_sum_equals_all_ordered_pairs_with_gradient(e, generator):
    g = torch.randn(4, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    slow = sum((g[:, i] * e[:, j]).sum(1) for i, j in itertools.combinations(range(3), 2))
    fast = generated_pairs(g, e)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(
        torch.autograd.grad(fast.sum(), (g, e)), torch.autograd.grad(slow.sum(), (g, e))
    )


def test_all_fields_predict_all_fields(e):
    gen = make("all_fields", gamma=6.0, activation="relu")
    for b, i, d in itertools.product(range(4), range(3), range(4)):
        total = sum(
            gen.weight[i * 4 + d, j * 4 + c] * e[b, j, c] for j in range(3) for c in range(4)
        )
        torch.testing.assert_close(gen(e)[b, i, d], 6 * total.clamp(min=0))


def test_exclude_self_keeps_a_field_out_of_its_own_vector(e):
    gen = make("all_fields", exclude_self=True)
    changed = e.detach().clone()
    changed[:, 1] += 1.0
    before, after = gen(e), gen(changed)
    torch.testing.assert_close(before[:, 1], after[:, 1])
    assert not torch.allclose(before[:, 0], after[:, 0])


def test_per_field_applies_each_matrix_to_its_own_field(e):
    gen = make("per_field")
    for f in range(3):
        torch.testing.assert_close(gen(e)[:, f], e[:, f] @ gen.weight[f])


def test_squeeze_scales_each_field_by_one_number(e):
    gen = make("squeeze", reduction=2)
    ratio = gen(e) / e
    torch.testing.assert_close(ratio, ratio[:, :, :1].expand_as(ratio))


def test_a_gate_without_context_is_the_same_for_every_row_and_starts_near_one(e):
    ratio = make("gate")(e) / e
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert (ratio > 0).all()
    assert (ratio < 2).all()


@pytest.mark.parametrize("kind", ["two_layer", "attention"])
def test_the_deeper_kinds_keep_the_shape_and_pass_a_gradient(kind, e):
    out = make(kind, activation="relu", batch_norm=True)(e)
    assert out.shape == e.shape
    (gradient,) = torch.autograd.grad(out.sum(), e)
    assert torch.isfinite(gradient).all()


def test_options_compose(e):
    plain = make("all_fields")
    shared, residual = make("all_fields", share_first=True), make("all_fields", residual=True)
    chosen = make("all_fields", only_positions=(2,))
    torch.testing.assert_close(shared(e), plain(e)[:, :1].expand(-1, 3, -1))
    torch.testing.assert_close(residual(e), plain(e) + e)
    torch.testing.assert_close(chosen(e)[:, 2], plain(e)[:, 2])
    torch.testing.assert_close(chosen(e)[:, :2], e[:, :2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gates"}, "GEN kind 'gates': expected one of"),
        ({"kind": "squeeze", "gamma": 6.0}, "no activation, norm or gamma of its own"),
        ({"kind": "per_field", "exclude_self": True}, "exclude_self needs kind='all_fields'"),
        ({"kind": "identity", "share_first": True}, "share_first needs kind"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GENConfig(**{"gamma": 1.0, "activation": "linear", **options})


def test_a_position_outside_the_model_is_refused():
    with pytest.raises(ValueError, match=r"only_positions=\(3,\), but the model has 3"):
        make("all_fields", only_positions=(3,))
