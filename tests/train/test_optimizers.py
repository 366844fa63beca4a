"""Touched-row tables and their optimizers against dense twins."""

import pytest
import torch
from torch import nn

from lib.models.tables import Table, find_distinct
from lib.train.averaging import Average
from lib.train.optimizers import Optimizer, parameter_groups
from lib.train.plan import Group, Plan

PLAN = Plan(learning_rate=0.1, seed=1, steps=1)


def batches(generator, n=12, n_rows=30):
    return [torch.randint(0, n_rows, (4, 3), generator=generator) for _ in range(n)]


def objective(vectors):
    return (vectors.sin() * torch.arange(1.0, vectors.shape[-1] + 1)).sum()


@pytest.mark.parametrize("n_rows", [9, 10_000])  # marks, and torch.unique
def test_distinct_ids_are_sorted_and_lead_back_to_the_ids(n_rows, generator):
    ids = torch.randint(0, 9, (5, 4), generator=generator, dtype=torch.int32)
    rows, places = find_distinct(ids, n_rows)
    assert torch.equal(rows, ids.unique().long())
    assert torch.equal(rows[places.long()], ids.long())


def test_a_lazy_table_looks_up_what_a_dense_one_does(generator):
    table = Table(30, 4)
    ids = batches(generator)[0]
    expected = table.weight[ids]
    assert torch.equal(table(ids), expected)
    assert len(table.touched) == 1
    assert torch.equal(table.eval()(ids), expected)
    with torch.no_grad():
        assert torch.equal(table.train()(ids), expected)
    assert len(table.touched) == 1  # evaluation remembers nothing


def test_gradients_of_several_lookups_are_summed_by_row(generator):
    table, (first, second) = Table(30, 4, scale=1.0), batches(generator, 2)
    (objective(table(first)) + 2 * objective(table(second))).backward()
    rows, gradient = table.take_touched()
    weight = table.weight.detach().clone().requires_grad_()
    (objective(weight[first]) + 2 * objective(weight[second])).backward()
    expected = torch.zeros_like(weight).index_copy_(0, rows, gradient)
    torch.testing.assert_close(expected, weight.grad)
    assert table.touched == []
    assert table.take_touched() is None


def test_lazy_adam_is_sparse_adam(generator):
    model = nn.Sequential(Table(30, 4, scale=1.0))
    twin = nn.Embedding(30, 4, sparse=True)
    twin.weight.data.copy_(model[0].weight.data)
    ours = Optimizer(model, PLAN)
    theirs = torch.optim.SparseAdam(twin.parameters(), lr=0.1)
    for ids in batches(generator):
        objective(model(ids)).backward()
        ours.step(ours.touched(), 1.0)
        objective(twin(ids)).backward()
        theirs.step()
        theirs.zero_grad()
    torch.testing.assert_close(model[0].weight, twin.weight)


def test_row_adagrad_divides_by_the_root_of_summed_mean_squares(generator):
    table = Table(30, 4, scale=1.0)
    ours = Optimizer(
        nn.Sequential(table), Plan(learning_rate=0.1, seed=1, steps=1, tables="row_adagrad")
    )
    weight = table.weight.detach().double().requires_grad_()
    square = torch.zeros(30, dtype=torch.float64)
    for ids in batches(generator):
        objective(table(ids)).backward()
        ours.step(ours.touched(), 0.5)
        (gradient,) = torch.autograd.grad(objective(weight[ids]), weight)
        for row in ids.unique().tolist():
            square[row] += gradient[row].square().mean()
            weight.data[row] -= 0.05 * gradient[row] / (square[row].sqrt() + 1e-8)
    torch.testing.assert_close(table.weight.double(), weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lazy_adam", "row_adagrad"])
def test_rows_outside_the_batch_keep_their_bits(kind):
    plan = Plan(learning_rate=0.1, seed=1, steps=1, tables=kind, table_decay=0.1)
    table = Table(30, 4)
    before = table.weight.detach().clone()
    optimizer = Optimizer(nn.Sequential(table), plan)
    for _ in range(3):
        objective(table(torch.tensor([3, 7]))).backward()
        optimizer.step(optimizer.touched(), 1.0)
    changed = (table.weight != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == [3, 7]


def test_table_decay_shrinks_touched_rows_only():
    plan = Plan(learning_rate=0.1, seed=1, steps=1, table_decay=0.5)
    table = Table(5, 2, scale=1.0)
    before = table.weight.detach().clone()
    optimizer = Optimizer(nn.Sequential(table), plan)
    (table(torch.tensor([2])) * 0).sum().backward()  # no gradient: the decay alone
    optimizer.step(optimizer.touched(), 1.0)
    before[2] *= 0.95
    torch.testing.assert_close(table.weight.detach(), before)


def test_a_lazy_table_used_whole_is_an_error_that_says_what_to_do():
    table = Table(5, 2)
    optimizer = Optimizer(nn.Sequential(table), PLAN)
    (table(torch.tensor([1])).sum() + table.weight.sum()).backward()
    with pytest.raises(ValueError, match=r"table '0' is lazy.*lazy=False"):
        optimizer.touched()


def test_dense_tables_and_frozen_ones_need_no_rows():
    model = nn.ModuleDict({"dense": Table(5, 2, lazy=False), "frozen": Table(5, 2)})
    model["frozen"].weight.requires_grad_(False)
    optimizer = Optimizer(model, PLAN)
    total = model["dense"](torch.tensor([1])).sum() + model["frozen"](torch.tensor([1])).sum()
    total.backward()
    assert optimizer.touched() == []
    assert [len(group["params"]) for group in parameter_groups(model, PLAN)] == [1]


def test_clipping_bounds_the_joint_norm_of_dense_and_touched_gradients(generator):
    model = nn.Sequential(Table(30, 4), nn.Linear(4, 1))
    optimizer = Optimizer(model, PLAN)
    (1000 * model(batches(generator)[0]).sum()).backward()
    touched = optimizer.touched()
    gradients = [p.grad for p in model[1].parameters()] + [touched[0][3]]
    before = torch.cat([g.flatten() for g in gradients]).norm()
    assert float(optimizer.clip(touched, 2.0)) == pytest.approx(float(before))
    assert float(torch.cat([g.flatten() for g in gradients]).norm()) == pytest.approx(2.0)


def test_groups_take_their_own_rates_and_vectors_never_decay():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    plan = Plan(
        learning_rate=1.0,
        seed=1,
        steps=1,
        weight_decay=0.3,
        groups=(Group(match="encoder.", learning_rate=0.1),),
    )
    found = {(g["lr"], g["weight_decay"], len(g["params"])) for g in parameter_groups(model, plan)}
    assert found == {(0.1, 0.3, 1), (0.1, 0.0, 1), (1.0, 0.3, 1), (1.0, 0.0, 1)}
    typo = Plan(
        learning_rate=1.0, seed=1, steps=1, groups=(Group(match="enc0", learning_rate=1.0),)
    )
    with pytest.raises(ValueError, match="enc0"):
        parameter_groups(model, typo)


def test_the_average_has_its_closed_form_on_dense_and_lazy_weights(generator):
    model = nn.Sequential(Table(30, 4, scale=1.0), nn.Linear(4, 1))
    optimizer, average = Optimizer(model, PLAN), Average(model, 0.8)
    seen = {"0.weight": [], "1.weight": []}
    for step, ids in enumerate(batches(generator), start=1):
        objective(model(ids)).backward()
        touched = optimizer.touched()
        average.before_step(touched)
        optimizer.step(touched, 1.0)
        average.after_step()
        for name, parameter in model.named_parameters():
            if name in seen:
                seen[name].append(parameter.detach().double())
        if step in (1, 2, 7, 12):  # reading in between must not disturb what follows
            own = {name: p.detach().clone() for name, p in model.named_parameters()}
            with average.applied():
                for name, weights in seen.items():
                    shares = [0.2 * 0.8 ** (step - i) for i in range(1, step + 1)]
                    mean = sum(s * w for s, w in zip(shares, weights, strict=True)) / sum(shares)
                    now = dict(model.named_parameters())[name].detach().double()
                    torch.testing.assert_close(now, mean, rtol=1e-5, atol=1e-5)
            for name, parameter in model.named_parameters():
                assert torch.equal(parameter, own[name])
