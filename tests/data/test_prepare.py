"""From raw files to Histories: the published counts, and the whole path on a small world."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.data.filters import Filters, filter_interactions
from lib.data.histories import Histories
from lib.data.prepare import (
    build_histories,
    count_table,
    describe_targets,
    judge_items,
    read_raw,
    sequence_lengths,
)
from lib.data.sources import SourceName
from lib.data.splits import SplitName

MS = 1_588_687_728_923


def filters(core: int = 0) -> Filters:
    return Filters(
        min_rating=0.0,
        repeats="keep",
        user_core=core,
        item_core=core,
        start="",
        end="",
        min_items=0,
    )


def prepared(
    raw: Path, out: Path, source: SourceName, split: SplitName, core: int = 0
) -> Histories:
    data, _ = judge_items(read_raw(raw, source), "full", 20)
    kept, _ = filter_interactions(data.rows, filters(core))
    return build_histories(out, kept, data.items, split=split, made={"source": source})


@pytest.mark.parametrize(
    ("name", "source", "counts", "titled"),
    [
        ("beauty", "lines", (22_363, 12_101, 198_502), 12_094),
        pytest.param("ml-1m", "pairs", (6_040, 3_416, 999_611), 3_416, marks=pytest.mark.slow),
        ("ml-100k", "recbole", (943, 1_682, 100_000), 1_682),
    ],
)
def test_real_files_give_exactly_the_published_counts(
    shared_data: Path, tmp_path: Path, name: str, source: SourceName, counts: tuple, titled: int
) -> None:
    histories = prepared(shared_data / name, tmp_path, source, "last")
    assert (histories.n_users, histories.n_items, len(histories.items)) == counts
    assert sum(bool(title) for title in histories.titles[1:]) == titled
    assert len(histories.targets["test"]) == counts[0]
    lengths = histories.lengths
    assert int(lengths.min()) >= {"beauty": 5, "ml-1m": 18, "ml-100k": 20}[name]


def test_beauty_is_five_core_already(shared_data: Path) -> None:
    rows = read_raw(shared_data / "beauty", "lines").rows
    kept, _ = filter_interactions(rows, filters(5))
    assert len(kept) == len(rows)


def test_real_times_make_a_temporal_split(shared_data: Path, tmp_path: Path) -> None:
    """8:1:1 of all (user, position >= 1) rows; no training target is younger than a test target."""
    histories = prepared(shared_data / "ml-100k", tmp_path, "recbole", "temporal")
    sizes = [len(histories.targets[name]) for name in ("train", "valid", "test")]
    n = 100_000 - 943
    assert sizes == [int(0.8 * n), int(0.9 * n) - int(0.8 * n), n - int(0.9 * n)]
    spans = []
    for name in ("train", "valid", "test"):
        targets = histories.targets[name]
        times = histories.times[histories.offsets[targets.users] + targets.positions]
        spans.append((times.min(), times.max()))
    assert spans[0][1] <= spans[1][0] <= spans[1][1] <= spans[2][0]


def small_world(folder: Path) -> Path:
    """Three users; X has variants, Y is repeated, Z has no metadata."""
    rows = [
        ("a", "X", 1),
        ("a", "Y", 2),
        ("a", "Y", 3),
        ("a", "Z", 4),
        ("b", "Y", 5),
        ("b", "X", 6),
    ]
    rows += [("b", "X", 7), ("c", "X", 8)]
    reviews = [
        {"user_id": u, "asin": f"{i}{n}", "parent_asin": i, "rating": 4.0, "timestamp": MS + n}
        for u, i, n in rows
    ]
    titles = [
        {"parent_asin": key, "title": title, "main_category": "Toys"}
        for key, title in (("X", "Ex &amp; Co"), ("Y", "Why"))
    ]
    folder.mkdir()
    for name, records in (("T.jsonl", reviews), ("meta_T.jsonl", titles)):
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_small_world_by_hand(tmp_path: Path) -> None:
    histories = prepared(small_world(tmp_path / "raw"), tmp_path / "out", "amazon-2023", "last")
    assert histories.item_keys == ["", "X", "Y", "Z"]
    assert histories.titles == ["", "Ex & Co", "Why", ""]
    assert histories.groups == ["", "Toys", "Toys", ""]
    np.testing.assert_array_equal(histories.items, [1, 2, 2, 3, 2, 1, 1, 1])
    np.testing.assert_array_equal(histories.times - MS, [1, 2, 3, 4, 5, 6, 7, 8])
    np.testing.assert_array_equal(histories.counts, [0, 2, 2, 0])
    table = {row["split"]: row for row in describe_targets(histories).rows(named=True)}
    assert table["test"] == {
        "split": "test",
        "targets": 2,
        "users": 2,
        "items": 2,
        "repeats the last item": 1,
        "met before": 1,
        "new to the user": 1,
        "never in training": 1,
    }
    assert sequence_lengths(histories)["most"].to_list() == [4, 2]


def test_the_same_files_make_the_same_dataset(tmp_path: Path) -> None:
    raw = small_world(tmp_path / "raw")
    for name in ("one", "two"):
        prepared(raw, tmp_path / name, "amazon-2023", "temporal")
    first, second = ((tmp_path / name / "manifest.json").read_text() for name in ("one", "two"))
    assert first == second


def test_variants_can_be_the_items(tmp_path: Path) -> None:
    raw = small_world(tmp_path / "raw")
    columns = {"item": "asin"}
    own = read_raw(raw, "amazon-2023", columns=columns)
    assert own.items["title"].null_count() == 8  # no variant is a parent itself here
    theirs = read_raw(raw, "amazon-2023", columns=columns, title_join="parent")
    assert theirs.items["title"].null_count() == 1
    assert theirs.rows.count_items() == 8


def test_titles_are_optional_when_told(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("1 2\n")
    with pytest.raises(FileNotFoundError, match=r"no file matches 'items\.tsv'"):
        read_raw(tmp_path, "pairs")
    assert read_raw(tmp_path, "pairs", files={"titles": "none"}).items["title"].to_list() == [None]
    assert read_raw(tmp_path / "p.txt", "pairs").items["title"].to_list() == [None]


def test_misspelt_roles_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="files names 'title'; nearest is 'titles'"):
        read_raw(tmp_path, "pairs", files={"title": "x"})
    with pytest.raises(ValueError, match="columns names 'items'; nearest is 'item'"):
        read_raw(tmp_path, "pairs", columns={"items": "x"})


def test_counts_of_zero_are_left_out() -> None:
    assert count_table(a={"x": 1, "y": 0}, b={}).rows() == [("a", "x", 1)]
