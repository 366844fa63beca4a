"""LLM-CTR put together: joined loaders, saved and loaded rows, texts, verdicts, and refusals."""

import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from lib.language.backbone import Backbone
from lib.language.tokens import train_tokenizer
from lib.models.fields import Sizes
from lib.models.ladder import build_click_model
from lib.studies.ad_texts import AdTexts
from lib.studies.baseline import inspect_parameters, load_click_model, save_click_model
from lib.studies.clicks import ClickSource
from lib.studies.llm_compare import (
    compare_with,
    field_worth,
    plan_table,
    scenario,
    sensitivity,
    with_random_projector,
)
from lib.studies.llm_ctr import (
    Design,
    JoinedSource,
    build_llm_ctr,
    load_llm_ctr,
    predict_rows,
    read_titles,
    release_encoder,
    save_llm_ctr,
    split_rows,
    train_llm_ctr,
    training_of,
)
from lib.studies.title_reading import AdSource, TitleTokens, ad_loss, learn_titles, left_out_ads
from lib.train.plan import Plan
from tests.language.conftest import make_model

DESIGN = Design(
    variants=("x1", "x2"),
    prompt="Answer 0 or 1:",
    no="0",
    yes="1",
    form="faithful",
    d_projector=8,
    n_tokens=0,
)
PARAMETERS = {"d_embedding": 4, "hidden": [8], "dropout": 0.0, "std": 0.5,
              "gen": {"kind": "all_fields", "gamma": 1.0, "activation": "relu"}}  # fmt: skip
SIZES = Sizes(n_ids=12, n_fields=2, field_offsets=(0, 6), field_sizes=(6, 6))


class Log:
    """Two fields of six ids, a label that follows the first."""

    fields, numeric_names, missing_names = ["feat_1", "feat_14"], [], []
    field_offsets, field_sizes, n_ids = np.array([0, 6]), np.array([6, 6]), 12

    def __init__(self, seed, folder=None):
        rng = np.random.default_rng(seed)
        self.categorical = np.stack(
            [rng.integers(2, 6, 200), 6 + rng.integers(2, 6, 200)], 1
        ).astype(np.int32)
        self.label = (rng.random(200) < np.where(self.categorical[:, 0] == 3, 0.8, 0.1)).astype(
            np.int8
        )
        self.folder = folder

    def rows(self, split):
        return {"train": np.arange(120), "valid": np.arange(120, 160), "test": np.arange(160, 200)}[
            split
        ]

    def take(self, rows, max_len=None):
        log = self

        class Rows:
            categorical, label = log.categorical[rows], log.label[rows]
            numeric, missing = (
                np.zeros((len(rows), 0), np.float32),
                np.zeros((len(rows), 0), np.uint8),
            )

        return Rows()


@pytest.fixture(scope="module")
def backbone():
    tokenizer = train_tokenizer(["Answer 0 or 1: red kettle", "blue mug"] * 9, n_tokens=280)
    return Backbone(make_model("qwen3", len(tokenizer)), tokenizer)


@pytest.fixture
def places(tmp_path, backbone):
    backbone.save(tmp_path / "backbone")
    for name in ("x1", "x2", "x4"):
        torch.manual_seed(len(name))
        save_click_model(
            tmp_path / name,
            build_click_model("deepfm", SIZES, PARAMETERS),
            "deepfm",
            SIZES,
            PARAMETERS,
        )
    return {name: tmp_path / name for name in ("x1", "x2", "x4", "backbone")}


def test_a_saved_click_model_predicts_the_same_and_an_absent_one_says_which_command_trains_it(
    places, tmp_path
):
    model = load_click_model(places["x1"])
    batch = {
        "categorical": torch.tensor([[3, 8], [2, 11]]),
        "numeric": torch.zeros(2, 0),
        "missing": torch.zeros(2, 0),
    }
    save_click_model(tmp_path / "copy", model, "deepfm", SIZES, PARAMETERS)
    torch.testing.assert_close(load_click_model(tmp_path / "copy")(batch), model(batch))
    assert {line["tensor"] for line in inspect_parameters(model)} == set(model.state_dict())
    with pytest.raises(FileNotFoundError, match=r"40_train_deepfm_baseline: python run_all\.py"):
        load_click_model(tmp_path / "nowhere")
    weights = tmp_path / "copy" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    with pytest.raises(FileNotFoundError, match="40_train_deepfm_baseline"):
        load_click_model(tmp_path / "copy")


def test_joined_batches_belong_to_one_variant_hold_every_row_once_and_resume():
    sources = {
        name: ClickSource(Log(seed), np.arange(n), batch=8, seed=1)
        for name, seed, n in (("x1", 1, 30), ("x2", 2, 50))
    }
    joined = JoinedSource(sources, seed=3)
    batches = list(joined.batches(0))
    assert len(batches) == len(joined) == 4 + 7
    assert sum(len(b["label"]) for b in batches if b["variant"] == "x1") == 30
    later = list(joined.batches(0, start=6))
    assert [b["variant"] for b in later] == [b["variant"] for b in batches[6:]]
    assert all(
        torch.equal(a["categorical"], b["categorical"])
        for a, b in zip(later, batches[6:], strict=True)
    )
    assert [b["variant"] for b in joined.batches(1)] != [b["variant"] for b in batches]


@pytest.mark.parametrize("reconstruction", [0.0, 0.5])
def test_training_moves_the_projector_and_a_loaded_model_reads_a_variant_it_never_saw(
    places, backbone, tmp_path, reconstruction
):
    design = replace(DESIGN, reconstruction=reconstruction)
    data = {"x1": Log(1), "x2": Log(2), "x4": Log(4)}
    model = build_llm_ctr(design, {n: places[n] for n in design.variants}, backbone, base_rate=0.3)
    before = model.projector.expand.weight.detach().clone()
    plan = Plan(learning_rate=3e-2, seed=1, epochs=3, batch=16, metric="auc", precision="float32")
    result = train_llm_ctr(
        model, design, {n: data[n] for n in design.variants}, plan, max_rows=100, n_validation=40
    )
    assert not torch.equal(before, model.projector.expand.weight)
    assert result.best_score is not None
    save_llm_ctr(tmp_path / "saved", model, design, result)
    told = training_of(tmp_path / "saved")["training"]
    assert [row["epoch"] for row in told["history"]] == [1, 2, 3]
    assert told["history"][told["kept"] - 1]["auc"] == told["auc"] == result.best_score
    assert all("seconds" not in row for row in told["history"])  # or no two runs would be equal
    loaded, same = load_llm_ctr(tmp_path / "saved", places, places["backbone"], variants=["x4"])
    assert same == design
    torch.testing.assert_close(loaded.projector.expand.weight, model.projector.expand.weight)
    rows = data["x4"].rows("test")
    logits = predict_rows(loaded, "x4", data["x4"], rows)
    assert logits.shape == (40,)
    assert not np.allclose(
        logits, predict_rows(with_random_projector(loaded, 1), "x4", data["x4"], rows)
    )
    released, after = release_encoder(loaded, design)
    assert after.tuned_encoder
    assert any(p.requires_grad for p in released.baselines.parameters())


def make_titles(backbone, log):
    """Five ads, one of them in no training row; what each says in words of the tokenizer."""
    ads = log.categorical[:, 1] - 8
    ads = np.where(np.arange(200) % 40 == 39, 4, ads).astype(np.int64)
    ads[:120] %= 4
    texts = AdTexts(["red kettle", "blue mug", "red mug or kettle", "", "blue kettle"], ads,
                    np.bincount(ads[:120], minlength=5),
                    np.bincount(ads[:120], log.label[:120], 5).astype(np.int64), "feat_14")  # fmt: skip
    return TitleTokens(log, texts, backbone, max_tokens=20)


def make_reader(places, backbone):
    design = replace(DESIGN, variants=("x4",), form="residual", n_tokens=2, reads_title=True,
                     tunes_language=True)  # fmt: skip
    own = Backbone(copy.deepcopy(backbone.model), backbone.tokenizer)
    torch.manual_seed(5)
    return build_llm_ctr(design, {"x4": places["x4"]}, own, base_rate=0.3), design


def test_predictions_depend_on_neither_the_order_nor_the_company_of_rows(places, backbone):
    log = Log(4)
    titles = {"x4": make_titles(backbone, log)}
    model, _ = make_reader(places, backbone)
    torch.nn.init.constant_(model.share, 0.8)
    rows = np.arange(120, 200)
    whole = predict_rows(model, "x4", log, rows, titles=titles)
    order = np.random.default_rng(1).permutation(len(rows))
    mixed = predict_rows(model, "x4", log, rows[order], titles=titles, chunk=7)
    np.testing.assert_allclose(mixed, whole[order], atol=1e-5)
    alone = [predict_rows(model, "x4", log, rows[[i]], titles=titles)[0] for i in (0, 39, 77)]
    np.testing.assert_allclose(alone, whole[[0, 39, 77]], atol=1e-5)  # no padding at all
    assert np.abs(whole - predict_rows(model, "x4", log, rows, titles={
        "x4": titles["x4"].hiding(np.arange(5))})).max() > 1e-3  # fmt: skip


def test_every_ad_is_shown_once_a_pass_by_a_training_row_of_its_own_as_if_it_was_new(backbone):
    log = Log(4)
    titles = make_titles(backbone, log)
    source = AdSource(log, titles, np.arange(4), batch=3, seed=1)
    for epoch in range(3):
        batches = list(source.batches(epoch))
        assert [len(batch["label"]) for batch in batches] == [3, 1]
        found = sorted(zip(torch.cat([b["ad_rows"] for b in batches]).tolist(),
                           torch.cat([b["ad_clicks"] for b in batches]).tolist(), strict=True))  # fmt: skip
        known = titles.texts
        assert found == sorted(zip(known.rows[:4].tolist(), known.clicks[:4].tolist(), strict=True))
        assert all(batch["doubt"].eq(1).all() for batch in batches)
        (later,) = source.batches(epoch, start=1)
        assert torch.equal(later["title"], batches[1]["title"])
        assert torch.equal(later["categorical"], batches[1]["categorical"])


def test_the_loss_of_ads_is_the_mean_over_their_rows():
    """One ad of three rows, one clicked, beside the same three rows one by one."""
    model = SimpleNamespace(say=lambda _: (torch.tensor([0.4], dtype=torch.float64), None))
    batch = {"ad_rows": torch.tensor([3.0]).double(), "ad_clicks": torch.tensor([1.0]).double()}
    p = 1 / (1 + np.exp(-(0.4 - 1.2)))
    expected = -(np.log(p) + 2 * np.log(1 - p)) / 3
    assert float(ad_loss(model, batch, centre=-1.2)) == pytest.approx(expected, rel=1e-12)


def test_titles_are_learnt_then_the_language_model_stands_still_and_is_saved(
    places, backbone, tmp_path
):
    log = Log(4)
    data, titles = {"x4": log}, {"x4": make_titles(backbone, log)}
    held = left_out_ads(titles["x4"])
    assert set(held) < {0, 1, 2, 3}
    model, design = make_reader(places, backbone)
    before = {n: p.detach().clone() for n, p in model.language.named_parameters()}
    plan = Plan(learning_rate=1e-2, seed=1, epochs=3, batch=2, metric="log_loss", better="lower",
                precision="float32")  # fmt: skip
    learn_titles(model, data, titles, plan, join=partial(JoinedSource, seed=1))
    after = {n: p.detach().clone() for n, p in model.language.named_parameters()}
    assert not all(torch.equal(before[n], after[n]) for n in before)
    assert model.share.item() == 1.0
    plan = Plan(learning_rate=1e-2, seed=1, epochs=1, batch=8, metric="auc", precision="float32")
    result = train_llm_ctr(model, design, data, plan, max_rows=0, n_validation=0,
                           taught_by="valid", titles=titles)  # fmt: skip
    assert all(torch.equal(p, after[n]) for n, p in model.language.named_parameters())
    assert model.share.item() != 1.0
    save_llm_ctr(tmp_path / "saved", model, design, result)
    loaded, _ = load_llm_ctr(tmp_path / "saved", places, places["backbone"], variants=["x4"])
    rows = log.rows("test")
    np.testing.assert_allclose(
        predict_rows(loaded, "x4", log, rows, titles=titles),
        predict_rows(model.eval(), "x4", log, rows, titles=titles), atol=1e-6,
    )  # fmt: skip


def test_rows_that_teach_and_rows_that_choose_are_two_halves_of_what_the_baseline_did_not_fit():
    log = Log(1)
    teach, choose = split_rows(log, "valid", np.random.default_rng(1))
    assert sorted([*teach, *choose]) == log.rows("valid").tolist()
    assert len(teach) == len(choose)
    teach, choose = split_rows(log, "train", np.random.default_rng(1))
    assert (teach.tolist(), choose.tolist()) == (list(range(120)), list(range(120, 160)))


def test_titles_without_their_table_are_refused_by_name(backbone):
    with pytest.raises(ValueError, match=r"\['x4'\] have none; name the inputs `table`"):
        read_titles({"x4": Log(1)}, {}, backbone, max_tokens=5)
    assert read_titles({"x4": Log(1)}, {}, backbone, max_tokens=0) == {}


def test_what_the_model_listens_to_has_a_line_per_field_and_questions_are_put_back(
    places, backbone
):
    data = Log(4)
    model = build_llm_ctr(
        Design(
            **{**{f: getattr(DESIGN, f) for f in DESIGN.__dataclass_fields__}, "variants": ("x4",)}
        ),
        {"x4": places["x4"]},
        backbone,
        base_rate=0.3,
    ).eval()
    rows = data.rows("test")
    assert set(field_worth(model, "x4", data, rows)["field"]) == set(data.fields)
    prompt, answers = model.prompt, model.answers
    first = predict_rows(model, "x4", data, rows)
    table = sensitivity(model, "x4", data, rows, backbone, ["Click?"], [["0", "1"], ["0", "0"]])
    assert len(table) == 3
    assert "not one token" in table["to"][2]
    assert (model.prompt, model.answers) == (prompt, answers)
    np.testing.assert_array_equal(first, predict_rows(model, "x4", data, rows))


def test_a_row_that_pools_its_fields_cannot_be_asked_what_one_is_worth(places, backbone):
    model, _ = make_reader(places, backbone)
    with pytest.raises(ValueError, match=r"no token per field .* n_tokens: 0"):
        field_worth(model, "x4", Log(4), Log(4).rows("test"))


def test_table_pairs_every_row_with_the_baseline():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=400)
    labels = (rng.random(400) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    logits = {"baseline": truth + rng.normal(size=400), "better": truth}
    table = compare_with("baseline", labels, logits, threshold=0.5, draws=500)
    line = table.filter(row="better").row(0, named=True)
    assert line["auc_gain"] == pytest.approx(line["auc"] - table.filter(row="baseline")["auc"][0])
    assert line["auc_gain_low"] > 0
    assert scenario(line) == "A"
    gains = plan_table(table, "baseline", "better")
    assert (gains.filter(pl.col("metric").is_in(["auc", "log_loss"]))["improvement"] > 0).all()


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.01, "A"),
        (-0.0005, 0.01, "B"),
        (-0.02, -0.001, "C"),
        (-0.02, 0.02, "not decidable"),
    ],
)
def test_scenarios_are_decided_by_the_interval(low, high, verdict):
    assert scenario({"auc_gain_low": low, "auc_gain_high": high}) == verdict
