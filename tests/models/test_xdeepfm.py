import pytest
import torch

from lib.models.fields import EmbeddingConfig
from lib.models.xdeepfm import CompressedInteraction, XDeepFM, XDeepFMConfig


def cin_by_loops(cin, x0):
    """Equations 6 and 7, one number at a time; an independent check of every layer."""
    n_rows, n_fields, d = x0.shape
    x, pooled = x0, []
    for layer in cin.layers:
        weight = layer.weight.view(len(layer.bias), x.shape[1], n_fields)
        maps = []
        for h in range(len(layer.bias)):
            total = layer.bias[h].expand(n_rows, d)
            for i in range(x.shape[1]):
                for j in range(n_fields):
                    total = total + weight[h, i, j] * x[:, i] * x0[:, j]
            maps.append(total)
        x = torch.stack(maps, dim=1)
        pooled.append(x.sum(dim=2))
    return torch.cat(pooled, dim=1)


@pytest.mark.parametrize("n_rows", [1, 4])
@pytest.mark.parametrize("maps", [(2,), (3, 2), (2, 3, 1)])
def test_cin_and_its_gradients_equal_the_loops_of_equation_6(n_rows, maps, generator):
    x = torch.randn(n_rows, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    cin = CompressedInteraction(n_fields=3, maps=maps).double()
    fast, slow = cin(x), cin_by_loops(cin, x)
    torch.testing.assert_close(fast, slow)
    inputs = [x, *cin.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(fast.square().sum(), inputs),
        torch.autograd.grad(slow.square().sum(), inputs),
    )


def test_rows_in_parts_give_the_same_numbers_and_gradients(monkeypatch, generator):
    x = torch.randn(7, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    cin = CompressedInteraction(n_fields=3, maps=(3, 2)).double()
    inputs = [x, *cin.parameters()]
    whole = cin(x)
    gradients = torch.autograd.grad(whole.square().sum(), inputs)
    monkeypatch.setattr("lib.models.xdeepfm.PAIRS_AT_ONCE", 2 * 5 * 9)  # two rows at once
    parts = cin(x)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), inputs), gradients)
    with torch.no_grad():
        torch.testing.assert_close(cin(x), whole.detach())


def test_the_logit_is_linear_plus_cin_plus_deep(sizes, make_batch):
    batch = make_batch(4, dtype=torch.float64)
    config = XDeepFMConfig(
        sizes=sizes,
        embedding=EmbeddingConfig(d_embedding=4, std=0.5),
        maps=(3, 2),
        hidden=(8,),
        dropout=0.0,
    )
    model = XDeepFM(config).double().eval()
    e, linear = model.fields(batch)
    crossed = model.cin_head(cin_by_loops(model.cin, e))[:, 0]
    torch.testing.assert_close(model(batch), linear + crossed + model.mlp(e.flatten(1)))


def test_no_maps_are_refused(sizes):
    with pytest.raises(ValueError, match=r"maps=\(\)"):
        XDeepFMConfig(
            sizes=sizes, embedding=EmbeddingConfig(d_embedding=4), maps=(), hidden=(), dropout=0.0
        )


def test_cin_equals_fuxictr_with_copied_weights(generator):
    peer = pytest.importorskip("fuxictr.pytorch.layers.interactions.compressed_interaction_net")
    theirs = peer.CompressedInteractionNet(4, [3, 2], output_dim=1).double()
    ours = CompressedInteraction(n_fields=4, maps=(3, 2)).double()
    with torch.no_grad():
        for k, layer in enumerate(ours.layers):
            convolution = theirs.cin_layer[f"layer_{k + 1}"]
            # their pairs run over the first field's axis first, as ours over (I, F) transposed
            weight = convolution.weight[:, :, 0].view(len(layer.bias), 4, -1)
            layer.weight.copy_(weight.transpose(1, 2).flatten(1))
            layer.bias.copy_(convolution.bias)
    x = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(theirs.fc(ours(x)), theirs(x))
