"""The soft-token study put together: what is trained, on which negatives, and what a loss is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.histories import Targets, write_histories
from lib.language.backbone import Backbone
from lib.models.bpr_mf import BPRMF
from lib.models.fpmc import FPMC
from lib.models.item_inputs import build_item_input
from lib.models.sasrec import SASRec, SASRecConfig, next_item_loss
from lib.models.soft_token import SoftTokenConfig, SoftTokenRecommender
from lib.studies.factors import training_steps
from lib.studies.negatives import ItemSampler
from lib.studies.recommend import add_items, main, recommend, recommend_file
from lib.studies.soft_token_diagnostics import listen, new_item_ranks, shuffle_histories
from lib.studies.soft_token_loss import (
    LossConfig,
    SoftTokenLoss,
    sampled_next_item_loss,
    touched_norm,
)
from lib.studies.soft_token_maps import history_means, ridge_map
from lib.studies.soft_token_rows import Study, parse_row, read_row, train_row
from lib.studies.soft_token_run import load_run
from lib.studies.soft_tokens import (
    Windows,
    build_trunk,
    encode,
    recommender,
    sequence_source,
    start_from_titles,
    test_windows,
)
from lib.train.losses import full_softmax
from lib.train.plan import Plan
from tests.language.conftest import TEXTS, make_model

V = 12
BASE = {"softmax": "full", "full_up_to": 100, "n_sampled": 8, "collaborative": 1.0, "bpr": 1.0,
        "regularisation": 1.0, "lambda_c": 0.5, "n_negatives": 3, "pool": "shared"}  # fmt: skip


def make_histories(folder, sequences, n_items=V):
    """Leave-last-out; users with fewer than three items are training only."""
    lengths = np.array([len(s) for s in sequences])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    long = np.flatnonzero(lengths >= 3).astype(np.int32)
    train = [(u, p) for u, n in enumerate(lengths) for p in range(1, n - 2 if n >= 3 else n)]
    users, positions = np.array(train, dtype=np.int64).reshape(-1, 2).T
    return write_histories(
        folder,
        items=np.concatenate(sequences), times=np.concatenate([np.arange(n) for n in lengths]),
        offsets=offsets,
        targets={"train": Targets(users.astype(np.int32), positions),
                 "valid": Targets(long, lengths[long] - 2), "test": Targets(long, lengths[long] - 1)},
        item_keys=["", *(f"k{i}" for i in range(1, n_items + 1))],
        titles=["", *(f"{TEXTS[i % 6]} number {i}" for i in range(1, n_items + 1))],
        made={"split": "last"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def histories(tmp_path_factory):
    rng = np.random.default_rng(3)
    sequences = [rng.choice(V, size=n, replace=False) + 1 for n in (5, 4, 7, 3, 6, 1, 2, 9)]
    return make_histories(tmp_path_factory.mktemp("histories"), sequences)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    from lib.language.tokens import train_tokenizer

    tokenizer = train_tokenizer(TEXTS * 20, n_tokens=300)
    folder = tmp_path_factory.mktemp("backbone")
    Backbone(make_model("qwen3", n_tokens=len(tokenizer)), tokenizer).save(folder)
    return folder


def make_model_for(histories, *, score="dot", sparse=False, titles=None, **changes):
    torch.manual_seed(1)
    config = SoftTokenConfig(
        n_users=histories.n_users, n_items=histories.n_items, d_rec=8, max_len=10, score=score,
        temperature=0.5, sparse_items=sparse, **changes,
    )  # fmt: skip
    rows = None if titles is None else torch.from_numpy(titles)
    return SoftTokenRecommender(make_model("qwen3").base_model, config, titles=rows).eval()


def whole_batch(histories):
    source = sequence_source(histories, max_len=10, batch=100, seed=1)
    return max(source.batches(0), key=lambda batch: len(batch["users"]))


# what is trained


def test_training_sequences_hold_every_training_item_once_and_no_later_one(histories):
    source = sequence_source(histories, max_len=10, batch=2, seed=1)
    found = {}
    for batch in source.batches(0):
        for user, items, predict in zip(*(batch[k] for k in ("users", "items", "predict")),
                                        strict=True):  # fmt: skip
            real = items > 0
            assert predict[real].all(), "every item is predicted, the first from the user alone"
            assert not predict[~real].any()
            found[int(user)] = items[real].tolist()
    for user in range(histories.n_users):
        start, length = histories.offsets[user], histories.train_lengths[user]
        assert found.get(user, []) == histories.items[start : start + length].tolist()
    held = {int(histories.items[histories.offsets[u] + p])
            for u, p in zip(*vars(histories.targets["test"]).values(), strict=True)}  # fmt: skip
    assert held, "there are test targets, and no sequence above reaches them"


def test_left_out_users_are_in_no_batch(histories):
    source = sequence_source(
        histories, max_len=10, batch=2, seed=1, left_out=np.array([0, 2], np.int32)
    )
    users = {int(u) for batch in source.batches(0) for u in batch["users"]}
    assert users == {1, 3, 4, 5, 6, 7}


def test_long_histories_keep_the_newest_and_one_item_more_to_predict(tmp_path):
    histories = make_histories(tmp_path, [np.arange(1000) % V + 1, np.array([3])])
    source = sequence_source(histories, max_len=20, batch=2, seed=1)
    longest = max((batch["items"].shape[1] for batch in source.batches(0)), default=0)
    assert longest == 21
    model = make_model_for(histories)
    windows = test_windows(histories, histories.targets["test"], 10)
    assert encode(model, windows).shape == (1, 8)


# negatives


def test_no_negative_is_one_of_the_users_positives(histories):
    sampler = ItemSampler(histories)
    torch.manual_seed(0)
    users = torch.arange(histories.n_users).repeat(200)
    ids = sampler.negatives(users, 7)
    assert int(ids.min()) >= 1
    assert int(ids.max()) <= V
    for user in range(histories.n_users):
        start, length = histories.offsets[user], histories.train_lengths[user]
        own = set(histories.items[start : start + length].tolist())
        drawn = set(ids[users == user].flatten().tolist())
        assert not own & drawn
        assert drawn == set(range(1, V + 1)) - own, "and every other item is drawn"


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 11), st.integers(1, 5), st.integers(0, 1000))
def test_negatives_are_found_however_few_are_left(tmp_path_factory, owned, n, seed):
    folder = tmp_path_factory.mktemp("few")
    histories = make_histories(folder, [np.arange(1, owned + 1), np.array([1])])
    torch.manual_seed(seed)
    ids = ItemSampler(histories).negatives(torch.tensor([0, 1, 0]), n)
    assert not bool(ItemSampler(histories).owns(torch.tensor([[0], [1], [0]]), ids).any())


def test_a_user_who_owns_everything_is_refused(tmp_path):
    histories = make_histories(tmp_path, [np.array([1, 2, 1, 1])], n_items=2)
    with pytest.raises(ValueError, match="user 0 has all 2 items"):
        ItemSampler(histories)


def test_pool_is_drawn_as_often_as_it_says(histories):
    sampler = ItemSampler(histories)
    torch.manual_seed(0)
    ids, expected = sampler.pool(200_000)
    counted = torch.bincount(ids, minlength=V + 1).float()
    told = torch.zeros(V + 1).index_copy_(0, ids, expected)
    assert ((counted - told).abs()[1:] < 5 * told[1:].sqrt()).all()
    assert counted[0] == 0


def test_the_sampled_softmax_estimates_the_full_one_without_bias(histories):
    sampler, model = ItemSampler(histories), make_model_for(histories, sparse=True)
    batch = whole_batch(histories)
    torch.manual_seed(0)
    full = SoftTokenLoss(LossConfig(**BASE | {"bpr": 0.0, "regularisation": 0.0}), sampler)
    many = {"softmax": "sampled", "n_sampled": 4_000, "bpr": 0.0, "regularisation": 0.0}
    sampled = SoftTokenLoss(LossConfig(**BASE | many), sampler)
    with torch.no_grad():
        exact = float(full(model, batch)["softmax"])
        drawn = [float(sampled(model, batch)["softmax"]) for _ in range(20)]
    assert abs(np.mean(drawn) - exact) < 5 * np.std(drawn) / 20**0.5 + 2e-3


def test_sasrec_with_the_sampled_softmax_has_the_loss_of_the_full_one(histories):
    torch.manual_seed(0)
    config = SASRecConfig(n_dims=8, n_layers=1, n_heads=2, d_inner=16, max_len=8, dropout=0.0,
                          score="cosine", temperature=0.5)  # fmt: skip
    model = SASRec(build_item_input("id", n_items=V, n_dims=8), config).eval()
    inputs, targets, _ = histories.training_sequences(8)
    batch = {"inputs": torch.from_numpy(inputs).long(), "targets": torch.from_numpy(targets).long()}
    sampler = ItemSampler(histories)
    with torch.no_grad():
        exact = float(next_item_loss(model, batch, criterion=full_softmax))
        drawn = [float(sampled_next_item_loss(model, batch, sampler=sampler, n_sampled=4_000))
                 for _ in range(20)]  # fmt: skip
    assert abs(np.mean(drawn) - exact) < 5 * np.std(drawn) / 20**0.5 + 2e-3


# losses


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_bpr_over_a_shared_pool_equals_the_loops(histories, score):
    model, sampler = make_model_for(histories, score=score), ItemSampler(histories)
    batch = whole_batch(histories)
    torch.manual_seed(5)
    found = SoftTokenLoss(LossConfig(**BASE | {"collaborative": 0.0, "regularisation": 0.0}),
                          sampler)(model, batch)  # fmt: skip
    torch.manual_seed(5)
    ids = torch.randint(1, V + 1, (3,))
    items, users = batch["items"].long(), batch["users"].long()
    states = model(users, items[:, :-1])
    context, own = [], []
    for row, user in enumerate(users.tolist()):
        length = int((items[row] > 0).sum())
        bought = set(items[row, :length].tolist())
        for t in range(length):
            for k in set(ids.tolist()) - bought:
                times = int((ids == k).sum())
                rows = model.item_rows(torch.stack([items[row, t], torch.tensor(k)]))
                for query, terms in ((states[row, t], context), (model.users.weight[user], own)):
                    q, scaled = model.logits_parts(query, rows)
                    margin = q @ scaled[0] - q @ scaled[1]
                    terms.extend([torch.log1p(torch.exp(-margin))] * times)
    torch.testing.assert_close(
        found["bpr_context"], torch.stack(context).mean(), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(found["bpr_user"], torch.stack(own).mean(), rtol=1e-4, atol=1e-6)


def test_cross_entropy_counts_every_position_and_the_norm_every_row_once(histories):
    model, sampler = make_model_for(histories), ItemSampler(histories)
    batch = whole_batch(histories)
    found = SoftTokenLoss(LossConfig(**BASE | {"bpr": 0.0}), sampler)(model, batch)
    items = batch["items"].long()
    states = model(batch["users"], items[:, :-1])
    wanted = items > 0
    logits = states[wanted] @ model.item_table()[1:].T
    own = torch.nn.functional.cross_entropy(logits, items[wanted] - 1)
    torch.testing.assert_close(found["softmax"], own, rtol=1e-4, atol=1e-5)
    rows = sorted(set(items[wanted].tolist()))
    norm = model.users.weight[batch["users"].long()].square().sum(1).mean()
    norm = norm + model.items.weight[rows].square().sum(1).mean()
    torch.testing.assert_close(found["norm"], 0.5 * norm)
    torch.testing.assert_close(touched_norm(model, batch["users"], items), norm)


def test_a_sampled_step_touches_only_rows_of_the_batch_and_the_sample(tmp_path):
    histories = make_histories(tmp_path, [np.array([1, 2, 3, 4, 5])], n_items=500)
    model = make_model_for(histories, sparse=True).train()
    loss = SoftTokenLoss(LossConfig(**BASE | {"softmax": "sampled"}), ItemSampler(histories))
    sum(loss(model, whole_batch(histories)).values()).backward()
    assert model.items.weight.grad is None
    rows, gradient = model.items.take_touched()
    assert len(rows) <= 5 + 8 + 3
    assert gradient.abs().sum() > 0


def test_impossible_losses_are_refused():
    with pytest.raises(ValueError, match="nothing is left to learn"):
        LossConfig(**BASE | {"collaborative": 0.0, "bpr": 0.0})
    with pytest.raises(ValueError, match=r"bpr=-1"):
        LossConfig(**BASE | {"bpr": -1.0})
    assert LossConfig(**BASE | {"softmax": "auto"}).is_sampled(101)
    assert not LossConfig(**BASE | {"softmax": "auto"}).is_sampled(100)


# tokens and backbones


def test_padding_alone_and_in_a_batch_give_the_same_vector(histories):
    model = make_model_for(histories, score="cosine")
    windows = test_windows(histories, histories.targets["test"], 10)
    together = encode(model, windows)
    wide = np.pad(windows.items, ((0, 0), (0, 0)))
    for row in range(len(wide)):
        one = Windows(windows.users[[row]], windows.items[[row]], windows.lengths[[row]])
        np.testing.assert_allclose(encode(model, one)[0], together[row], atol=2e-5)
    assert np.abs(encode(model, windows, tokens=1) - together).max() < 2e-5


@pytest.mark.parametrize("kind", ["pretrained", "frozen", "lora", "random", "two-layer"])
def test_backbones_differ_in_what_is_trained_and_drop_their_words(backbone, kind, histories):
    trunk = build_trunk(backbone, kind, seed=2, lora_rank=2)
    config = SoftTokenConfig(n_users=3, n_items=V, d_rec=8, max_len=5, score="dot", temperature=1.0)
    model = recommender(trunk, config, seed=1)
    assert trunk.get_input_embeddings().weight.shape[0] == 1
    names = {n for n, p in model.named_parameters() if p.requires_grad and n.startswith("trunk")}
    if kind == "frozen":
        assert not names
        assert not model.train().trunk.training
    elif kind == "lora":
        assert names
        assert all("lora_" in name for name in names)
    else:
        assert any("mlp" in name for name in names)
    assert model(torch.tensor([0]), torch.tensor([[1, 2]])).shape == (1, 3, 8)
    with pytest.raises(ValueError, match="expected one of"):
        build_trunk(backbone, "tiny", seed=1)


def test_rows_may_start_as_their_titles(histories):
    model = make_model_for(histories)
    before = model.items.weight.detach().clone()
    titles = np.random.default_rng(0).normal(size=(V + 1, 20)).astype(np.float32)
    titles[0] = titles[4] = 0
    start_from_titles(model, titles)
    after = model.items.weight.detach()
    torch.testing.assert_close(after[[0, 4]], before[[0, 4]])
    gram = after[1:4, :] @ after[1:4, :].T
    assert torch.isfinite(gram).all()
    assert 0.5 < float(after[1:].norm(dim=1).mean()) < 2


# BPR-MF and FPMC


@pytest.mark.parametrize("kind", [BPRMF, FPMC])
def test_factor_scores_equal_the_formula_and_the_product_of_vectors(kind):
    torch.manual_seed(0)
    model = kind(n_users=3, n_items=6, n_dims=4).double()
    users, last, ids = torch.tensor([0, 2]), torch.tensor([0, 5]), torch.tensor([[1, 2], [6, 3]])
    if kind is BPRMF:
        torch.nn.init.normal_(model.biases.weight)
    found = model(users, last, ids)
    for row in range(2):
        for column in range(2):
            j = int(ids[row, column])
            s = model.users.weight[users[row]] @ model.items.weight[j]
            if kind is BPRMF:
                s = s + model.biases.weight[j, 0]
            elif last[row]:
                s = s + model.before.weight[last[row]] @ model.after.weight[j]
            torch.testing.assert_close(found[row, column], s)
    scores = model.user_vectors(users, last) @ model.item_vectors().T
    torch.testing.assert_close(scores.gather(1, ids), found)


def test_training_steps_never_cross_from_one_user_to_the_next(histories):
    steps = training_steps(histories)
    for user, last, item in zip(*steps.values(), strict=True):
        start = histories.offsets[user]
        own = histories.items[start : start + histories.train_lengths[user]].tolist()
        assert item in own
        assert last == (own[own.index(item) - 1] if own.index(item) else 0)


# newcomers


@pytest.mark.parametrize(("n", "width"), [(30, 4), (5, 9)])
def test_ridge_equals_its_definition_in_either_dimension(n, width):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(n, width)), rng.normal(size=(n, 3))
    centred = x - x.mean(0)
    weights = np.linalg.solve(
        centred.T @ centred + 0.7 * np.eye(width), centred.T @ (y - y.mean(0))
    )
    bias = y.mean(0) - x.mean(0) @ weights
    np.testing.assert_allclose(ridge_map(x, y, 0.7), np.vstack([weights, bias]), atol=1e-5)


def test_history_means_leave_padding_out():
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = history_means(np.array([[1, 3, 0], [0, 0, 0]]), rows)
    assert found.tolist() == [[4.0, 5.0], [0.0, 0.0]]


def test_shuffling_keeps_items_and_padding(histories):
    windows = test_windows(histories, histories.targets["test"], 10)
    shuffled = shuffle_histories(windows, seed=1)
    assert (np.sort(shuffled.items, 1) == np.sort(windows.items, 1)).all()
    assert ((shuffled.items > 0) == (windows.items > 0)).all()
    assert (shuffled.items != windows.items).any()


# rows, runs, recommendations


def make_study(histories, backbone, **changes):
    plan = Plan(learning_rate=1.0, epochs=1, seed=1, metric="ndcg@10")
    rates = {name: {"learning_rate": 1e-2} for name in ("soft", "sasrec", "bpr-mf", "fpmc")}
    titles = np.random.default_rng(0).normal(size=(V + 1, 6)).astype(np.float32)
    return Study(
        histories=histories, backbone=backbone, loss=LossConfig(**BASE), plan=plan, settings=rates,
        valid=histories.targets["valid"], d_rec=8, max_len=10, batch=4, temperature=0.1,
        filter_seen=True, titles=titles, held_out=0.3, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def saved(histories, backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    row = train_row(make_study(histories, backbone), "pretrained+titles", 1, folder / "row",
                    keep=folder / "run")  # fmt: skip
    return folder, row


@pytest.mark.parametrize("row", ["lora", "two-layer-user", "sasrec+titles", "bpr-mf", "fpmc"])
def test_every_kind_of_row_trains_and_is_read_back(histories, backbone, row, tmp_path):
    study = make_study(histories, backbone)
    found = train_row(
        study, row, 1, tmp_path / "row", keep=tmp_path / "run" if row == "lora" else None
    )
    assert len(found.users) == len(histories.targets["test"])
    assert len(found.items) == V + 1
    again = train_row(study, row, 1, tmp_path / "row")  # finished: not trained again
    np.testing.assert_array_equal(again.users, found.users)
    assert read_row(tmp_path / "row").cost == found.cost
    if row == "lora":
        run = load_run(tmp_path / "run")
        windows = test_windows(histories, histories.targets["test"], 10)
        np.testing.assert_allclose(encode(run.model, windows), found.users, atol=1e-5)


def test_a_row_without_user_tokens_serves_everybody_alike(histories, backbone, tmp_path):
    study = make_study(histories, backbone)
    train_row(study, "random-user+titles", 1, tmp_path / "row", keep=tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert not run.model.config.use_user
    windows = test_windows(histories, histories.targets["test"], 10)
    others = replace(windows, users=windows.users[::-1].copy())
    np.testing.assert_array_equal(encode(run.model, windows), encode(run.model, others))
    told = [{"items": [run.keys[1]], "user": user} for user in (0, 1, "nobody")]
    lists = [answer["items"] for answer in recommend(run, told, k=3)]
    assert lists[0] == lists[1] == lists[2]
    given_rows = np.ones((len(windows.users), 8), np.float32)  # nobody's row is heard either
    np.testing.assert_array_equal(
        encode(run.model, windows), encode(run.model, windows, user_rows=given_rows)
    )
    heard = listen(run, histories, histories.targets["test"], seed=1)
    assert sorted(heard) == ["as trained", "history shuffled", "newest item only"]


def test_wrong_rows_are_refused(histories, backbone, tmp_path):
    with pytest.raises(ValueError, match="expected one of"):
        parse_row("gru")
    with pytest.raises(ValueError, match="expected one of"):
        parse_row("fpmc+titles")
    with pytest.raises(ValueError, match="expected one of"):
        parse_row("sasrec-user")
    with pytest.raises(ValueError, match="kept for `recommend`"):
        train_row(make_study(histories, backbone), "sasrec", 1, tmp_path / "r", keep=tmp_path / "k")


def test_a_saved_run_gives_the_same_vectors(histories, saved):
    folder, row = saved
    run = load_run(folder / "run")
    windows = test_windows(histories, histories.targets["test"], 10)
    np.testing.assert_allclose(encode(run.model, windows), row.users, atol=1e-5)
    np.testing.assert_allclose(run.model.item_vectors(), row.items, atol=1e-6)
    assert run.keys == histories.item_keys
    assert "_name_or_path" not in run.description["trunk"], "results name no place"
    with pytest.raises(FileNotFoundError, match="30_train_soft_tokens"):
        load_run(folder / "nothing")


def test_recommend_serves_what_it_can_and_says_what_it_could_not(histories, saved, tmp_path):
    folder, _row = saved
    run = load_run(folder / "run")
    lines = [
        '{"user": 0, "items": ["k1", "k2"]}', '{"items": ["k1", "nobody", "k2"]}', "{broken",
        '{"user": "Ada", "items": []}', '{"no": "items"}', '{"user": 2, "items": ["x", "y", "z", "w"]}',
        '{"user": 1, "items": ' + str(["k3"] * 1000).replace("'", '"') + "}",
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    served = recommend_file(run, tmp_path / "in.jsonl", tmp_path / "out.jsonl", k=4)
    assert (served.served, served.refused) == (5, 2)
    answers = list(recommend(run, lines, k=4))
    assert [a["line"] for a in answers] == [1, 2, 3, 4, 5, 6, 7]
    assert len(answers[0]["items"]) == 4
    assert answers[0]["notes"] == []
    assert not {"k1", "k2"} & {item["key"] for item in answers[0]["items"]}
    assert "'nobody'" in answers[1]["notes"][0]
    assert [i["key"] for i in answers[1]["items"]] == [
        i["key"] for i in next(recommend(run, ['{"items": ["k1", "k2"]}'], k=4))["items"]
    ]
    assert "not JSON" in answers[2]["error"]
    assert "'Ada' was not in training" in answers[3]["notes"][0]
    assert "oldest first" in answers[4]["error"]
    assert "and 1 more" in answers[5]["notes"][0]
    scores = [item["score"] for item in answers[0]["items"]]
    assert scores == sorted(scores, reverse=True)
    with pytest.raises(ValueError, match="k=0"):
        list(recommend(run, lines, k=0))


def test_lists_agree_with_the_model_whose_user_was_trained(histories, saved):
    folder, row = saved
    run = load_run(folder / "run")
    user = int(histories.targets["test"].users[0])
    _, items = histories.seen(
        histories.targets["test"].users[:1], histories.targets["test"].positions[:1]
    )
    answer = next(
        recommend(run, [{"user": user, "items": [histories.item_keys[i] for i in items]}], k=3)
    )
    scores = row.users[0] @ row.items.T
    scores[[0, *items.tolist()]] = -np.inf
    best = np.argsort(-scores)[:3]
    assert [item["key"] for item in answer["items"]] == [histories.item_keys[i] for i in best]


def test_new_items_compete_through_their_titles(saved):
    folder, _ = saved
    run = load_run(folder / "run")
    larger = add_items(run, ["new1"], ["red kettle number 13"])
    assert len(larger.keys) == len(run.keys) + 1
    assert run.model.items.weight.shape[0] == V + 1, "the run given stays as it is"
    answer = next(recommend(larger, ['{"items": ["new1", "k2"]}'], k=V + 1))
    assert answer["notes"] == []
    everything = next(recommend(larger, ['{"items": ["k2"]}'], k=V + 1))
    assert "new1" in {item["key"] for item in everything["items"]}
    with pytest.raises(ValueError, match="already"):
        add_items(run, ["k1"], ["again"])


def test_the_command_line_writes_lists_and_answers_with_a_code(saved, tmp_path, capsys):
    folder, _ = saved
    (tmp_path / "in.jsonl").write_text('{"items": ["k1"]}\n')
    (tmp_path / "new.jsonl").write_text('{"key": "n", "title": "tea"}\n')
    arguments = [str(folder / "run"), str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    assert main([*arguments, "--k", "2", "--new-items", str(tmp_path / "new.jsonl")]) == 0
    assert "1 served" in capsys.readouterr().err
    assert main([str(tmp_path / "no"), *arguments[1:]]) == 2
    assert "30_train_soft_tokens" in capsys.readouterr().err


def test_diagnostics_answer_for_every_target(histories, saved):
    folder, row = saved
    run, test = load_run(folder / "run"), histories.targets["test"]
    states = listen(run, histories, test, seed=1)
    np.testing.assert_allclose(states["as trained"], row.users, atol=1e-5)
    assert set(states) == {"as trained", "history shuffled", "newest item only",
                           "user token dropped", "user token of another"}  # fmt: skip
    found = new_item_ranks(run, histories, test, states["as trained"], ridge=1.0, seed=1)
    from lib.studies.soft_token_diagnostics import rank_states

    np.testing.assert_allclose(found["own row"], rank_states(run, row.users, histories, test))


def test_the_chunked_softmax_has_the_gradient_of_the_plain_one():
    torch.manual_seed(0)
    hidden = torch.randn(40, 8, requires_grad=True)
    table = torch.randn(900, 8, requires_grad=True)
    targets = torch.randint(0, 900, (40,))
    full_softmax(hidden, table, targets, chunk=7).backward()
    own = hidden.grad.clone(), table.grad.clone()
    hidden.grad = table.grad = None
    torch.nn.functional.cross_entropy(hidden @ table.T, targets).backward()
    for a, b in zip(own, (hidden.grad, table.grad), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
