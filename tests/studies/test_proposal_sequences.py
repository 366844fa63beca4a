"""Interactions of any form: roles, order, core, titles; and what is refused."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.prepare import read_raw
from lib.pipeline.cli import main
from lib.pipeline.plan import node_parameters
from lib.pipeline.profile import CODE_ROOT, Home, load_profile
from lib.studies.proposal import propose_sequences
from lib.studies.proposal_files import open_table
from lib.studies.proposal_sequences import SequenceChoices, core_rows, look_at_sequences
from tests.studies.proposal_files import purchases, write_lines


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project of its own with the real notebooks."""
    root = tmp_path / "project"
    (root / "params").mkdir(parents=True)
    (root / "notebooks").symlink_to(CODE_ROOT / "notebooks")
    monkeypatch.setenv("LINGREC_HOME", str(root))
    return Home(root)


def look(path, scratch, titles=None, **choices):
    named = None if titles is None else open_table([titles], scratch)
    return look_at_sequences(open_table([path], scratch), named, SequenceChoices(**choices))


def what_notebook_10_reads(home, name):
    """The interactions of the written profile, as (user, item) in order, and titles by item."""
    profile = load_profile(home, name)
    for node in profile.nodes.values():
        node_parameters(home, node)
    params = profile.nodes["histories"].params
    folder = home.root / "data/raw" / profile.nodes["histories"].inputs["raw"].removeprefix("raw:")
    unit = "order" if params.get("time_unit") == "order" else None
    raw = read_raw(folder, params["source"], columns=params["columns"], unit=unit)
    users, items = np.array(raw.rows.user_keys), np.array(raw.rows.item_keys)
    found = pl.DataFrame({"user": users[raw.rows.users], "item": items[raw.rows.items],
                          "time": raw.rows.times})  # fmt: skip
    ordered = found.sort("time", maintain_order=True).select("user", "item").rows()
    return ordered, dict(zip(items, raw.items["title"], strict=True)), profile


def title(item):
    return f"Der Große {item.upper()} & Co"


def as_json_lines(path):
    return write_lines(path, [
        json.dumps({"customer": user, "sku": item, "bought_at": moment, "extra": {"a": [1]}})
        for user, item, moment in purchases()])  # fmt: skip


def as_movielens(path):
    return write_lines(
        path, [f"{u}::{i}::{n % 5 + 1}::{t}" for n, (u, i, t) in enumerate(purchases())]
    )


def as_german_csv(path):
    lines = [
        f'{u};"{i}";{pl.from_epoch(pl.Series([t]))[0]:%d.%m.%Y %H:%M:%S}' for u, i, t in purchases()
    ]
    return write_lines(path, ["Kunde;Artikel;Datum", *lines], encoding="cp1252")


def as_parquet(path):
    columns = zip(*purchases(), strict=True)
    frame = pl.DataFrame(dict(zip(["user_id", "product_id", "ts"], columns, strict=True)))
    frame.with_columns(pl.from_epoch("ts")).sample(fraction=1, shuffle=True, seed=1).write_parquet(
        path
    )
    return path


def as_inter(path):
    lines = [f"{u}\t{i}\t{t}" for u, i, t in purchases()]
    return write_lines(path, ["user_id:token\titem_id:token\ttimestamp:float", *lines])


def as_lines(path):
    histories = {}
    for user, item, _ in purchases():
        histories.setdefault(user, []).append(item)
    return write_lines(path, [" ".join([user, *items]) for user, items in histories.items()])


FORMS = {"log.jsonl": as_json_lines, "ratings.dat": as_movielens, "kauf.csv": as_german_csv,
         "log.parquet": as_parquet, "log.inter": as_inter}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_one_log_reaches_notebook_10_as_the_same_interactions(name, home, tmp_path):
    path = FORMS[name](tmp_path / name)
    titles = write_lines(tmp_path / "titles.csv", ["code,Name,shelf"] + [
        f'i{n},"{title(f"i{n}")}",s{n % 4}' for n in range(60)])  # fmt: skip
    assert main(["init", "shop", "--sequences", str(path), "--titles", str(titles)]) == 0
    found, told, profile = what_notebook_10_reads(home, "shop")
    assert found == [(user, item) for user, item, _ in purchases()]
    assert told["i7"] == title("i7")
    assert profile.nodes["histories"].params["split"] == "temporal"
    assert {"sasrec", "soft_tokens_study"} <= set(profile.nodes)
    linked = (home.root / "data/raw/shop/interactions.inter").is_symlink()
    assert linked == (name == "log.inter")


def test_lines_of_ids_keep_their_order_and_the_last_item_is_the_test(home, tmp_path):
    assert main(["init", "shop", "--sequences", str(as_lines(tmp_path / "s.txt"))]) == 0
    found, _, profile = what_notebook_10_reads(home, "shop")
    of_one = [item for user, item in found if user == "u5"]
    assert of_one == [item for user, item, _ in purchases() if user == "u5"]
    assert profile.nodes["histories"].params["split"] == "last"


def test_without_titles_no_language_model_is_proposed(home, tmp_path):
    assert main(["init", "shop", "--sequences", str(as_inter(tmp_path / "log.inter"))]) == 0
    _, told, profile = what_notebook_10_reads(home, "shop")
    assert told["i3"] == "item i3"
    assert "csft" not in profile.nodes
    assert profile.nodes["soft_tokens"].params["rows"][0] == "random"


def test_titles_beside_the_items_are_found(home, tmp_path):
    path = write_lines(tmp_path / "log.jsonl", [
        json.dumps({"user": u, "item": i, "time": t, "title": title(i)}) for u, i, t in purchases()
    ])  # fmt: skip
    assert main(["init", "shop", "--sequences", str(path)]) == 0
    _, told, profile = what_notebook_10_reads(home, "shop")
    assert told["i9"] == title("i9")
    assert "llm2rec" in profile.nodes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40),
       st.integers(1, 4), st.integers(1, 4))  # fmt: skip
def test_a_core_is_the_largest_set_in_which_everybody_has_enough(rows, user_core, item_core):
    users, items = (np.array(column) for column in zip(*rows, strict=True))
    kept = core_rows(users, items, user_core, item_core)
    left = list(range(len(rows)))
    while True:  # by hand: one row at a time, in any order
        bad = [n for n in left if sum(users[m] == users[n] for m in left) < user_core
               or sum(items[m] == items[n] for m in left) < item_core]  # fmt: skip
        if not bad:
            break
        left.remove(bad[-1])
    assert np.flatnonzero(kept).tolist() == left


def test_roles_and_split_are_taken_from_options(tmp_path):
    path = write_lines(
        tmp_path / "log.csv", ["a,b,c"] + [f"{u},{i},{t}" for u, i, t in purchases()]
    )
    with pytest.raises(
        ValueError, match=r"no column looks like the user; there are a, b, c.*--user"
    ):
        look(path, tmp_path)
    found = look(path, tmp_path, user="a", item="b", split="ratio")
    assert found.split == "ratio"
    assert "time" not in found.rows.columns  # a number, and no name that says time
    with pytest.raises(ValueError, match="--split temporal: there is no time"):
        look(path, tmp_path, user="a", item="b", split="temporal")
    with pytest.raises(ValueError, match="does not read as a time"):
        look(path, tmp_path, user="a", item="b", time="b")


def test_what_cannot_be_used_is_refused(tmp_path):
    few = write_lines(tmp_path / "few.csv", ["user,item,time", "u,i,1600000000", "v,i,1600000001"])
    with pytest.raises(ValueError, match="at least 20 users"):
        look(few, tmp_path)
    path = as_inter(tmp_path / "log.inter")
    other = write_lines(tmp_path / "t.csv", ["sku,title", "x1,One thing", "x2,Another"])
    with pytest.raises(ValueError, match=r"none of its columns .* holds the items"):
        look(path, tmp_path, titles=other)
    header = write_lines(tmp_path / "h.csv", ["user,item,time"])
    with pytest.raises(ValueError, match="a header and no rows"):
        look(header, tmp_path)


def test_movielens_100k_is_linked_and_split_by_time(shared_data, tmp_path):
    folder = shared_data / "ml-100k"
    table, titles = (open_table([folder / f"ml-100k.{end}"], tmp_path) for end in ("inter", "item"))
    proposal = propose_sequences(table, titles, SequenceChoices(), "ml")
    assert proposal.delivery.steps[0].startswith("link")
    nodes = {node.name: node for node in proposal.nodes}
    assert nodes["histories"].params["split"] == "temporal"
    assert nodes["histories"].params["user_core"] == 5
    assert list(nodes)[-1] == "everything"


def test_beauty_keeps_every_interaction_and_knows_its_titles(shared_data, tmp_path):
    folder = shared_data / "beauty"
    found = look(folder / "sequences.txt", tmp_path, titles=folder / "items.tsv")
    assert found.kept == (198502, 22363, 12101)
    assert found.core == (5, 5)
    assert found.titled == pytest.approx(12094 / 12101)
    assert found.split == "last"
