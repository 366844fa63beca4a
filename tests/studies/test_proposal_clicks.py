"""A click log of any form: what is read, what is proposed, and what is refused with which words."""

import gzip
import json

import polars as pl
import pytest

from lib.pipeline.cli import main
from lib.pipeline.plan import node_parameters
from lib.pipeline.profile import CODE_ROOT, Home, load_profile
from lib.studies.proposal import propose_clicks
from lib.studies.proposal_clicks import ClickChoices, look_at_clicks
from lib.studies.proposal_files import open_tables
from lib.studies.proposal_split import choose_split
from tests.studies.proposal_files import click_rows, german_csv, plain_csv, write_lines


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project of its own with the real notebooks."""
    root = tmp_path / "project"
    (root / "params").mkdir(parents=True)
    (root / "notebooks").symlink_to(CODE_ROOT / "notebooks")
    monkeypatch.setenv("LINGREC_HOME", str(root))
    return Home(root)


def look(path, scratch, **choices):
    made = ClickChoices(**choices)
    tables = open_tables(path, scratch)
    return choose_split(tables, look_at_clicks(tables, made), made.split)


def uses(found):
    return {use.column.name: use.use for use in found.uses}


def read_parts(home, name):
    return {part: pl.read_parquet(home.root / f"data/raw/{name}/{part}.parquet")
            for part in ("train", "valid", "test")}  # fmt: skip


def check_profile(home, name):
    """The parameters of every node are what its notebook declares."""
    profile = load_profile(home, name)
    for node in profile.nodes.values():
        node_parameters(home, node)
    return profile


def test_a_plain_csv_is_understood_split_by_time_and_written(home, tmp_path, capsys):
    path = plain_csv(tmp_path / "mine.csv")
    assert main(["init", "mine", "--clicks", str(path)]) == 0
    told = capsys.readouterr().out
    assert "by created_at" in told
    assert "wrote params/mine.yaml" in told
    found = look(path, tmp_path)
    assert uses(found) == {"column_1": "ignored", "user_id": "category", "colour": "category",
                           "price": "number", "market": "ignored", "clicked": "label",
                           "created_at": "time"}  # fmt: skip
    profile = check_profile(home, "mine")
    assert profile.nodes["clicks"].params["fields"] == [
        "user_id", "colour", "created_at_hour", "created_at_weekday"]  # fmt: skip
    assert list(profile.nodes) == ["clicks", "baselines", "gbdt", "deepfm", "ensemble", "ladder"]
    parts = read_parts(home, "mine")
    rows = {part: len(frame) for part, frame in parts.items()}
    assert sum(rows.values()) == 600
    assert rows["valid"] == pytest.approx(60, abs=6)
    expected = [row["clicked"] for row in click_rows(600)]
    written = [label for part in parts.values() for label in part["clicked"].to_list()]
    assert sum(written) == sum(expected)
    assert parts["train"]["price"].null_count() + parts["test"]["price"].null_count() <= 1
    assert parts["train"]["price"].dtype == pl.Float64


def test_nothing_later_than_the_first_test_row_is_trained_on(tmp_path):
    path = plain_csv(tmp_path / "mine.csv")
    frame = pl.read_csv(path, try_parse_dates=True).with_columns(
        ms=pl.col("created_at").dt.timestamp("ms"))  # fmt: skip
    found = look(path, tmp_path)
    first_valid, first_test = found.cuts
    assert (frame["ms"] < first_valid).sum() == found.rows["train"]
    assert (frame["ms"] >= first_test).sum() == found.rows["test"]


def test_semicolons_decimal_commas_and_umlauts_in_an_old_encoding(home, tmp_path):
    path = german_csv(tmp_path / "Klicks.csv")
    assert main(["init", "deutsch", "--clicks", str(path)]) == 0
    parts = read_parts(home, "deutsch")
    whole = pl.concat(parts.values())
    expected = click_rows(600)
    assert sorted(whole["Preis"].to_list()) == pytest.approx(
        sorted(row["price"] for row in expected)
    )
    assert set(whole["Größe"]) == {"rot", "grün", "blau", "weiß"}
    assert whole["geklickt"].sum() == sum(row["clicked"] for row in expected)
    profile = check_profile(home, "deutsch")
    assert profile.nodes["clicks"].params["group"] == "Kunde"


def test_parquet_json_lines_gzip_and_parts_hold_the_same_rows(tmp_path):
    rows = [{key: row[key] for key in ("user", "colour", "price", "clicked")}
            for row in click_rows(400)]  # fmt: skip
    frame = pl.DataFrame(rows)
    folder = tmp_path / "parts"
    (folder / "day=1").mkdir(parents=True)
    frame.head(150).write_parquet(folder / "day=1" / "part.2024.01.parquet")
    frame.tail(250).write_parquet(folder / "part.2024.02.parquet")
    frame.write_parquet(tmp_path / "all.parquet")
    frame.write_ndjson(tmp_path / "all.jsonl")
    (tmp_path / "all.json").write_text(json.dumps(rows), "utf-8")
    (tmp_path / "all.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode()))
    frame.write_csv(tmp_path / "all.tsv", separator="\t")
    names = ("parts", "all.parquet", "all.jsonl", "all.json", "all.csv.gz", "all.tsv")
    found = {name: look(tmp_path / name, tmp_path / "scratch") for name in names}
    for name, each in found.items():
        assert uses(each) == {"user": "category", "colour": "category", "price": "number",
                              "clicked": "label"}, name  # fmt: skip
        assert sum(each.rows.values()) == 400, name
        assert sum(each.clicks.values()) == frame["clicked"].sum(), name
        assert each.split == "random", name


def test_three_ready_files_are_linked_and_not_copied(home, tmp_path):
    folder = tmp_path / "three"
    rows = [f"{row['clicked']},{row['user']},{row['colour']}" for row in click_rows(600)]
    for name, part in {"train": rows[:400], "dev": rows[400:500], "test": rows[500:]}.items():
        write_lines(folder / f"{name}.csv", ["label,user,colour", *part])
    assert main(["init", "three", "--clicks", str(folder)]) == 0
    raw = home.root / "data/raw/three"
    assert (raw / "valid.csv").resolve() == (folder / "dev.csv").resolve()
    assert all((raw / f"{part}.csv").is_symlink() for part in ("train", "valid", "test"))
    assert main(["init", "three", "--clicks", str(folder), "--split", "random", "--force"]) == 2


def test_a_label_elsewhere_other_columns_and_kinds_are_taken_from_options(home, tmp_path, capsys):
    path = plain_csv(tmp_path / "mine.csv")
    lines = path.read_text("utf-8").splitlines()
    more = [f"{line},{int(n % 3 == 0)}" for n, line in enumerate(lines[1:])]
    lines = [f"{lines[0]},bought", *more]
    write_lines(path, lines)
    words = ["init", "mine", "--clicks", str(path), "--label", "bought", "--ignore", "clicked",
             "--time", "none", "--user", "none", "--categorical", "price"]  # fmt: skip
    assert main([*words, "--dry-run"]) == 0
    assert "label: bought" in capsys.readouterr().out
    assert not (home.root / "params/mine.yaml").exists()
    assert not (home.root / "data/raw/mine").exists()
    assert main(words) == 0
    params = check_profile(home, "mine").nodes["clicks"].params
    assert params["label"] == "bought"
    assert params["fields"] == ["user_id", "colour", "price"]
    assert params["group"] == ""


def test_more_than_two_values_need_to_be_told_which_count(tmp_path):
    path = write_lines(tmp_path / "stars.csv", ["user,stars,item"] + [
        f"u{n % 9},{1 + n % 5},i{n % 11}" for n in range(300)])  # fmt: skip
    with pytest.raises(ValueError, match=r"no column looks like a label.*stars \(5 values"):
        look(path, tmp_path)
    with pytest.raises(ValueError, match=r"'stars' has 5 values: 1, 2, 3, 4, 5.*--positive"):
        look(path, tmp_path, label="stars")
    found = look(path, tmp_path, label="stars", positive=("4", "5"))
    assert sum(found.clicks.values()) == 120


def test_a_profile_is_not_written_over_without_force(home, tmp_path, capsys):
    path = plain_csv(tmp_path / "mine.csv")
    assert main(["init", "mine", "--clicks", str(path)]) == 0
    before = (home.root / "params/mine.yaml").read_text("utf-8")
    (home.root / "params/mine.yaml").write_text(before + "# my own words\n", "utf-8")
    assert main(["init", "mine", "--clicks", str(path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert "my own words" in (home.root / "params/mine.yaml").read_text("utf-8")
    assert main(["init", "mine", "--clicks", str(path), "--force"]) == 0
    assert (home.root / "params/mine.yaml").read_text("utf-8") == before


def test_a_person_s_own_files_in_data_raw_stay_untouched(home, tmp_path):
    own = plain_csv(home.root / "data/raw/mine/train.csv")
    before = own.read_bytes()
    assert main(["init", "mine", "--clicks", str(own)]) == 0
    assert own.read_bytes() == before
    profile = check_profile(home, "mine")
    assert profile.nodes["clicks"].inputs["raw"] == "raw:mine/prepared"
    assert (home.root / "data/raw/mine/prepared/valid.parquet").is_file()


def test_a_history_of_events_brings_din_and_folds_and_its_ids_are_closed_up(home, tmp_path):
    lines = ["visitor,ad,seen,label"]
    for n, row in enumerate(click_rows(400)):
        seen = "|".join(str(10**8 + 7 * ((n * k) % 40)) for k in range(1, 1 + n % 5))
        lines.append(f"{row['user']},ad{n % 17},{seen},{row['clicked']}")
    path = write_lines(tmp_path / "log.csv", lines)
    assert main(["init", "events", "--clicks", str(path)]) == 0
    profile = check_profile(home, "events")
    assert profile.nodes["clicks"].notebook == "12_prepare_clicklog"
    assert {"din", "dare"} <= set(profile.nodes)
    assert profile.nodes["din"].params["target"] == "ad"
    written = pl.read_parquet(home.root / "data/raw/events/train.parquet")
    assert set(written["part"]) == {"training", "held out"}
    tokens = written["seen"].drop_nulls().str.split(",").explode().drop_nulls()
    ids = tokens.filter(tokens != "").cast(pl.Int64)
    assert ids.max() < 40
    assert len(ids) == sum(n % 5 for n in range(400))


def test_a_column_that_gives_the_label_away_is_left_out(tmp_path):
    path = write_lines(tmp_path / "leak.csv", ["colour,clicked,landing_page,label"] + [
        f"{row['colour']},{'yes' if row['clicked'] else 'no'},{'page' if row['clicked'] else ''},"
        f"{row['clicked']}" for row in click_rows(400)])  # fmt: skip
    found = look(path, tmp_path, label="label")
    assert uses(found)["clicked"] == "ignored"
    assert uses(found)["colour"] == "category"


def test_values_of_few_rows_each_are_no_giveaway(tmp_path):
    path = write_lines(tmp_path / "rare.csv", ["shop,colour,label"] + [
        f"s{n % 80},{row['colour']},{row['clicked']}" for n, row in enumerate(click_rows(120))
    ])  # fmt: skip
    assert uses(look(path, tmp_path))["shop"] == "category"


BROKEN = {
    "empty": (b"", "is empty"),
    "header alone": (b"user,click\n", "has a header and no rows"),
    "binary": (bytes(range(256)) * 20, "not text and not parquet"),
    "a cut gzip": (gzip.compress(b"a,click\n" * 9999)[:-20], "damaged gzip"),
    "a zip": (b"PK\x03\x04" + b"x" * 99, "an archive; unpack"),
    "half a parquet": (b"PAR1" + b"\0" * 99, "not a whole parquet"),
    "a name twice": (b"user,user,click\n1,2,0\n", "'user' stands twice"),
    "no label": (b"colour,size\n" + b"red,1.5\nblue,2.5\ngreen,3.5\n" * 40, "no column looks like a label"),
    "a label of three values": (b"u,label\n" + b"a,0\nb,1\nc,2\n" * 40, "'label' has 3 values: 0, 1, 2"),
    "a constant label": (b"u,label\n" + b"a,0\nb,0\n" * 60, "'label' is always '0'"),
    "one row": (b"user,click\nu,1\n", "one class alone"),
    "few rows": (b"user,click\n" + b"u,1\nv,0\nv,1\nu,0\n" * 5, "20 rows with a label"),
    "several labels": (b"a,b,c\n" + b"0,1,x\n1,1,y\n1,0,z\n" * 40, "--label COLUMN"),
    "prose": (b"Dear all,\nplease find the file\n\nBest\n", "not cells of one table"),
    "broken JSON": (b'{"a": 1, "click": 0}\n{"a": \n', "not JSON lines"),
    "nothing to learn from": (b"click,n\n" + b"".join(b"%d,id%d\n" % (n % 2, n) for n in range(200)),
                              "no column is left to learn from"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_is_refused_in_words_and_nothing_is_written(
    name, home, tmp_path, capsys
):
    data, words = BROKEN[name]
    path = tmp_path / "broken.csv"
    path.write_bytes(data)
    assert main(["init", "broken", "--clicks", str(path)]) == 2
    said = capsys.readouterr().err
    assert words in said, said
    assert "Traceback" not in said
    assert not (home.root / "params/broken.yaml").exists()
    assert not (home.root / "data/raw/broken").exists()


def test_a_row_of_another_width_names_the_file(home, tmp_path, capsys):
    path = plain_csv(tmp_path / "mine.csv")
    write_lines(
        path, [*path.read_text("utf-8").splitlines(), "601,u1,rot,3,DE,1,2024-05-20 10:00:00,9"]
    )
    assert main(["init", "mine", "--clicks", str(path)]) == 2
    assert "mine.csv: cannot be read as one table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["init", "x"], "needs one of --clicks"),
        (["init", "../x", "--clicks", "FILE"], "letters, digits"),
        (["init", "x", "--clicks", "nowhere.csv"], "not there"),
        (["init", "x", "--clicks", "FILE", "--label", "clickd"], "nearest is 'clicked'"),
        (["init", "x", "--clicks", "FILE", "--time", "colour"], "does not read as a time"),
        (["init", "x", "--clicks", "FILE", "--numeric", "colour"], "no number"),
        (["init", "x", "--clicks", "FILE", "--split", "files"], "not possible here"),
        (["init", "x", "--clicks", "FILE", "--titles", "FILE"], "--titles belongs to --sequences"),
    ],
)  # fmt: skip
def test_wrong_options_say_what_is_right(words, told, home, tmp_path, capsys):
    path = plain_csv(tmp_path / "mine.csv")
    assert main([str(path) if word == "FILE" else word for word in words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_frappe_is_linked_as_it_stands_and_all_models_fit(shared_data, tmp_path):
    tables = open_tables(shared_data / "frappe", tmp_path)
    proposal = propose_clicks(tables, ClickChoices(), "frappe")
    assert all(step.startswith("link") for step in proposal.delivery.steps)
    nodes = {node.name: node for node in proposal.nodes}
    assert nodes["clicks"].params["numeric"] == []
    assert len(nodes["clicks"].params["fields"]) == 10
    assert {"dcnv2", "xdeepfm", "ft_transformer"} <= set(nodes)


def test_avazu_s_files_without_header_take_the_names_of_the_training_file(shared_data, tmp_path):
    found = look(shared_data / "avazu-sample", tmp_path)
    assert found.label.name == "click"
    assert found.rows == {"train": 8087, "valid": 480, "test": 432}
    assert uses(found)["id"] == "ignored"
    assert uses(found)["C14"] == "category"  # codes, not quantities


def test_ratings_with_a_time_become_clicks_when_told_what_counts(shared_data, tmp_path):
    found = look(
        shared_data / "ml-100k/ml-100k.inter", tmp_path, label="rating", positive=("4", "5")
    )
    assert found.split == "time"
    assert sum(found.clicks.values()) == 55375
    assert (found.user, found.item) == ("user_id", "item_id")
