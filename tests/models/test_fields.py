import pytest
import torch

from lib.models.fields import EmbeddingConfig, Fields, Sizes
from lib.models.numeric import NumericConfig


def test_tokens_and_first_order_sum_equal_the_loops_of_the_formula(sizes, make_batch):
    batch = make_batch(5, dtype=torch.float64)
    fields = Fields(sizes, EmbeddingConfig(d_embedding=4, std=1.0)).double().eval()
    with torch.no_grad():
        fields.weights.normal_()
        fields.bias.fill_(0.3)
    tokens, linear = fields(batch)
    for b in range(5):
        total = fields.bias.clone()
        for f in range(3):
            row = fields.table.weight[batch["categorical"][b, f]]
            torch.testing.assert_close(tokens[b, f], row[:4])
            total = total + row[4]
        for m in range(2):
            x = batch["numeric"][b, m]
            expected = x * fields.numbers.weight[m] + fields.numbers.bias[m]
            torch.testing.assert_close(tokens[b, 3 + m], expected)
            total = total + x * fields.weights[m]
        mark = batch["missing"][b, 0].double()
        torch.testing.assert_close(tokens[b, 5], mark * fields.missing[0])
        torch.testing.assert_close(linear[b], total + mark * fields.weights[2])


def test_a_lazy_table_gives_the_tokens_of_a_dense_one_and_touches_only_the_rows_of_the_batch():
    ids = torch.tensor([[1, 5], [1, 9]], dtype=torch.int32)
    made = {}
    for lazy in (True, False):
        torch.manual_seed(0)
        fields = Fields(Sizes(n_ids=50, n_fields=2), EmbeddingConfig(d_embedding=4, lazy=lazy))
        made[lazy] = fields
    tokens, linear = made[True]({"categorical": ids})
    dense = made[False]({"categorical": ids})
    torch.testing.assert_close(tokens, dense.tokens)
    (tokens.sum() + linear.sum()).backward()
    rows, gradient = made[True].table.take_touched()
    assert rows.tolist() == [1, 5, 9]
    assert gradient[:, 0].tolist() == [2.0, 1.0, 1.0]


def test_periodic_numbers_equal_equation_2():
    fields = Fields(
        Sizes(n_ids=0, n_fields=0, n_numeric=2),
        EmbeddingConfig(d_embedding=3, numeric=NumericConfig(kind="periodic", n_frequencies=4)),
    ).double()
    x = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    tokens = fields({"numeric": x}).tokens
    module = fields.numbers
    for m in range(2):
        phase = [2 * torch.pi * c * x[0, m] for c in module.frequencies[m]]
        waves = torch.stack([p.sin() for p in phase] + [p.cos() for p in phase])
        expected = (waves @ module.weight[m] + module.bias[m]).clamp(min=0)
        torch.testing.assert_close(tokens[0, m], expected)


def test_quantile_numbers_fill_the_bins_below_the_value():
    config = EmbeddingConfig(d_embedding=3, numeric=NumericConfig(kind="quantile", n_bins=4))
    fields = Fields(Sizes(n_ids=0, n_fields=0, n_numeric=1), config)
    fields.fit_numbers(torch.arange(0.0, 9.0)[:, None])  # edges 0, 2, 4, 6, 8
    filled = fields.numbers.encode(torch.tensor([[-1.0], [3.0], [8.0], [99.0]]))
    assert filled[:, 0].tolist() == [[0, 0, 0, 0], [1, 0.5, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_a_quantile_bin_without_width_is_a_step_and_has_no_nan():
    config = EmbeddingConfig(d_embedding=3, numeric=NumericConfig(kind="quantile", n_bins=2))
    fields = Fields(Sizes(n_ids=0, n_fields=0, n_numeric=1), config)
    fields.fit_numbers(torch.tensor([[0.0], [0.0], [0.0], [0.0], [7.0]]))  # edges 0, 0, 7
    filled = fields.numbers.encode(torch.tensor([[-1.0], [0.0], [3.5]]))
    assert filled[:, 0].tolist() == [[0, 0], [1, 0], [1, 0.5]]


def test_numbers_of_a_model_with_a_pair_sum_start_smaller():
    fields = Fields(Sizes(n_ids=0, n_fields=0, n_numeric=2), EmbeddingConfig(d_embedding=4))
    before = fields.numbers.weight.clone()
    fields.shrink_numbers(0.1)
    torch.testing.assert_close(fields.numbers.weight, before * 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_tokens": 5}, r"n_tokens=5 and max_len=0"),
        ({"field_sizes": (3,)}, r"field_sizes has 1 entries, expected n_fields=2"),
        ({"n_ids": 0}, r"n_ids=0 and n_fields=2: both or neither"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Sizes(**{"n_ids": 9, "n_fields": 2, **change})


def test_a_batch_of_other_data_is_refused_by_name():
    fields = Fields(Sizes(n_ids=9, n_fields=2, n_numeric=1), EmbeddingConfig(d_embedding=4))
    ids = torch.zeros(1, 2, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"no 'numeric', only \['categorical'\]"):
        fields({"categorical": ids})
    with pytest.raises(ValueError, match=r"'categorical' has shape \(1, 3\), expected \(B, 2\)"):
        fields({"categorical": torch.zeros(1, 3, dtype=torch.int32), "numeric": torch.zeros(1, 1)})


def test_fit_refuses_rows_of_another_width():
    config = EmbeddingConfig(d_embedding=3, numeric=NumericConfig(kind="quantile"))
    fields = Fields(Sizes(n_ids=0, n_fields=0, n_numeric=2), config)
    with pytest.raises(ValueError, match=r"shape \(4, 3\); expected \(N, 2\)"):
        fields.fit_numbers(torch.zeros(4, 3))


def test_the_penalty_is_half_the_square_of_the_whole_table_and_refuses_a_lazy_one():
    sizes = Sizes(n_ids=9, n_fields=2)
    fields = Fields(sizes, EmbeddingConfig(d_embedding=4, lazy=False))
    fields.penalty().backward()
    torch.testing.assert_close(fields.table.weight.grad, fields.table.weight.detach())
    with pytest.raises(ValueError, match="needs EmbeddingConfig"):
        Fields(sizes, EmbeddingConfig(d_embedding=4)).penalty()
