import pytest
import torch

from lib.models.mlp import MLP, BatchNorm, Dice, build_activation


def test_dice_equals_equation_3_of_din(generator):
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    dice = Dice(3).double()
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.0, 0.5, -1.0]))
    p = torch.sigmoid((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-9).sqrt())
    torch.testing.assert_close(dice(x), p * x + (1 - p) * dice.alpha * x)


@pytest.mark.parametrize("n_rows", [0, 1])
def test_batch_norm_takes_running_statistics_when_there_is_no_variance(n_rows):
    norm = BatchNorm(3).train()
    norm.running_mean.fill_(2.0)
    out = norm(torch.full((n_rows, 3), 2.0))
    assert torch.equal(out, torch.zeros(n_rows, 3))


def test_logits_are_float32_and_exact_under_bfloat16(generator):
    mlp = MLP(4, (8,), d_out=1)
    x = torch.randn(3, 4, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = mlp.hidden(x)
        logits = mlp(x)
    expected = hidden.float() @ mlp.output.weight[0] + mlp.output.bias
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected)


def test_no_hidden_layer_is_a_linear_model(generator):
    x = torch.randn(3, 4, generator=generator)
    mlp = MLP(4, (), d_out=1)
    torch.testing.assert_close(mlp(x), x @ mlp.output.weight[0] + mlp.output.bias)


def test_an_unknown_activation_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'swish'.*'dice'"):
        build_activation("swish", 3)  # type: ignore[arg-type]
