from types import SimpleNamespace

import pytest
import torch

from lib.models.ladder import build_click_model, sizes_of
from lib.models.tables import Table

DEEP = {"d_embedding": 4, "hidden": [8], "dropout": 0.0}
DARE = {
    "d_embedding": 4,
    "d_attention": 4,
    "d_representation": 6,
    "d_time": 2,
    "top_k": 3,
    "tau": 5.0,
    "query_mode": "S1",
    "query_fields": [1, 0],
    "auxiliary_hidden": [5],
}
LOW_RANK = {"n_heads": 2, "rank": 3, "d_projection": 4, "hidden": [8], "dropout": 0.0}
QNN = {"n_layers": 2, "n_rows": 3, "n_heads": 2, "dropout": 0.0}
GEN = {"kind": "all_fields", "gamma": 6.0, "activation": "relu"}
CASES = {
    "deepfm": ("deepfm", DEEP),
    "deepfm, batch norm": ("deepfm", {**DEEP, "norm": "batch"}),
    "deepfm, generated": ("deepfm", {**DEEP, "gen": GEN}),
    "dcnv2": ("dcnv2", {**DEEP, "n_cross": 2}),
    "dcnv2, low rank": ("dcnv2", {**DEEP, "n_cross": 2, "rank": 2, "numeric": "quantile"}),
    "xdeepfm": ("xdeepfm", {**DEEP, "maps": [3, 2]}),
    "ft_transformer": (
        "ft_transformer",
        {
            "d_embedding": 8,
            "n_blocks": 2,
            "n_heads": 2,
            "attention_dropout": 0.0,
            "ffn_dropout": 0.0,
            "numeric": {"kind": "periodic", "n_frequencies": 3},
        },
    ),
    "din": ("din", {**DEEP, "target_field": 1, "attention_hidden": [5], "softmax": True}),
    "two_tower": ("two_tower", {**DEEP, "item_fields": [1], "d_out": 3, "temperature": 0.1}),
    "dare": ("dare", {**DARE, "n_blocks": 1, "n_heads": 2, "head": {"kind": "mlp", "hidden": [8]}}),
    "dare, qnn": ("dare", {**DARE, "head": {"kind": "qnn", **QNN}}),
    "dare, low rank": ("dare", {**DARE, "head": {"kind": "low_rank_fm", **LOW_RANK}}),
    "qnn": ("qnn", {"d_embedding": 4, **QNN}),
    "low_rank_fm": ("low_rank_fm", {"d_embedding": 4, **LOW_RANK}),
}
EVERY = pytest.mark.parametrize("case", sorted(CASES))


def build(case, sizes, **options):
    torch.manual_seed(1)
    kind, parameters = CASES[case]
    return build_click_model(kind, sizes, {"std": 0.3, **parameters, **options})


@EVERY
def test_a_row_is_predicted_the_same_alone_and_in_any_batch(case, sizes, make_batch):
    batch = make_batch(6, dtype=torch.float64)
    model = build(case, sizes).double().eval()
    together = model(batch)
    alone = [model({k: v[i : i + 1] for k, v in batch.items()}) for i in range(6)]
    assert together.shape == (6,)
    torch.testing.assert_close(torch.cat(alone), together)


@EVERY
def test_logits_under_bfloat16_are_float32_and_near_the_exact_ones(case, sizes, make_batch):
    batch, model = make_batch(6), build(case, sizes).eval()
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch)
    assert logits.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(logits, exact, atol=0.05, rtol=0.05)


@EVERY
def test_one_row_and_an_empty_history_train(case, sizes, make_batch):
    batch, model = make_batch(1), build(case, sizes).train()
    model(batch).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@EVERY
def test_every_parameter_can_learn(case, sizes, make_batch):
    batch, model = make_batch(6), build(case, sizes, lazy=False)
    if hasattr(model, "all_logits"):
        logits = model.all_logits(batch)
        total = logits.main.square().sum() + logits.auxiliary.square().sum()
    else:
        total = model(batch).square().sum()
    total.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


@EVERY
def test_saved_weights_give_the_same_logits(case, sizes, make_batch):
    batch, model = make_batch(4), build(case, sizes).eval()
    torch.manual_seed(2)
    kind, parameters = CASES[case]
    other = build_click_model(kind, sizes, parameters).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(batch), model(batch))


@EVERY
def test_big_tables_are_lazy_unless_asked_otherwise(case, sizes):
    def id_table(model):
        return next(t for t in model.fields.modules() if isinstance(t, Table))

    assert id_table(build(case, sizes)).lazy
    assert not id_table(build(case, sizes, lazy=False)).lazy


def test_a_model_of_ids_alone_takes_a_batch_without_numbers(make_batch):
    layout = SimpleNamespace(field_sizes=(4, 6, 3), numeric_names=(), missing_names=(), n_tokens=0)
    batch = make_batch(4)
    batch["numeric"], batch["missing"] = batch["numeric"][:, :0], batch["missing"][:, :0]
    assert build("deepfm", sizes_of(layout))(batch).shape == (4,)


def test_sizes_come_from_a_layout(sizes):
    layout = SimpleNamespace(
        field_sizes=(4, 6, 3), numeric_names=("a", "b"), missing_names=("a",), n_tokens=11
    )
    assert sizes_of(layout, max_len=6) == sizes
    assert sizes_of(layout).n_tokens == 0
    with pytest.raises(ValueError, match=r"max_len=6, but this dataset has no sequence"):
        sizes_of(SimpleNamespace(**{**vars(layout), "n_tokens": 0}), max_len=6)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("deepfmm", DEEP, "unknown click model 'deepfmm'; expected one of"),
        ("deepfm", {**DEEP, "hiden": [3]}, r"unknown parameter 'hiden'. Did you mean \['hidden'\]"),
        ("deepfm", {"d_embedding": 4, "hidden": [8]}, r"missing parameters \['dropout'\]"),
        ("deepfm", {"hidden": [8], "dropout": 0.0}, r"missing parameters \['d_embedding'\]"),
        ("deepfm", {**DEEP, "sizes": 3}, "unknown parameter 'sizes'"),
        ("deepfm", {**DEEP, "numeric": "fourier"}, "numeric kind 'fourier'"),
        ("deepfm", {**DEEP, "gen": {**GEN, "gama": 1}}, "gen: unknown parameter 'gama'"),
        ("qnn", {"d_embedding": 4, **QNN, "rows": 3}, "unknown parameter 'rows'"),
        ("dare", DARE, "head=None, expected a mapping with kind"),
        ("dare", {**DARE, "head": {"kind": "mlp", "hiden": []}}, "head: unknown parameter"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(kind, parameters, message, sizes):
    with pytest.raises(ValueError, match=message):
        build_click_model(kind, sizes, parameters)
