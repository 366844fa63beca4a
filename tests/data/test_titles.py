"""Titles: D3's cleaning sentence by sentence, matching by item and by parent, and what is counted."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lib.data.interactions import Interactions
from lib.data.titles import clean_titles, judge_titles, match_titles, read_titles


def clean_by_hand(title: str | None) -> str | None:
    """The cleaning as the reference describes it."""
    if title is None or "<span id" in title:
        return None
    return title.replace("&quot;", '"').replace("&amp;", "&").strip(" ").strip('"')


TITLES = [
    None,
    "",
    " Tom &amp; Jerry ",
    "&quot;Quoted&quot;",
    ' "A" and "B" ',
    '<span id="title">',
    "  ",
    "x" * 300,
    "多 功能 🎧",
    "&#39;s &amp;amp; &lt;b&gt;",
]


def rows_of(items: list[str], parents: list[str] | None = None) -> Interactions:
    n = len(items)
    return Interactions(
        users=np.zeros(n, dtype=np.int32),
        items=np.arange(n, dtype=np.int32),
        times=np.arange(n),
        ratings=None,
        user_keys=pl.Series(["u"]),
        item_keys=pl.Series(items),
        parents=None if parents is None else pl.Series(parents),
        has_times=True,
        n_raw=n,
        dropped={},
        repaired={},
    )


def test_d3_cleaning_equals_its_description() -> None:
    series = pl.Series(TITLES, dtype=pl.String)
    assert clean_titles(series, "d3").to_list() == [clean_by_hand(title) for title in TITLES]


def test_full_cleaning_leaves_one_line_without_entities() -> None:
    series = pl.Series(["a\tb\n c", "&#39;s &amp;amp; &lt;b&gt;", "x\u200by", "👨\u200d👩", None])
    assert clean_titles(series, "full").to_list() == [
        "a b c",
        "'s & <b>",
        "x y",
        "👨\u200d👩",
        None,
    ]
    assert clean_titles(series, "none").to_list() == series.to_list()


def test_usable_is_more_than_one_character_and_at_most_twenty_words() -> None:
    titles = pl.Series([None, "", "a", "ab", "w " * 20, "w " * 21, "ab"], dtype=pl.String)
    report = judge_titles(titles, max_words=20)
    assert report.usable.tolist() == [False, False, False, True, True, False, True]
    assert dict(report.counts) == {
        "items": 7,
        "no title": 2,
        "title of at most one character": 1,
        "more than 20 words": 1,
        "usable": 3,
        "usable, title shared with another item": 2,
    }
    assert judge_titles(titles, max_words=0).usable.tolist()[5]


def test_amazon_metadata_gives_title_and_group(tmp_path: Path) -> None:
    records = [
        {
            "parent_asin": "X",
            "title": "Xbox",
            "main_category": "Games",
            "price": None,
            "details": {},
        },
        {"parent_asin": "Y", "title": None, "main_category": None},
    ]
    text = "\n".join(map(json.dumps, records)) + "\n"
    (tmp_path / "meta_G.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    table, counts = read_titles([tmp_path / "meta_G.jsonl.gz"])
    assert table.rows() == [("X", "Xbox", "Games"), ("Y", None, None)]
    assert counts["titles read"] == 2


def test_broken_metadata_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "meta.jsonl").write_text('{"parent_asin": "X", "title": "a"}\n{"par\n')
    table, counts = read_titles([tmp_path / "meta.jsonl"], max_bad_share=0.5)
    assert (len(table), counts["broken JSON"]) == (1, 1)
    with pytest.raises(ValueError, match="broken JSON: 1, first in line 2"):
        read_titles([tmp_path / "meta.jsonl"])
    (tmp_path / "meta.jsonl").write_text('{"asin": "X", "title": "a"}\n')
    with pytest.raises(ValueError, match="no record has the field 'parent_asin'"):
        read_titles([tmp_path / "meta.jsonl"])


def test_title_files_are_tables_whose_header_says_what_is_what(tmp_path: Path) -> None:
    (tmp_path / "a.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:t\n1\tHeat\tDrama\n"
    )
    (tmp_path / "items.tsv").write_text("id\tname\n2\tB\tC\n3\tD\n")
    table, _ = read_titles([tmp_path / "a.item"], columns={"group": "class"})
    assert table.rows() == [("1", "Heat", "Drama")]
    with pytest.raises(ValueError, match="no column 'title' for title; there are id, name"):
        read_titles([tmp_path / "items.tsv"])
    table, counts = read_titles(
        [tmp_path / "items.tsv"], columns={"title": "name"}, max_bad_share=0.5
    )
    assert (table.rows(), counts["wrong number of fields"]) == ([("3", "D", None)], 1)


def test_an_id_twice_keeps_its_first_title_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_text("id\ttitle\n1\tA\n1\tB\n2\tC\n2\tC\n")
    table, counts = read_titles([tmp_path / "items.tsv"])
    assert table.rows() == [("1", "A", None), ("2", "C", None)]
    assert counts["same id twice, same title"] == 1
    assert counts["same id twice, another title (first kept)"] == 1


def test_titles_in_latin_1_are_read_and_counted(tmp_path: Path) -> None:
    (tmp_path / "u.item").write_bytes("id\ttitle\n1\tAmélie\n2\tLéon\n".encode("latin-1"))
    table, counts = read_titles([tmp_path / "u.item"])
    assert table["title"].to_list() == ["Amélie", "Léon"]
    assert counts["not UTF-8, read as Windows-1252"] == 2


def test_a_variant_takes_its_own_title_or_its_parents() -> None:
    titles = pl.DataFrame({"key": ["P", "v2"], "title": ["Parent", "Own"], "group": ["g", "g"]})
    rows = rows_of(["v1", "v2"], ["P", "P"])
    assert match_titles(rows, titles, by="item")["title"].to_list() == [None, "Own"]
    assert match_titles(rows, titles, by="parent")["title"].to_list() == ["Parent", "Parent"]
    with pytest.raises(ValueError, match="names no parent"):
        match_titles(rows_of(["v1"]), titles, by="parent")
