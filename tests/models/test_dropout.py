"""The fast dropout drops what it promises, in every byte of a draw."""

import pytest
import torch

from lib.models.dropout import FastDropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_dropped_is_p_in_each_of_the_eight_bytes_and_the_mean_is_kept(p):
    torch.manual_seed(1)
    y = FastDropout(p)(torch.ones(80_000))
    share = (y.view(-1, 8) == 0).float().mean(dim=0)
    # 10,000 draws a byte: a band of 5 standard deviations, false alarm below 1e-5
    assert ((share - round(p * 256) / 256).abs() < 5 * (p * (1 - p) / 10_000) ** 0.5).all()
    assert y.mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / 80_000) ** 0.5)


def test_zero_and_evaluation_leave_the_tensor_alone():
    x = torch.arange(5.0)
    assert FastDropout(0.0)(x) is x
    assert FastDropout(0.5).eval()(x) is x


def test_a_probability_of_one_is_refused():
    with pytest.raises(ValueError, match="less than 1"):
        FastDropout(1.0)
