import pytest
import torch

from lib.models.fields import EmbeddingConfig
from lib.models.qnn import QNNAlpha, QNNConfig, QNNHead, QNNHeadConfig, QuadraticLayer
from lib.train.losses import self_ensemble


def config(**options):
    return QNNHeadConfig(**{"n_layers": 2, "n_rows": 3, "n_heads": 1, "dropout": 0.0, **options})


@pytest.mark.parametrize("n_rows", [1, 4])
def test_one_head_is_x_times_the_sum_of_activated_rows_plus_x(n_rows, generator):
    x = torch.randn(n_rows, 6, generator=generator, dtype=torch.float64)
    layer = QuadraticLayer(3, 2, config()).double()
    weights, biases = layer.linear.weight.view(3, 6, 6), layer.linear.bias.view(3, 6)
    gate = sum((x @ w.T + b).clamp(min=0) for w, b in zip(weights, biases, strict=True))
    torch.testing.assert_close(layer(x), x * gate + x)


def by_heads(layer, x, n_fields, d, n_heads, n_rows):
    """The Khatri-Rao product written out per head, row, field and number."""
    width, half = n_fields * d, d // n_heads
    h = layer.linear(x).clamp(min=0).view(-1, n_heads, n_rows, width // n_heads)
    y = torch.zeros_like(x)
    for head in range(n_heads):
        for f in range(n_fields):
            for k in range(half):
                own = x[:, f * d + head * half + k]
                total = sum(own * h[:, head, r, f * half + k] for r in range(n_rows))
                y[:, f * d + head * half + k] = total
    return y


def test_several_heads_split_every_field_and_return_in_the_order_of_x(generator):
    x = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    layer = QuadraticLayer(3, 4, config(n_heads=2)).double()
    torch.testing.assert_close(layer(x), by_heads(layer, x, 3, 4, 2, 3) + x)


def test_the_literal_form_adds_heads_first_to_fields_first_as_published(generator):
    x = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    layer = QuadraticLayer(3, 4, config(n_heads=2, literal=True)).double()
    fields_first = by_heads(layer, x, 3, 4, 2, 3).view(4, 3, 2, 2)
    torch.testing.assert_close(layer(x), fields_first.transpose(1, 2).flatten(1) + x)


def test_with_one_head_both_forms_agree(generator):
    x = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    plain, literal = QuadraticLayer(3, 4, config()), QuadraticLayer(3, 4, config(literal=True))
    literal.load_state_dict(plain.state_dict())
    torch.testing.assert_close(plain.double()(x), literal.double()(x))


def make_model(sizes, **options):
    torch.manual_seed(1)
    embedding = EmbeddingConfig(d_embedding=4, std=0.5, lazy=False)
    return QNNAlpha(QNNConfig(sizes=sizes, embedding=embedding, head=config(**options))).double()


def self_ensemble_by_formula(first, second, labels):
    """BCE(p, y) + BCE(p₁, sg(p)) + BCE(p₂, sg(p)), p = (p₁ + p₂) / 2."""
    entropy = torch.nn.functional.binary_cross_entropy
    p1, p2 = torch.sigmoid(first), torch.sigmoid(second)
    p = (p1 + p2) / 2
    return entropy(p, labels) + entropy(p1, p.detach()) + entropy(p2, p.detach())


def test_without_dropout_the_self_ensemble_has_the_gradient_of_cross_entropy(sizes, make_batch):
    batch, model = make_batch(5, dtype=torch.float64), make_model(sizes).train()
    labels = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    parameters = list(model.parameters())
    first, second = model.two_passes(batch)
    ensemble = self_ensemble(first, second, labels)
    torch.testing.assert_close(ensemble, self_ensemble_by_formula(first, second, labels))
    plain = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), labels)
    torch.testing.assert_close(
        torch.autograd.grad(ensemble, parameters), torch.autograd.grad(plain, parameters)
    )


def test_with_dropout_the_passes_differ_in_training_and_agree_at_evaluation(sizes, make_batch):
    batch, model = make_batch(5, dtype=torch.float64), make_model(sizes, dropout=0.3)
    first, second = model.train().two_passes(batch)
    assert not torch.allclose(first, second)
    first, second = model.eval().two_passes(batch)
    assert torch.equal(first, second)
    assert torch.equal(first, model(batch))


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_norm_stands_before_the_activation(norm, generator):
    x = torch.randn(5, 3, 4, generator=generator)
    head = QNNHead(3, 4, config(norm=norm, n_heads=4))
    assert torch.isfinite(head(x)).all()
    assert torch.isfinite(head(x[:1])).all()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="d=4 must be a multiple of n_heads=3"):
        QuadraticLayer(3, 4, config(n_heads=3))
    with pytest.raises(ValueError, match="n_rows=0"):
        config(n_rows=0)
