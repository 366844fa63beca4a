"""Every loss against a slow version of its definition in float64, gradients included."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.train import chunked, losses


def gradients(function, *tensors):
    """The value and the gradients of a function of fresh leaves."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value = function(*leaves)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


def assert_same(ours, twin, *tensors):
    for a, b in zip(gradients(ours, *tensors), gradients(twin, *tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.fixture
def clicks(generator):
    logits = torch.randn(40, generator=generator, dtype=torch.float64) * 3
    return logits, (torch.rand(40, generator=generator) < 0.3).long()


def log_loss_by_rows(logits, labels):
    p = torch.sigmoid(logits)
    return [-(p[i] if y else 1 - p[i]).log() for i, y in enumerate(labels.tolist())]


def test_binary_cross_entropy_is_the_mean_of_minus_log_p(clicks):
    logits, labels = clicks
    assert_same(
        lambda z: losses.binary_cross_entropy(z, labels),
        lambda z: sum(log_loss_by_rows(z, labels)) / len(labels),
        logits,
    )


def test_weighted_log_loss_gives_both_classes_one_half(clicks):
    logits, labels = clicks

    def twin(z):
        rows = log_loss_by_rows(z, labels)
        positive = [row for row, y in zip(rows, labels, strict=True) if y]
        negative = [row for row, y in zip(rows, labels, strict=True) if not y]
        return sum(positive) / len(positive) / 2 + sum(negative) / len(negative) / 2

    assert_same(lambda z: losses.weighted_log_loss(z, labels), twin, logits)
    rate = float(labels.double().mean())
    assert_same(lambda z: losses.weighted_log_loss(z, labels, rate=rate), twin, logits)


def test_weighted_log_loss_of_one_class_counts_that_half_only():
    logits = torch.zeros(3, dtype=torch.float64)
    assert float(losses.weighted_log_loss(logits, torch.ones(3))) == pytest.approx(math.log(2) / 2)


def test_focal_weighs_each_row_and_not_the_mean(clicks):
    logits, labels = clicks

    def twin(z):
        p = torch.sigmoid(z)
        rows = [
            0.25 * (1 - p[i]) ** 2 * -p[i].log() if y else 0.75 * p[i] ** 2 * -(1 - p[i]).log()
            for i, y in enumerate(labels.tolist())
        ]
        return sum(rows) / len(rows)

    assert_same(lambda z: losses.focal(z, labels, gamma=2.0, alpha=0.25), twin, logits)
    assert_same(
        lambda z: losses.focal(z, labels, gamma=0.0),
        lambda z: losses.binary_cross_entropy(z, labels),
        logits,
    )


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_click_losses_stay_finite_at_extreme_logits(value):
    logits = torch.tensor([value, -value], requires_grad=True)
    labels = torch.tensor([1, 0])
    for loss in (
        losses.binary_cross_entropy(logits, labels),
        losses.focal(logits, labels, gamma=2.0),
        losses.self_ensemble(logits, -logits, labels),
    ):
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_self_ensemble_teaches_both_passes_by_their_fixed_mean(clicks, generator):
    logits, labels = clicks
    other = logits + torch.randn(40, generator=generator, dtype=torch.float64)

    def twin(a, b):
        p, q = torch.sigmoid(a), torch.sigmoid(b)
        mean, y = (p + q) / 2, labels.double()

        def bce(x, target):
            return -(target * x.log() + (1 - target) * (1 - x).log()).mean()

        return bce(mean, y) + bce(p, mean.detach()) + bce(q, mean.detach())

    assert_same(lambda a, b: losses.self_ensemble(a, b, labels), twin, logits, other)


def test_self_ensemble_without_dropout_has_the_gradient_of_cross_entropy(clicks):
    logits, labels = clicks
    both = gradients(lambda z: losses.self_ensemble(z, z, labels), logits)[1]
    plain = gradients(lambda z: losses.binary_cross_entropy(z, labels), logits)[1]
    torch.testing.assert_close(both, plain)


@pytest.fixture
def catalogue(generator):
    hidden = torch.randn(11, 6, generator=generator, dtype=torch.float64)
    table = torch.randn(17, 6, generator=generator, dtype=torch.float64)
    return hidden, table, torch.randint(0, 17, (11,), generator=generator)


def full_by_rows(hidden, table, targets):
    scores = hidden @ table.T
    rows = [scores[i].exp().sum().log() - scores[i, t] for i, t in enumerate(targets.tolist())]
    return sum(rows) / len(rows)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
def test_full_softmax_is_exact_in_any_chunks(native, chunk, catalogue, monkeypatch):
    monkeypatch.setattr(chunked, "NATIVE", native)
    hidden, table, targets = catalogue
    assert_same(
        lambda h, w: losses.full_softmax(h, w, targets, chunk=chunk),
        lambda h, w: full_by_rows(h, w, targets),
        hidden,
        table,
    )


@pytest.mark.parametrize("native", [True, False])
def test_full_softmax_leaves_ignored_positions_out(native, catalogue, monkeypatch):
    monkeypatch.setattr(chunked, "NATIVE", native)
    hidden, table, targets = catalogue
    ignored = targets.clone()
    ignored[[0, 5]] = -100
    kept = ignored != -100
    assert_same(
        lambda h, w: losses.full_softmax(h, w, ignored),
        lambda h, w: full_by_rows(h[kept], w, targets[kept]),
        hidden,
        table,
    )
    nothing = gradients(lambda h, w: losses.full_softmax(h, w, targets * 0 - 100), hidden, table)
    assert all(float(value.abs().sum()) == 0 for value in nothing)


def test_full_softmax_names_a_target_outside_the_table(catalogue):
    hidden, table, targets = catalogue
    with pytest.raises(ValueError, match=r"reach from .* to 17, the table has rows 0 to 16"):
        losses.full_softmax(hidden, table, targets.clone().fill_(17))


def test_full_softmax_under_autocast_is_near_and_scaled_by_the_incoming_gradient(catalogue):
    hidden, table, targets = (t.float() if t.is_floating_point() else t for t in catalogue)
    value, d_hidden, d_table = gradients(
        lambda h, w: 3 * full_by_rows(h, w, targets), hidden, table
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = gradients(lambda h, w: 3 * losses.full_softmax(h, w, targets), hidden, table)
    for mine, expected in zip(ours, (value, d_hidden, d_table), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("block", [1, 5, 17, 64])
def test_blocks_of_classes_are_near_the_definition_and_give_their_gradient_once(
    block, catalogue, monkeypatch
):
    """Where rounding to bfloat16 changes nothing, only the products' own rounding is left."""
    hidden, table, targets = catalogue
    hidden, table = (tensor.bfloat16().float() for tensor in (hidden, 4 * table))
    expected = gradients(
        lambda h, w: 3 * full_by_rows(h, w, targets), hidden.double(), table.double()
    )
    monkeypatch.setattr(chunked, "CACHED_LOGITS", 0)
    monkeypatch.setattr(chunked, "FEWEST_CLASSES", block)
    monkeypatch.setattr(chunked, "BLOCK_LOGITS", 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = gradients(lambda h, w: 3 * losses.full_softmax(h, w, targets), hidden, table)
        loss = losses.full_softmax(hidden.requires_grad_(), table.requires_grad_(), targets)
    for mine, wanted in zip(ours, expected, strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - wanted).norm() / wanted.norm()) < 0.01
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="gives its gradient once"):
        loss.backward()


def test_a_large_vocabulary_goes_by_blocks_and_its_loss_stays_within_1e_4(generator):
    """As large as Qwen's beginning, with logits as small as those of a fresh model."""
    hidden = torch.randn(70, 8, generator=generator)
    table = 0.02 * torch.randn(80_000, 8, generator=generator)
    targets = torch.randint(0, 80_000, (70,), generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = losses.full_softmax(hidden, table.requires_grad_(), targets)
    assert type(ours.grad_fn).__name__ == "BlockedSoftmaxBackward"
    plain = torch.nn.functional.cross_entropy(hidden.double() @ table.double().T, targets)
    assert float((ours - plain).detach().abs()) < 1e-4


def test_sampled_softmax_equals_its_definition(catalogue, generator):
    hidden, table, targets = catalogue
    ids = torch.randint(0, 17, (8,), generator=generator)
    expected = torch.rand(8, generator=generator, dtype=torch.float64) + 0.1
    known = torch.rand(11, 8, generator=generator) < 0.2

    def twin(h, w):
        rows = []
        for i, t in enumerate(targets.tolist()):
            total = own = (h[i] @ w[t]).exp()
            for j, item in enumerate(ids.tolist()):
                if item != t and not known[i, j]:
                    total = total + (h[i] @ w[item]).exp() / expected[j]
            rows.append(total.log() - own.log())
        return sum(rows) / len(rows)

    def ours(h, w):
        return losses.sampled_softmax(
            h, w[targets], w[ids], targets=targets, negative_ids=ids, expected=expected, known=known
        )

    assert_same(ours, twin, hidden, table)


@pytest.mark.parametrize("popular", [False, True])
def test_sampled_softmax_has_the_scale_of_the_full_one(popular, generator):
    hidden = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    table = torch.randn(500, 8, generator=generator, dtype=torch.float64) * 0.5
    targets = torch.randint(0, 500, (30,), generator=generator)
    share = torch.arange(1, 501, dtype=torch.float64) ** -(0.7 if popular else 0.0)
    share /= share.sum()
    draws = []
    for _ in range(40):
        ids = torch.multinomial(share, 400, replacement=True, generator=generator)
        draws.append(
            losses.sampled_softmax(
                hidden,
                table[targets],
                table[ids],
                targets=targets,
                negative_ids=ids,
                expected=400 * share[ids],
            )
        )
    sampled, full = torch.stack(draws), losses.full_softmax(hidden, table, targets)
    spread = float(sampled.std()) / math.sqrt(len(draws))
    bias = 0.02  # the log of an estimate is a little below the log of its mean (Jensen)
    assert abs(float(sampled.mean() - full)) < 3 * spread + bias


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_gbce_is_cross_entropy_on_a_power_of_the_positive_probability(t, generator):
    positive = torch.randn(9, generator=generator, dtype=torch.float64)
    negative = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    share = 5 / 99
    beta = share * (t * (1 - 1 / share) + 1 / share)

    def twin(p, n):
        rows = -(torch.sigmoid(p) ** beta).log() - (1 - torch.sigmoid(n)).log().sum(1)
        return rows.mean() / 6

    assert_same(lambda p, n: losses.gbce(p, n, n_items=100, t=t), twin, positive, negative)
    if t == 0:
        labels = torch.cat([torch.ones(9, 1), torch.zeros(9, 5)], dim=1).flatten()
        flat = torch.cat([positive[:, None], negative], dim=1).flatten()
        plain = losses.binary_cross_entropy(flat, labels)
        torch.testing.assert_close(losses.gbce(positive, negative, n_items=100, t=t), plain)


@pytest.mark.parametrize("kind", ["context-item", "user-item"])
def test_bpr_is_the_mean_over_pairs_so_its_weight_ignores_their_number(kind, generator):
    whose = torch.randn(4, 3 if kind == "context-item" else 7, generator=generator).double()
    items = torch.randn(6, whose.shape[1], generator=generator).double()

    def ours(u, v):
        return losses.bpr(u @ v[0], u @ v[1:].T)

    def twin(u, v):
        pairs = [-torch.sigmoid(u[i] @ (v[0] - v[j])).log() for i in range(4) for j in range(1, 6)]
        return sum(pairs) / len(pairs)

    assert_same(ours, twin, whose, items)
    one = losses.bpr(torch.zeros(3), torch.zeros(3))
    assert float(losses.bpr(torch.zeros(3), torch.zeros(3, 50))) == pytest.approx(float(one))


def test_info_nce_does_not_punish_duplicate_titles(generator):
    first = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    second = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    groups = torch.tensor([0, 1, 0, 2, 1, 0])

    def twin(a, b):
        rows = []
        for i in range(6):
            cosines = torch.nn.functional.cosine_similarity(a[i], b, dim=1) / 0.2
            others = [j for j in range(6) if j == i or groups[j] != groups[i]]
            rows.append(cosines[others].logsumexp(0) - cosines[i])
        return sum(rows) / 6

    def ours(a, b):
        return losses.info_nce(a, b, temperature=0.2, groups=groups)

    assert_same(ours, twin, first, second)
    same = losses.info_nce(first, second, temperature=0.2, groups=torch.zeros(6))
    assert float(same) == pytest.approx(0.0)


@pytest.mark.parametrize("shift", [0, 1])
def test_masked_token_loss_reads_the_state_that_predicts(shift, generator):
    hidden = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    table = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    labels = torch.full((2, 5), -100)
    labels[0, 2], labels[1, 4], labels[1, 0] = 3, 8, 1  # the last has no state before it

    def twin(h, w):
        places = [(0, 2), (1, 4)] + ([(1, 0)] if shift == 0 else [])
        rows = [-(h[i, j - shift] @ w.T).log_softmax(0)[labels[i, j]] for i, j in places]
        return sum(rows) / len(rows)

    assert_same(
        lambda h, w: losses.masked_token_loss(h, w, labels, shift=shift), twin, hidden, table
    )


def auxiliary_losses(states, items, labels):
    """Each auxiliary loss as a function of shared states (N, D) and items (M, D)."""
    ids = torch.arange(len(items))
    n = len(states)
    return {
        "self_ensemble": losses.self_ensemble(states[:, 0], states[:, 1], labels),
        "focal": losses.focal(states[:, 0], labels, gamma=1.5),
        "bpr": losses.bpr(states @ items[0], states @ items[1:].T),
        "gbce": losses.gbce(states @ items[0], states @ items[1:].T, n_items=50, t=0.5),
        "info_nce": losses.info_nce(states, items[:n], temperature=0.3),
        "masked_token": losses.masked_token_loss(states[None], items, ids[None, :n], shift=0),
        "weighted": losses.weighted_log_loss(states[:, 1], labels),
        "sampled": losses.sampled_softmax(
            states,
            items[ids[:n]],
            items,
            targets=ids[:n],
            negative_ids=ids,
            expected=torch.full((len(items),), 0.5),
        ),
    }


@pytest.mark.parametrize(
    "name", auxiliary_losses(torch.ones(2, 3), torch.ones(4, 3), torch.ones(2))
)
def test_each_auxiliary_loss_changes_gradients(name, generator):
    states = torch.randn(5, 3, generator=generator).requires_grad_()
    items = torch.randn(8, 3, generator=generator).requires_grad_()
    labels = torch.tensor([1, 0, 0, 1, 0])
    main = losses.binary_cross_entropy(states.sum(dim=1), labels)
    (alone,) = torch.autograd.grad(main, states, retain_graph=True)
    joint = main + 0.1 * auxiliary_losses(states, items, labels)[name]
    (both,) = torch.autograd.grad(joint, states)
    assert float((both - alone).abs().max()) > 1e-4


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_chunks_never_change_the_full_softmax(n, v, chunk, native):
    generator = torch.Generator().manual_seed(n * 100 + v)
    hidden = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    table = torch.randn(v, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, v, (n,), generator=generator)
    before = chunked.NATIVE
    chunked.NATIVE = native
    try:
        ours = losses.full_softmax(hidden, table, targets, chunk=chunk)
    finally:
        chunked.NATIVE = before
    plain = torch.nn.functional.cross_entropy(hidden @ table.T, targets)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: losses.focal(z, z, gamma=-1.0), "gamma=-1.0 must be at least 0"),
        (lambda z: losses.gbce(z, z[:, None], n_items=9, t=2.0), "t=2.0 must lie between"),
        (lambda z: losses.gbce(z, z[:, None], n_items=1, t=0.0), "got 1"),
        (lambda z: losses.info_nce(z, z, temperature=0.0), "temperature=0.0 must be above zero"),
        (lambda z: losses.masked_token_loss(z, z, z, shift=2), "shift=2 must be 0"),
        (lambda z: losses.binary_cross_entropy(z, z[:1]), r"logits \(2,\) and labels \(1,\)"),
        (lambda z: losses.weighted_log_loss(z, z, rate=0.0), "rate=0.0 must lie between"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2))
