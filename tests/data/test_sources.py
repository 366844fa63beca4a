"""Each format is read as documented; whatever is wrong with a file is counted or an error."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lib.data import blocks
from lib.data.interactions import Interactions
from lib.data.sources import find_files, read_interactions

MS = 1_588_687_728_923  # a time of 2020, in milliseconds


def review(user: str, item: str, time: object = MS, **more: object) -> dict[str, object]:
    return {
        "rating": 5.0,
        "title": "Fine",
        "text": "x" * 20,
        "images": [{"large": "y"}],
        "asin": f"{item}-red",
        "parent_asin": item,
        "user_id": user,
        "timestamp": time,
        "helpful_vote": 0,
        "verified_purchase": True,
    } | more


def json_file(path: Path, records: list[object]) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def text_file(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def triples(rows: Interactions) -> list[tuple[str, str, int]]:
    users, items = rows.user_keys.gather(rows.users), rows.item_keys.gather(rows.items)
    return list(zip(users, items, rows.times.tolist(), strict=True))


@pytest.fixture(params=[1 << 25, 300], ids=["one block", "many blocks"])
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What a file says must not depend on where its blocks end."""
    monkeypatch.setattr(blocks.read_blocks, "__kwdefaults__", {"size": request.param})
    return request.param


# --- what is fine -----------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_amazon_reviews_are_read_plain_or_zipped(
    tmp_path: Path, zipped: bool, block_size: int
) -> None:
    records = [review("b", "Y"), review("a", "X", MS + 5), review("b", "X", MS + 1)]
    path = json_file(tmp_path / "r.jsonl", records)
    if zipped:
        path = tmp_path / "r.jsonl.gz"
        path.write_bytes(gzip.compress((tmp_path / "r.jsonl").read_bytes()))
    rows = read_interactions([path], "amazon-2023")
    assert triples(rows) == [("b", "Y", MS), ("a", "X", MS + 5), ("b", "X", MS + 1)]
    assert rows.item_keys.to_list() == ["X", "Y"]
    assert rows.n_raw == 3
    assert not rows.dropped
    assert not rows.repaired


def test_variants_keep_the_parent_they_belong_to(tmp_path: Path) -> None:
    records: list[object] = [review("a", "X"), review("a", "X", asin="X-blue"), review("b", "Y")]
    path = json_file(tmp_path / "r.jsonl", records)
    rows = read_interactions([path], "amazon-2023", columns={"item": "asin"})
    assert rows.item_keys.to_list() == ["X-blue", "X-red", "Y-red"]
    assert rows.parents is not None
    assert rows.parents.to_list() == ["X", "X", "Y"]
    assert read_interactions([path], "amazon-2023").parents is None  # parents themselves


def test_the_five_core_csv_is_read(tmp_path: Path, block_size: int) -> None:
    text = "user_id,parent_asin,rating,timestamp\r\n" + "".join(
        f"u{i % 7},p{i % 5},4.0,{MS + i}\r\n" for i in range(40)
    )
    rows = read_interactions([text_file(tmp_path / "r.csv", text)], "amazon-csv")
    assert triples(rows) == [(f"u{i % 7}", f"p{i % 5}", MS + i) for i in range(40)]
    assert rows.ratings is not None
    assert rows.ratings.tolist() == [4.0] * 40


def test_recbole_files_have_typed_headers_and_seconds(tmp_path: Path, block_size: int) -> None:
    text = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(
        f"{10 - i}\t{i}\t3\t88125094{i}.0\n" for i in range(10)
    )
    rows = read_interactions([text_file(tmp_path / "r.inter", text)], "recbole")
    assert triples(rows) == [(str(10 - i), str(i), 881250940_000 + 1000 * i) for i in range(10)]


def test_lines_and_pairs_say_the_same(tmp_path: Path, block_size: int) -> None:
    lines = text_file(tmp_path / "s.txt", "2 30 4 30\n1 4\n")
    pairs = text_file(tmp_path / "p.txt", "2\t30\n2 4\n2 30\n1 4\n")
    first, second = read_interactions([lines], "lines"), read_interactions([pairs], "pairs")
    assert (
        triples(first)
        == triples(second)
        == [("2", "30", 0), ("2", "4", 1), ("2", "30", 2), ("1", "4", 3)]
    )
    assert first.item_keys.to_list() == ["4", "30"]  # numbers in numeric order
    assert not first.has_times


def test_ids_that_are_not_all_numbers_are_sorted_as_text(tmp_path: Path) -> None:
    rows = read_interactions([text_file(tmp_path / "p.txt", "1 10\n1 9\n1 x\n")], "pairs")
    assert rows.item_keys.to_list() == ["10", "9", "x"]


def test_several_files_are_one_source(tmp_path: Path) -> None:
    paths = [text_file(tmp_path / f"{n}.txt", f"{n} 1\n{n} 2\n") for n in (1, 2)]
    rows = read_interactions(paths, "pairs")
    assert (len(rows), rows.count_users(), rows.count_items()) == (4, 2, 2)


def test_a_row_limit_stops_reading(tmp_path: Path, block_size: int) -> None:
    path = json_file(tmp_path / "r.jsonl", [review(f"u{i}", "X") for i in range(9)])
    rows = read_interactions([path], "amazon-2023", row_limit=4)
    assert rows.user_keys.to_list() == ["u0", "u1", "u2", "u3"]
    assert rows.n_raw == 4


def test_other_column_names_are_a_parameter(tmp_path: Path) -> None:
    old = {"reviewerID": "a", "asin": "X", "overall": 5.0, "unixReviewTime": 1_400_000_000}
    names = {"user": "reviewerID", "item": "asin", "parent": "", "rating": "overall"}
    rows = read_interactions(
        [json_file(tmp_path / "r.json", [old])],
        "amazon-2023",
        columns=names | {"time": "unixReviewTime"},
        unit="s",
    )
    assert triples(rows) == [("a", "X", 1_400_000_000_000)]


# --- what is broken ---------------------------------------------------------------------------


def test_broken_lines_are_counted_with_their_numbers(tmp_path: Path, block_size: int) -> None:
    good: list[object] = [review(f"u{i}", "X") for i in range(8)]
    records = [*good[:3], '{"user_id": "a", "par', *good[3:], "[1, 2]", "null"]
    path = json_file(tmp_path / "r.jsonl", records)
    rows = read_interactions([path], "amazon-2023", max_bad_share=0.5)
    assert len(rows) == 8
    assert rows.dropped == {"broken JSON": 3}
    with pytest.raises(
        ValueError, match=r"3 of 11 rows are bad \(broken JSON: 3, .*line 4, 10, 11"
    ):
        read_interactions([path], "amazon-2023", max_bad_share=0.2)


def test_too_many_bad_rows_stop_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "EARLY", 1)
    monkeypatch.setattr(blocks.read_blocks, "__kwdefaults__", {"size": 300})
    path = json_file(tmp_path / "r.jsonl", ["{"] * 5 + [review(f"u{i}", "X") for i in range(50)])
    with pytest.raises(ValueError, match=r"5 of ([5-9]|1\d) rows are bad"):
        read_interactions([path], "amazon-2023", max_bad_share=0.2)


def test_text_where_a_number_belongs_is_read_or_counted(tmp_path: Path, block_size: int) -> None:
    records = [
        review("a", "X", str(MS)),
        review("b", "X", float(MS)),
        review("c", "X", rating="4"),
        review("d", "X", rating="good"),
        review("e", "X", time="yesterday"),
        review("f", "X", time=True),
    ]
    rows = read_interactions(
        [json_file(tmp_path / "r.jsonl", records)], "amazon-2023", max_bad_share=0.5
    )
    assert rows.user_keys.to_list() == ["a", "b", "c", "d"]
    assert rows.dropped == {"no time": 2}
    assert rows.repaired == {"no rating, read as unknown": 1}
    assert rows.ratings is not None
    np.testing.assert_array_equal(rows.ratings, [5, 5, 4, np.nan])


def test_rows_without_user_or_item_are_counted(tmp_path: Path, block_size: int) -> None:
    records = [review("a", "X"), review("", "X"), review("b", " "), review("c", "X", user_id=None)]
    path = json_file(tmp_path / "r.jsonl", records)
    rows = read_interactions([path], "amazon-2023", max_bad_share=1.0)
    assert rows.dropped == {"no item id": 1, "no user id": 2}


@pytest.mark.parametrize("source", ["pairs", "lines"])
def test_negative_ids_are_counted_or_refused(tmp_path: Path, source: str) -> None:
    path = text_file(tmp_path / "p.txt", "1 2\n-3 4\n5 -6\n")
    rows = read_interactions([path], source, max_bad_share=1.0)  # type: ignore[arg-type]
    assert triples(rows) == [("1", "2", 0)]
    assert rows.dropped == {"negative id": 2}
    with pytest.raises(ValueError, match="negative id: 2, first in line 2"):
        read_interactions([path], source)  # type: ignore[arg-type]


@pytest.mark.parametrize(("factor", "name"), [(1e-3, "s"), (1e3, "us"), (1e6, "ns")])
def test_times_in_another_unit_are_an_error_that_names_it(
    tmp_path: Path, factor: float, name: str
) -> None:
    records: list[object] = [review(f"u{i}", "X", int((MS + i) * factor)) for i in range(5)]
    path = json_file(tmp_path / "r.jsonl", records)
    with pytest.raises(ValueError, match=rf"look like '{name}' .* not 'ms'. Set time_unit"):
        read_interactions([path], "amazon-2023")
    assert len(read_interactions([path], "amazon-2023", unit=name)) == 5  # type: ignore[arg-type]


def test_a_few_impossible_times_are_counted(tmp_path: Path) -> None:
    records: list[object] = [review(f"u{i}", "X") for i in range(9)] + [review("z", "X", 0)]
    path = json_file(tmp_path / "r.jsonl", records)
    rows = read_interactions([path], "amazon-2023", max_bad_share=0.1)
    assert rows.dropped == {"time outside 1990..2100 in ms": 1}


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    header = "user_id,parent_asin,rating,timestmp\n"
    path = text_file(tmp_path / "r.csv", header + f"a,X,1,{MS}\n")
    with pytest.raises(ValueError, match="no column 'timestamp'; nearest is 'timestmp'"):
        read_interactions([path], "amazon-csv")
    records: list[object] = [{"user": "a", "parent_asin": "X", "rating": 1, "timestamp": MS}]
    with pytest.raises(ValueError, match=r"no field 'user_id'.*nearest is 'user'"):
        read_interactions([json_file(tmp_path / "r.jsonl", records)], "amazon-2023")


def test_a_wrong_delimiter_is_named(tmp_path: Path) -> None:
    semicolons = text_file(
        tmp_path / "r.csv", f"user_id;parent_asin;rating;timestamp\na;X;1;{MS}\n"
    )
    with pytest.raises(ValueError, match="no ',' but 3 times ';': wrong delimiter"):
        read_interactions([semicolons], "amazon-csv")
    commas = text_file(tmp_path / "p.txt", "1,2\n1,3\n")
    with pytest.raises(ValueError, match="wrong delimiter ','"):
        read_interactions([commas], "pairs")


def test_rows_with_too_few_or_too_many_fields_are_counted(tmp_path: Path, block_size: int) -> None:
    rows = [f"u{i},p{i},5.0,{MS}" for i in range(10)]
    rows[2:2], rows[7:7] = ["u,p,5.0"], ["", f"u,p,5.0,{MS},more"]
    text = "user_id,parent_asin,rating,timestamp\n" + "\n".join(rows) + "\n"
    path = text_file(tmp_path / "r.csv", text)
    read = read_interactions([path], "amazon-csv", max_bad_share=0.2)
    assert read.user_keys.to_list() == [f"u{i}" for i in range(10)]
    assert read.dropped == {"wrong number of fields": 2}
    assert read.repaired == {"blank line": 1}
    with pytest.raises(ValueError, match=r"wrong number of fields: 2, first in line 4, 10"):
        read_interactions([path], "amazon-csv")


def test_a_pair_of_three_ids_is_counted(tmp_path: Path) -> None:
    path = text_file(tmp_path / "p.txt", "1 2\n1 2 3\n4\n1 5\n")
    rows = read_interactions([path], "pairs", max_bad_share=0.5)
    assert (len(rows), rows.dropped) == (2, {"not two ids": 2})


def test_a_user_without_items_is_counted(tmp_path: Path) -> None:
    rows = read_interactions([text_file(tmp_path / "s.txt", "1 5 6\n2\n\n3 6\n")], "lines")
    assert rows.repaired == {"blank line": 1, "user without items": 1}
    assert rows.user_keys.to_list() == ["1", "3"]


def test_a_user_on_two_lines_is_refused(tmp_path: Path, block_size: int) -> None:
    lines = [f"{user} 5 6" for user in range(60)]
    path = text_file(tmp_path / "s.txt", "\n".join([*lines, "7 8"]))
    with pytest.raises(ValueError, match="line 61: user '7' has a line already"):
        read_interactions([path], "lines")


def test_a_truncated_archive_is_an_error_and_no_short_dataset(tmp_path: Path) -> None:
    records: list[object] = [review(f"u{i}", f"X{i}") for i in range(2000)]
    whole = gzip.compress(json_file(tmp_path / "r.jsonl", records).read_bytes())
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"r\.jsonl\.gz: damaged gzip archive"):
        read_interactions([path], "amazon-2023")
    path.write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(ValueError, match=r"damaged gzip archive.*CRC"):
        read_interactions([path], "amazon-2023")


@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("source", ["amazon-2023", "amazon-csv", "recbole", "lines", "pairs"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes, source: str) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ValueError, match="the file is empty"):
        read_interactions([tmp_path / "r"], source)  # type: ignore[arg-type]


def test_a_header_alone_is_not_a_dataset(tmp_path: Path) -> None:
    path = text_file(tmp_path / "r.csv", "user_id,parent_asin,rating,timestamp\n")
    with pytest.raises(ValueError, match="not one usable row"):
        read_interactions([path], "amazon-csv")


def test_a_file_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = text_file(tmp_path / "p.txt", "1 2\n" * 100)
    reader = blocks.read_blocks(path, blocks.RowCheck(path, 0.0), size=64)
    next(reader)
    with path.open("a") as file:
        file.write("3 4\n")
    with pytest.raises(ValueError, match="changed while it was read"):
        list(reader)
    replaced = text_file(tmp_path / "new", "1 2\n" * 101)
    reader = blocks.read_blocks(path, blocks.RowCheck(path, 0.0), size=64)
    next(reader)
    os.replace(replaced, path)  # noqa: PTH105 - what a download tool does
    with pytest.raises(ValueError, match="changed while it was read"):
        list(reader)


def test_mixed_encodings_are_read_and_counted(tmp_path: Path, block_size: int) -> None:
    lines = ["1 café".encode(), "2 café".encode("cp1252"), "3 naïve".encode()]
    (tmp_path / "p.txt").write_bytes(b"\n".join(lines) + b"\n")
    rows = read_interactions([tmp_path / "p.txt"], "pairs")
    assert rows.item_keys.to_list() == ["café", "naïve"]
    assert rows.repaired == {"not UTF-8, read as Windows-1252": 1}


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    text = f"user_id,parent_asin,rating,timestamp\na,X,1,{MS}\n"
    path = text_file(tmp_path / "r.csv", text, "utf-8-sig")
    assert len(read_interactions([path], "amazon-csv")) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_utf_16_is_an_error(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ValueError, match=r"zero bytes.*UTF-16"):
        read_interactions([text_file(tmp_path / "p.txt", "1 2\n", encoding)], "pairs")


def test_one_json_array_is_not_json_lines(tmp_path: Path) -> None:
    path = text_file(tmp_path / "r.json", json.dumps([review("a", "X")] * 30))
    reader = blocks.read_blocks(path, blocks.RowCheck(path, 0.0), size=1000)
    with pytest.raises(ValueError, match="no line break in 1000 bytes"):
        list(reader)


def test_wrong_words_are_named(tmp_path: Path) -> None:
    path = text_file(tmp_path / "p.txt", "1 2\n")
    with pytest.raises(ValueError, match="source is 'amazon'"):
        read_interactions([path], "amazon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\['users'\]"):
        read_interactions([path], "pairs", columns={"users": "u"})
    with pytest.raises(ValueError, match="no time column is named"):
        read_interactions([path], "pairs", unit="s")
    with pytest.raises(ValueError, match="max_bad_share is 2"):
        read_interactions([path], "pairs", max_bad_share=2)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_interactions([tmp_path / "none"], "pairs")
    with pytest.raises(
        FileNotFoundError, match=r"no file matches '\*\.inter'; it holds \['p\.txt'\]"
    ):
        find_files(tmp_path, "*.inter")


def test_neither_metadata_nor_half_a_download_is_taken_for_reviews(tmp_path: Path) -> None:
    for name in ("meta_Games.jsonl", "Games.jsonl", ".Games.jsonl.0123.partial"):
        (tmp_path / name).touch()
    found = find_files(tmp_path, "*.jsonl*", without="meta_*.jsonl*")
    assert [path.name for path in found] == ["Games.jsonl"]


def test_the_slow_path_equals_the_fast_one(tmp_path: Path) -> None:
    """A block with one bad line is read line by line; the good rows must be the same."""
    rng = np.random.default_rng(5)
    records: list[object] = [
        review(f"u{rng.integers(20)}", f"p{rng.integers(9)}", MS + int(rng.integers(10**9)))
        for _ in range(300)
    ]
    fast = read_interactions([json_file(tmp_path / "a.jsonl", records)], "amazon-2023")
    slow = read_interactions(
        [json_file(tmp_path / "b.jsonl", [*records, "{"])], "amazon-2023", max_bad_share=0.1
    )
    assert triples(fast) == triples(slow)
    assert isinstance(fast.item_keys, pl.Series)
