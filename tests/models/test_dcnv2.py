import pytest
import torch

from lib.models.dcnv2 import CrossLayer, DCNv2, DCNv2Config, LowRankCrossLayer
from lib.models.fields import EmbeddingConfig


def make(sizes, **options):
    torch.manual_seed(1)
    options = {"n_cross": 2, "hidden": (8,), "dropout": 0.0, **options}
    embedding = EmbeddingConfig(d_embedding=4, std=0.5, lazy=False)
    return DCNv2(DCNv2Config(sizes=sizes, embedding=embedding, **options)).double()


@pytest.mark.parametrize("n_rows", [1, 4])
def test_a_cross_layer_equals_the_loops_of_the_formula(n_rows, generator):
    x0, x = (torch.randn(n_rows, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    layer = CrossLayer(3).double()
    weight, bias = layer.linear.weight, layer.linear.bias
    for b in range(n_rows):
        for d in range(3):
            inner = sum(weight[d, k] * x[b, k] for k in range(3)) + bias[d]
            torch.testing.assert_close(layer(x0, x)[b, d], x0[b, d] * inner + x[b, d])


@pytest.mark.parametrize("n_rows", [1, 4])
def test_mixing_experts_early_equals_mixing_their_outputs_with_gradient(n_rows, generator):
    x0, x = (torch.randn(n_rows, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    layer = LowRankCrossLayer(5, rank=2, n_experts=3).double()
    gates = torch.softmax(x @ layer.gate.weight.T, dim=1)
    slow = x
    for k in range(3):
        inner = torch.tanh(torch.tanh(x @ layer.v[k]) @ layer.c[k].T)
        slow = slow + gates[:, k : k + 1] * (x0 * (inner @ layer.u[k].T + layer.bias))
    fast = layer(x0, x)
    torch.testing.assert_close(fast, slow)
    parameters = list(layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(fast.square().sum(), parameters),
        torch.autograd.grad(slow.square().sum(), parameters),
    )


def test_one_cross_layer_has_the_closed_form(sizes, make_batch):
    batch = make_batch(3, dtype=torch.float64)
    model = make(sizes, n_cross=1, structure="cross", hidden=())
    x0 = model.fields(batch).tokens.flatten(1)
    linear = model.cross[0].linear
    crossed = x0 * (x0 @ linear.weight.T + linear.bias) + x0
    torch.testing.assert_close(model(batch), crossed @ model.head.weight[0] + model.head.bias)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("structure", ["cross", "stacked", "parallel", "stacked_parallel"])
def test_every_structure_joins_its_parts(structure, rank, sizes, make_batch):
    batch, model = make_batch(1, dtype=torch.float64), make(sizes, structure=structure, rank=rank)
    x0 = x = model.fields(batch).tokens.flatten(1)
    for layer in model.cross:
        x = layer(x0, x)
    parts = {
        "cross": lambda: [x],
        "stacked": lambda: [model.stacked(x)],
        "parallel": lambda: [x, model.parallel(x0)],
        "stacked_parallel": lambda: [model.stacked(x), model.parallel(x0)],
    }[structure]()
    torch.testing.assert_close(model(batch), model.head(torch.cat(parts, dim=1))[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_cross": 0}, "n_cross=0"),
        ({"structure": "series"}, "structure='series': expected one of"),
        ({"hidden": ()}, "has a deep part: hidden is empty"),
        ({"rank": 0}, "rank=0"),
    ],
)
def test_contradicting_options_are_refused(options, message, sizes):
    with pytest.raises(ValueError, match=message):
        make(sizes, **options)


def test_cross_layers_equal_fuxictr_with_copied_weights(generator):
    cross_net = pytest.importorskip("fuxictr.pytorch.layers.interactions.cross_net")
    theirs = cross_net.CrossNetV2(6, 3).double()
    ours = [CrossLayer(6).double() for _ in range(3)]
    for mine, other in zip(ours, theirs.cross_layers, strict=True):
        mine.linear.load_state_dict(other.state_dict())
    x0 = x = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    for layer in ours:
        x = layer(x0, x)
    torch.testing.assert_close(x, theirs(x0))
