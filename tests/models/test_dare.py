import dataclasses

import pytest
import torch

from lib.models.dare import DAREEncoder
from lib.models.dare_click import DAREClick, DAREClickConfig, MLPHeadConfig
from lib.models.dare_config import DAREConfig
from lib.models.fields import EmbeddingConfig, Sizes
from lib.models.low_rank_fm import LowRankFMHeadConfig
from lib.models.qnn import QNNHeadConfig


def configure(sizes, **options):
    plain = {
        "d_attention": 4,
        "d_representation": 6,
        "d_time": 2,
        "top_k": 3,
        "tau": 5.0,
        "query_mode": "concat",
        "query_fields": (1, 0),
        "n_time": 5,
        "std": 0.7,
    }
    return DAREConfig(sizes=sizes, **{**plain, **options})


def make(sizes, **options):
    torch.manual_seed(1)
    return DAREEncoder(configure(sizes, **options)).double()


def target_of(use, batch, b):
    first = use.queries[0].weight[batch["categorical"][b, 1] - 4]
    second = use.queries[1].weight[batch["categorical"][b, 0]]
    return use.join.weight @ torch.cat([first, second])


def features_by_loops(model, batch):
    """The formulas of the paper, one event at a time, over all events and then the kept."""
    config, att, rep = model.config, model.attention, model.representation
    rows, whole = [], []
    for b in range(len(batch["length"])):
        n = int(batch["length"][b])
        query = target_of(att, batch, b)
        scores, contents = [], []
        for i in range(n):
            age = n - 1 - i
            token, bucket = batch["sequence"][b, i], model.buckets[age]
            semantic = query @ att.tokens.weight[token] / config.d_attention**0.5
            temporal = att.times[0] @ att.times[bucket] / config.d_time**0.5
            scores.append(semantic + temporal - age / config.tau)
            contents.append(torch.cat([rep.tokens.weight[token], rep.times[bucket]]))
        v = torch.cat([target_of(rep, batch, b), rep.times[0]])
        kept = sorted(sorted(range(n), key=lambda i: -scores[i].item())[: config.top_k])
        u = average = full = torch.zeros_like(v)
        if n:
            weights = torch.stack([scores[i] for i in kept]).softmax(0)
            u = sum(w * contents[i] for w, i in zip(weights, kept, strict=True))
            average = sum(contents) / n
            shares = torch.stack(scores).softmax(0)
            full = sum(w * c for w, c in zip(shares, contents, strict=True))
        rows.append(torch.stack([v, u, v * u, average, v * average]))
        whole.append(full)
    return torch.stack(rows), torch.stack(whole)


@pytest.mark.parametrize("n_rows", [1, 6])
def test_features_and_gradients_equal_the_loops(n_rows, sizes, make_batch):
    batch, model = make_batch(n_rows), make(sizes)
    fast = torch.cat([part.flatten(1) for part in model(batch, whole=True)], dim=1)
    slow = torch.cat([part.flatten(1) for part in features_by_loops(model, batch)], dim=1)
    torch.testing.assert_close(fast, slow)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(fast.square().sum(), parameters, materialize_grads=True),
        torch.autograd.grad(slow.square().sum(), parameters, materialize_grads=True),
    )


def test_a_table_too_large_to_multiply_gives_the_same_numbers(sizes, make_batch):
    batch, model = make_batch(6), make(sizes)
    large = make(sizes)
    for use in (large.attention, large.representation):
        use.tokens.lazy = True
    expected, found = model(batch, whole=True), large(batch, whole=True)
    torch.testing.assert_close(found.features, expected.features)
    torch.testing.assert_close(found.whole, expected.whole)


def shake(use):
    with torch.no_grad():
        for parameter in use.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_representation_tables_leave_scores_and_kept_events_as_they_are(sizes, make_batch):
    batch, model = make_batch(6), make(sizes)
    before, features = model.attend(batch), model(batch).features
    shake(model.representation)
    after = model.attend(batch)
    assert torch.equal(after.scores, before.scores)
    assert torch.equal(after.kept.places, before.kept.places)
    assert torch.equal(after.weights, before.weights)
    assert not torch.allclose(model(batch).features, features)


def test_attention_tables_leave_contents_as_they_are(sizes, make_batch):
    batch, model = make_batch(6), make(sizes)
    everywhere = torch.arange(6).expand(6, -1)
    scores, contents = model.attend(batch).scores, model.contents(batch, everywhere)
    average = model(batch).features[:, [0, 3, 4]]
    shake(model.attention)
    assert torch.equal(model.contents(batch, everywhere), contents)
    assert torch.equal(model(batch).features[:, [0, 3, 4]], average)
    assert not torch.allclose(model.attend(batch).scores, scores)


def test_gradients_do_not_cross_between_the_tables(sizes, make_batch):
    batch, model = make_batch(6), make(sizes)
    model.attend(batch).weights.square().sum().backward()
    assert model.attention.tokens.weight.grad is not None
    assert all(p.grad is None for p in model.representation.parameters())


def test_top_k_beyond_the_length_is_the_softmax_over_everything(sizes, make_batch):
    batch, model = make_batch(6), make(sizes, top_k=99)
    encoded = model(batch, whole=True)
    torch.testing.assert_close(encoded.features[:, 1], encoded.whole)


@pytest.mark.parametrize("length", [0, 1, 2])
@pytest.mark.parametrize("n_blocks", [0, 1])
@pytest.mark.parametrize("average", ["all", "kept"])
def test_short_and_empty_histories_are_finite_forwards_and_backwards(
    length, n_blocks, average, sizes, make_batch
):
    batch, model = make_batch(3), make(sizes, n_blocks=n_blocks, average=average)
    batch["length"].fill_(length)
    attended = model.attend(batch)
    assert attended.kept.counted.sum(1).tolist() == [length] * 3
    expected = torch.full((3,), float(length > 0), dtype=torch.float64)
    torch.testing.assert_close(attended.weights.sum(1), expected)
    encoded = model(batch, whole=True)
    (encoded.features.sum() + encoded.whole.sum()).backward()
    if length == 0:
        assert torch.equal(encoded.features[:, 1:], torch.zeros_like(encoded.features[:, 1:]))
    assert torch.isfinite(encoded.features).all()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_kept_events_stand_in_time_order(sizes, make_batch):
    kept = make(sizes).attend(make_batch(6)).kept
    assert (kept.places.diff(dim=1) > 0).all()


@pytest.mark.parametrize("n_blocks", [0, 2])
def test_what_stands_behind_the_length_changes_nothing(n_blocks, sizes, make_batch):
    batch, model = make_batch(6), make(sizes, n_blocks=n_blocks)
    before = model(batch, whole=True)
    padding = torch.arange(6) >= batch["length"][:, None]
    batch["sequence"] = torch.where(padding, 7, batch["sequence"])
    after = model(batch, whole=True)
    torch.testing.assert_close(after.features, before.features)
    torch.testing.assert_close(after.whole, before.whole)


def test_a_short_tau_keeps_the_newest_events(sizes, make_batch):
    attended = make(sizes, tau=0.001).attend(make_batch(2))
    assert attended.kept.places[1].tolist() == [3, 4, 5]
    assert attended.weights[1].argmax() == 2


@pytest.mark.parametrize("mode", ["S1", "S2", "concat", "token"])
def test_the_query_reads_what_its_mode_names(mode, sizes, make_batch):
    batch, model = make_batch(4), make(sizes, query_mode=mode)
    batch["target"] = torch.tensor([1, 2, 3, 4])
    moved = {
        "S1": {**batch, "categorical": batch["categorical"].clone()},
        "S2": {**batch, "categorical": batch["categorical"].clone()},
        "token": {**batch, "target": batch["target"] + 1},
    }
    moved["S1"]["categorical"][:, 1] = 4 + (moved["S1"]["categorical"][:, 1] - 3) % 6
    moved["S2"]["categorical"][:, 0] = (moved["S2"]["categorical"][:, 0] + 1) % 4
    before = model.attention.query(batch)
    changed = {
        name: not torch.allclose(model.attention.query(other), before)
        for name, other in moved.items()
    }
    reads = {"S1", "S2"} if mode == "concat" else {mode}
    assert changed == {name: name in reads for name in moved}


def test_one_shared_table_is_one_table(sizes, make_batch):
    model = make(sizes, shared_table=True, d_representation=4)
    assert model.representation is model.attention
    assert torch.isfinite(model(make_batch(3)).features).all()


def make_click(sizes, head, **options):
    torch.manual_seed(1)
    encoder = configure(sizes, **options)
    embedding = EmbeddingConfig(d_embedding=4, std=0.5)
    config = DAREClickConfig(encoder=encoder, embedding=embedding, head=head, auxiliary_hidden=(5,))
    return DAREClick(config)


HEADS = {
    "mlp": MLPHeadConfig(hidden=(8, 4)),
    "qnn": QNNHeadConfig(n_layers=1, n_rows=2, n_heads=2, dropout=0.2),
    "low_rank_fm": LowRankFMHeadConfig(
        n_heads=2, rank=3, d_projection=4, hidden=(8,), dropout=0.1, pair_grouping="block"
    ),
}


@pytest.mark.parametrize("head", sorted(HEADS))
def test_the_heads_read_the_same_encoder_and_the_auxiliary_head_the_whole_sequence(
    head, sizes, make_batch
):
    batch, model = make_batch(4), make_click(sizes, HEADS[head]).eval()
    logits = model.all_logits(batch, second_pass=True)
    torch.testing.assert_close(logits.main, model(batch))
    torch.testing.assert_close(logits.second, logits.main)
    torch.testing.assert_close(
        logits.auxiliary, model.auxiliary(model.encoder(batch, whole=True).whole)
    )


def test_an_auxiliary_loss_changes_the_gradient_of_the_encoder(sizes, make_batch):
    batch, model = make_batch(4), make_click(sizes, HEADS["mlp"])
    logits = model.all_logits(batch)
    tables = model.encoder.representation.tokens.weight
    (plain,) = torch.autograd.grad(logits.main.sum(), tables, retain_graph=True)
    (both,) = torch.autograd.grad(logits.main.sum() + logits.auxiliary.sum(), tables)
    assert not torch.allclose(plain, both)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_mode": "S3"}, "query_mode='S3': expected one of"),
        ({"top_k": 0}, "top_k=0"),
        ({"tau": 0.0}, "tau=0.0: expected above zero, or None"),
        ({"shared_table": True}, "shared_table needs d_attention=4 equal to d_representation=6"),
        ({"query_fields": (1,)}, r"query_fields=\(1,\): expected two columns"),
        ({"query_fields": (1, 8)}, "expected columns from 0 to 2"),
    ],
)
def test_contradicting_options_are_refused(options, message, sizes):
    with pytest.raises(ValueError, match=message):
        configure(sizes, **options)


def test_query_fields_need_their_place_in_the_id_space(sizes):
    bare = dataclasses.replace(sizes, field_offsets=(), field_sizes=())
    with pytest.raises(ValueError, match=r"needs sizes.field_offsets and sizes.field_sizes"):
        configure(bare)
    assert isinstance(bare, Sizes)


def test_a_token_target_must_be_in_the_batch(sizes, make_batch):
    with pytest.raises(ValueError, match=r"reads batch\['target'\]"):
        make(sizes, query_mode="token").attend(make_batch(2))
