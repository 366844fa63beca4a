"""What 90 reads and says: names, costs, absent systems, and sentences that follow the numbers."""

import json

import numpy as np
import polars as pl
import pytest

from lib.studies import leaderboard_gather as gather
from lib.studies import leaderboard_inputs as inputs
from lib.studies import leaderboard_words as words
from lib.studies.leaderboard_figures import gain_figure, pareto_figure

SETTINGS = gather.Settings(draws=2_000, seed=1, cheap=["item-kNN"])
FAMILIES = {"baselines": "", "sasrec": "SASRec", "soft_tokens": "soft tokens"}
QUESTIONS = {"SASRec: llm2rec+id": ["SASRec: tfidf+id", "SASRec: id"]}
N = 300


def folder(place, ranks, seeds=None, costs=None, users=None):
    """A ranking notebook's outputs; ``seeds``: row -> (S, N)."""
    place.mkdir(parents=True)
    users = np.arange(N) if users is None else users
    keys = {"user": users.astype(np.int32), "position": (users % 7).astype(np.int64)}
    columns = {name: np.asarray(each)[users] for name, each in ranks.items()}
    columns |= {name: np.mean(each, axis=0)[users] for name, each in (seeds or {}).items()}
    pl.DataFrame(keys | columns).write_parquet(place / "ranks.parquet")
    if seeds is not None:
        table = {f"{name}#{i}": one[users] for name, each in seeds.items()
                 for i, one in enumerate(each, 1)}  # fmt: skip
        pl.DataFrame(keys | table).write_parquet(place / "seeds.parquet")
    if costs is not None:
        (place / "tables").mkdir()
        pl.DataFrame(costs).write_parquet(place / "tables" / "costs.parquet")
    return place


def ranks_of(quality, seed):
    """Ranks whose target is first for about that share of users."""
    draw = np.random.default_rng(seed)
    return np.where(draw.random(N) < quality, 1.0, 40.0)


@pytest.fixture
def folders(tmp_path):
    """Popularity .05, item-kNN .3, ID .4, TF-IDF+ID and LLM2Rec+ID .6, the ceiling .9."""
    chance = np.random.default_rng(1).random(N)
    counted = {name: np.where(chance < share, 1.0, 40.0) for name, share in
               {"popularity": 0.05, "item-kNN": 0.3}.items()}  # fmt: skip
    ceiling = {"ceiling": np.where(chance < 0.9, 1.0, 40.0)}
    trained = {"id": np.where(chance < 0.4, 1.0, 40.0), "tfidf+id": np.where(chance < 0.6, 1.0, 40.0),
               "llm2rec+id": np.where(chance < 0.605, 1.0, 40.0)}  # fmt: skip
    seeds = {name: np.stack([each, each]) for name, each in trained.items()}
    lines = [{"row": row, "seed": s, "seconds": 10.0 + s, "parameters": 640} for row in trained
             for s in (1, 2)]  # fmt: skip
    few = np.arange(0, N, 2)
    return {
        "baselines": folder(tmp_path / "baselines" / "outputs", counted,
                            costs=[{"row": name, "seconds": 1.0} for name in counted]),
        "sasrec": folder(tmp_path / "sasrec" / "outputs", counted | ceiling, seeds, lines),
        "soft_tokens": folder(tmp_path / "soft" / "outputs", counted | ceiling,
                              {"pretrained": ranks_of(0.4, 5)[None], "sasrec": ranks_of(0.4, 6)[None]},
                              [{"row": "pretrained", "train seconds": 90.0, "numbers trained": 7}],
                              users=few),
    }  # fmt: skip


def stand(folders):
    return gather.stand_ranking(folders, FAMILIES, "hit@1", SETTINGS)


def boards_of(folders, prepared=None):
    standings = stand(folders)
    costs = gather.cost_table(folders, standings, FAMILIES, {}, prepared or {})
    return (
        standings,
        costs,
        {d: gather.full_board(s, costs, SETTINGS) for d, s in standings.items()},
    )


def test_rows_get_their_family_and_repeated_ones_stand_once(folders):
    rows = stand(folders)["ranking"].contest.values
    assert set(rows) == {"popularity", "item-kNN", "ceiling", "SASRec: id", "SASRec: tfidf+id",
                         "SASRec: llm2rec+id", "soft tokens: pretrained", "SASRec (31)"}  # fmt: skip
    assert rows["SASRec: id"].shape[0] == 2
    assert rows["item-kNN"].shape[0] == 1


def test_a_notebook_that_judged_a_sample_narrows_all_and_the_page_says_so(folders):
    standings = stand(folders)
    assert len(standings["ranking"].contest.keys) == N // 2
    told = gather.missing_frame([], folders, standings)
    assert f"all judged 150 of its {N} rows" in told.filter(what="item-kNN on ranking")["why"][0]
    full = {name: path for name, path in folders.items() if name != "soft_tokens"}
    assert len(stand(full)["ranking"].contest.keys) == N
    assert len(gather.missing_frame([], full, stand(full))) == 0


def test_a_failed_node_is_a_line_and_no_crash(folders):
    folders.pop("sasrec")
    standings, costs, boards = boards_of(folders)
    language = gather.ask_language_models(standings, QUESTIONS, SETTINGS)
    assert language["verdict"].to_list() == ["not measured", "not measured"]
    shown = words.shown_language(language, costs)
    assert shown["difference"].to_list() == ["not measured"] * 2
    told = words.advise(language, boards, {}).filter(use="nothing known")["because"]
    assert "no result of SASRec: llm2rec+id" in told[0]
    assert "No row with a language model was measured" in words.headline(language, boards)
    missing = gather.missing_frame(["sasrec", "baselines"], folders, standings)
    assert "sasrec" in missing["what"].to_list()
    assert "baselines" not in missing["what"].to_list()
    assert gain_figure(language).axes
    advice = words.advise(language, boards, {})
    assert advice.filter(pl.col("when").str.contains("llm2rec"))["use"][0] == "nothing known"


def test_nothing_at_all_makes_an_empty_page():
    assert stand({}) == {}
    language = gather.ask_language_models({}, {}, SETTINGS)
    assert len(language) == 0
    assert words.headline(language, {}) == "No row with a language model was measured here."
    assert len(words.advise(language, {}, {})) == 0
    assert gain_figure(language).axes
    assert pareto_figure({}, set(), {}).axes


def test_without_a_truth_there_is_no_gap_and_gains_are_in_per_cent_of_the_value(folders):
    for name in ("sasrec", "soft_tokens"):
        path = folders[name] / "ranks.parquet"
        pl.read_parquet(path).drop("ceiling").write_parquet(path)
    standings, costs, boards = boards_of(folders)
    assert boards["ranking"]["share"].null_count() == len(boards["ranking"])
    language = gather.ask_language_models(standings, QUESTIONS, SETTINGS)
    assert "% of its value" in words.shown_language(language, costs)["gain, % of the gap"][0]
    assert gain_figure(language).axes
    assert pareto_figure(boards, set(QUESTIONS), {"ranking": "higher"}).axes
    assert "what remains" not in " ".join(words.advise(language, boards, {})["when"])


def test_seconds_are_a_rows_own_and_those_of_what_it_stands_on(folders):
    stage = folders["sasrec"].parents[1] / "csft"
    (stage / "outputs" / "backbone").mkdir(parents=True)
    record = {"node": "csft", "seconds": 100.0, "peak_memory_bytes": 300 * 2**20}
    (stage / "record.json").write_text(json.dumps(record))
    folders = folders | {"csft": stage / "outputs" / "backbone"}
    _, costs, _ = boards_of(folders, {"SASRec: llm2rec+id": ["csft", "mntp"]})
    line = costs.filter(row="SASRec: llm2rec+id").row(0, named=True)
    assert line["seconds"] == pytest.approx(11.5 + 100.0)  # the mean over seeds, once the stage
    assert line["prepared"] == 100.0
    assert line["parameters"] == 640
    assert line["memory_mb"] == pytest.approx(300.0)
    assert line["cost_note"] == "without mntp"
    soft = costs.filter(row="soft tokens: pretrained").row(0, named=True)
    assert (soft["seconds"], soft["parameters"]) == (90.0, 7)
    assert gather.nodes_of(folders) == ["csft"]


def test_the_verdict_decides_what_is_said(folders):
    """TF-IDF does what LLM2Rec does: the page must not praise the language model."""
    folders.pop("soft_tokens")
    standings, _, boards = boards_of(folders)
    language = gather.ask_language_models(standings, QUESTIONS, SETTINGS)
    assert language["verdict"].to_list() == ["no difference shown", "better"]
    told = words.headline(language, boards)
    assert "No row with a language model is shown better than its counterpart" in told
    assert "On ranking, SASRec: llm2rec+id is shown better than item-kNN." in told
    line = words.language_sentences(language, boards)[0]
    assert line["use"] == "no need"
    assert "no gain over SASRec: tfidf+id" in line["because"]
    assert "it does beat SASRec: id" in line["because"]
    turned = gather.ask_language_models(standings, {"SASRec: llm2rec+id": ["SASRec: id"]}, SETTINGS)
    assert words.headline(turned, boards).startswith("1 of 1 rows with a language model")
    assert words.language_sentences(turned, boards)[0]["use"] == "use it"
    poor = {"ranking": boards["ranking"].with_columns(cheap_verdict=pl.lit("worse"))}
    line = words.language_sentences(turned, poor)[0]
    assert line["use"] == "only if you need it for more"
    assert "worse than item-kNN" in line["because"]
    back = gather.ask_language_models(standings, {"SASRec: id": ["SASRec: llm2rec+id"]}, SETTINGS)
    assert "Shown worse: SASRec: id." in words.headline(back, boards)
    assert words.language_sentences(back, boards)[0]["use"] == "leave it"


def test_it_says_plainly_where_no_language_model_beats_the_cheap_row(folders):
    standings, _, _ = boards_of(folders)
    strong = gather.Settings(draws=2_000, seed=1, cheap=["SASRec: tfidf+id"])
    costs = gather.cost_table(folders, standings, FAMILIES, {}, {})
    boards = {d: gather.full_board(s, costs, strong) for d, s in standings.items()}
    language = gather.ask_language_models(standings, QUESTIONS, SETTINGS)
    told = words.headline(language, boards)
    assert "On ranking, no row with a language model is shown better than SASRec: tfidf+id." in told


def test_the_first_advice_is_the_cheapest_that_is_not_shown_worse(folders):
    folders.pop("soft_tokens")
    standings, costs, boards = boards_of(folders, {"SASRec: llm2rec+id": []})
    dear = costs.with_columns(
        seconds=pl.when(pl.col("row") == "SASRec: llm2rec+id").then(900.0).otherwise("seconds")
    )
    boards = {d: gather.full_board(s, dear, SETTINGS) for d, s in standings.items()}
    assert boards["ranking"]["best"][0] == "SASRec: llm2rec+id"
    first = words.board_advice("ranking", boards["ranking"])[0]
    assert first["use"] == "SASRec: tfidf+id"
    assert "the best mean, SASRec: llm2rec+id, is not shown better" in first["because"]


def test_cells_stay_within_what_a_page_shows(folders):
    standings, costs, boards = boards_of(folders)
    language = gather.ask_language_models(standings, QUESTIONS, SETTINGS)
    segments = {"ranking": gather.compare_segments(standings["ranking"], [], SETTINGS)}
    frames = [words.shown_language(language, costs), words.advise(language, boards, segments),
              words.shown_board(boards["ranking"], standings["ranking"].contest)]  # fmt: skip
    for frame in frames:
        longest = max(len(str(value)) for row in frame.iter_rows() for value in row)
        assert longest <= 160


def test_the_page_of_boards_names_what_everything_is_compared_with(folders):
    standings, _, boards = boards_of(folders)
    shown = words.shown_board(boards["ranking"], standings["ranking"].contest)
    assert shown["system"][0] == "ceiling"
    assert "against item-kNN" in shown.columns
    assert shown.filter(system="ceiling")["% of the gap"][0] == "100 [100,\u00a0100]"
    assert shown.filter(system="popularity")["% of the gap"][0] == "0 [0,\u00a00]"


def test_segments_are_asked_where_rows_suffice(folders):
    standing = stand(folders)["ranking"]
    labels = np.where(np.arange(len(standing.contest.keys)) < 40, "rare", "common")
    cut = gather.Standing(standing.contest, standing.coverage, {"popularity": labels})
    table = gather.compare_segments(
        cut, [("SASRec: tfidf+id", "SASRec: id"), ("ghost", "SASRec: id")], SETTINGS
    )
    assert table.select("by", "segment", "row").rows() == [
        ("popularity", "common", "SASRec: tfidf+id")
    ]
    board = pl.DataFrame({"row": ["SASRec: tfidf+id"], "cheap_verdict": ["better"]})
    assert words.segment_advice("ranking", board, table)[0]["use"] == "SASRec: tfidf+id"
    poor = board.with_columns(cheap_verdict=pl.lit("worse"))
    assert words.segment_advice("ranking", poor, table) == []


def test_language_model_clicks_keep_their_names_and_leave_the_ceiling_out(tmp_path):
    frame = pl.DataFrame({"row": [4, 7], "label": [0, 1], "baseline": [0.1, 0.2],
                          "residual": [0.3, 0.4], "ceiling": [0.0, 1.0]})  # fmt: skip
    frame.write_parquet(tmp_path / "logits.parquet")
    found = inputs.read_llm_clicks(tmp_path, "llm_ctr")
    assert [system.name for system in found] == ["DeepFM + GEN", "LLM-CTR: residual"]
    assert found[1].keys.tolist() == [[4], [7]]
    assert found[1].answers.tolist() == [[0.3, 0.4]]


def test_auc_of_one_class_is_left_open():
    table = inputs.auc_columns(np.array([0, 0, 0]), {"a": np.array([0.1, 0.2, 0.3])})
    assert table.row(0) == ("a", None, None, None)


def test_probabilities_come_back_from_their_logits():
    p = np.array([0.0, 1e-6, 0.3, 1.0])
    back = 1 / (1 + np.exp(-inputs.as_logits(p)))
    assert back == pytest.approx(p, abs=1e-9)
