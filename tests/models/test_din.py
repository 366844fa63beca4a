import pytest
import torch

from lib.models.din import DIN, DINConfig
from lib.models.fields import EmbeddingConfig


def make(sizes, **options):
    torch.manual_seed(1)
    plain = {
        "target_field": 1,
        "attention_hidden": (8, 5),
        "hidden": (8,),
        "dropout": 0.0,
        "softmax": True,
        "attention_activation": "prelu",
    }
    embedding = EmbeddingConfig(d_embedding=4, std=0.5, lazy=False)
    return DIN(DINConfig(sizes=sizes, embedding=embedding, **{**plain, **options})).double()


def logits_by_loops(model, batch):
    """The paper's form: [t; h; t - h; t ⊙ h] written out for one event after another."""
    tokens, att = model.fields(batch).tokens, model.attention
    pooled = []
    for b in range(len(tokens)):
        t = tokens[b, model.config.target_field]
        events = [model.events.weight[i] for i in batch["sequence"][b, : batch["length"][b]]]
        scores = [
            att.rest(att.activation(att.first(torch.cat([t, h, t - h, t * h])[None])))[0]
            for h in events
        ]
        if not events:
            pooled.append(torch.zeros_like(t))
            continue
        weights = torch.stack(scores)
        weights = weights.softmax(0) if model.config.softmax else weights
        pooled.append(sum(w * h for w, h in zip(weights, events, strict=True)))
    return model.mlp(torch.cat([tokens.flatten(1), torch.stack(pooled)], dim=1))


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("n_rows", [1, 6])
def test_logits_and_gradients_equal_the_loops(n_rows, softmax, sizes, make_batch):
    batch, model = make_batch(n_rows, dtype=torch.float64), make(sizes, softmax=softmax)
    fast, slow = model(batch), logits_by_loops(model, batch)
    torch.testing.assert_close(fast, slow)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(fast.square().sum(), parameters, materialize_grads=True),
        torch.autograd.grad(slow.square().sum(), parameters, materialize_grads=True),
    )


@pytest.mark.parametrize("activation", ["dice", "prelu"])
@pytest.mark.parametrize("length", [0, 1])
def test_a_batch_of_empty_or_single_histories_trains(length, activation, sizes, make_batch):
    batch, model = make_batch(1, dtype=torch.float64), make(sizes, attention_activation=activation)
    batch["length"].fill_(length)
    logits = model.train()(batch)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_history_of_padding_alone_pools_to_zero(sizes, make_batch):
    batch, model = make_batch(3, dtype=torch.float64), make(sizes).eval()
    batch["length"].zero_()
    e = model.fields(batch).tokens.flatten(1)
    expected = model.mlp(torch.cat([e, torch.zeros(3, 4, dtype=torch.float64)], dim=1))
    torch.testing.assert_close(model(batch), expected)


def test_what_stands_behind_the_length_changes_nothing(sizes, make_batch):
    batch, model = make_batch(4, dtype=torch.float64), make(sizes, attention_activation="dice")
    before = model.train()(batch)
    padding = torch.arange(6) >= batch["length"][:, None]
    batch["sequence"] = torch.where(padding, 7, batch["sequence"])
    torch.testing.assert_close(model(batch), before)


def test_shared_ids_read_the_vectors_of_the_fields(sizes, make_batch):
    batch, model = make_batch(4, dtype=torch.float64), make(sizes, shared_ids=True)
    assert not hasattr(model, "events")
    events, _, rows = model.weigh_events(batch, model.fields(batch).tokens[:, 1])
    first = batch["sequence"][rows[0], 0]
    torch.testing.assert_close(events[0], model.fields.table.weight[first])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_field": 3}, "target_field=3: expected a column from 0 to 2"),
        ({"attention_hidden": ()}, "attention_hidden is empty"),
    ],
)
def test_contradicting_options_are_refused(options, message, sizes):
    with pytest.raises(ValueError, match=message):
        make(sizes, **options)


def test_a_sequence_longer_than_the_model_is_refused(sizes, make_batch):
    batch = make_batch(2, length=7, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"shape \(2, 7\).*max_len=6: keep the newest"):
        make(sizes)(batch)


def test_a_batch_without_a_sequence_is_refused(sizes, make_batch):
    batch = make_batch(2, dtype=torch.float64)
    del batch["length"]
    with pytest.raises(ValueError, match="no 'length'"):
        make(sizes)(batch)
