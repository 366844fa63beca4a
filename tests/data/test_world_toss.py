"""The law of the Toss-like log: equal to its formula, and visible in the columns."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lib.data.world import toss_law, toss_seq, write_toss
from lib.data.world.simulate import World, make_world
from lib.data.world.toss_law import Row, draw_weights, logits_of
from lib.data.world.toss_seq import N_PAGES, call_for, draw_sequences, draw_worth
from tests.data.world import small_config

N = 14_000


class Log:
    """One small log, and what its law was asked for each row of the training file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        asked = []

        def record(weights, ads, row):
            asked.append(row)
            return logits_of(weights, ads, row)

        monkeypatch.setattr(write_toss, "logits_of", record)
        self.world: World = make_world(small_config(n_toss=N, remainder=0.0, toss_ctr=0.12))
        config, law, items = self.world.config, self.world.law, self.world.items
        self.truth = write_toss.write_toss(folder, config, law, items)["train"]
        self.setting = write_toss._make_setting(config, law, items)
        self.row: Row = asked[1]  # first comes the sample that sets the click rate
        self.train = pl.read_parquet(folder / "train.parquet")

    def number(self, name: str) -> np.ndarray:
        return self.train[name].fill_null(0).to_numpy().astype(float)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Log:
    with pytest.MonkeyPatch.context() as patch:
        return Log(tmp_path_factory.mktemp("toss"), patch)


def test_logits_are_those_of_the_formula_row_by_row(log: Log):
    rows, weights, ads = log.row, log.setting.weights, log.setting.ads
    found = logits_of(weights, ads, rows)
    for i in range(0, 200, 7):
        slot, department = int(rows.slot[i]), int(rows.department[i])
        expected = float(weights.slot[slot]) + float(weights.hour[rows.hour[i]])
        expected += float(weights.place[slot, department])
        expected += float(weights.age_department[rows.age[i], department])
        expected += float(weights.gender_department[rows.gender[i], department])
        expected += toss_law.CREATIVE * float(ads.quality[rows.ad[i]])
        expected += toss_law.AFFINITY * float(rows.liking[i])
        expected += toss_law.MATCH * float(rows.intent[i])
        expected += toss_law.WANT * (float(rows.wanted[i]) ** 0.5 - 8**-0.5) / 0.2
        expected += toss_law.DAY * np.sin(float(rows.day[i]))
        assert found[i] == pytest.approx(expected, abs=1e-5)


def test_the_truth_is_the_law_and_one_constant(log: Log):
    """Without a remainder nothing else stands between a row and its probability."""
    stated = np.log(log.truth.expected / (1 - log.truth.expected)).astype(float)
    constant = stated - logits_of(log.setting.weights, log.setting.ads, log.row)
    assert constant.std() < 1e-3
    assert abs(log.truth.expected.mean() - 0.12) < 0.012


def test_intent_is_that_of_the_formula_read_from_the_printed_sequence(log: Log):
    """Tokens as printed, back to department and page, then the sum term by term in float64."""
    meaning = {int(name): place for place, name in enumerate(log.setting.names)}
    worth = log.setting.worth.astype(float)
    for i in range(0, 600, 3):
        steps = [meaning[int(token)] for token in log.train["seq"][i].split(",")]
        total, weights = 0.0, toss_seq.CALM
        for back, step in enumerate(reversed(steps[-toss_seq.RECENT :])):
            if step // N_PAGES == log.row.department[i]:
                total += toss_seq.DECAY**back * worth[step]
                weights += toss_seq.DECAY**back
        assert log.row.intent[i] == pytest.approx(total / weights, abs=1e-5)


def test_every_part_of_the_law_shows_in_a_column(log: Log):
    slots = np.array(toss_law.SLOTS)[log.row.slot].astype(str)
    assert log.train["inventory_id"].to_list() == slots.tolist()
    assert (log.train["hour"].cast(int).to_numpy() == log.row.hour).all()
    assert (log.number("l_feat_14") == log.row.ad + 1).all()
    assert (log.number("l_feat_16") == log.row.department + 1).all()
    known = log.train["gender"].is_not_null().to_numpy()
    age = log.train["age_group"].cast(int).to_numpy()[known]
    assert (age == log.row.age[known] + 1).all()
    shown = np.corrcoef(log.number("history_a_1"), log.row.liking)[0, 1]
    assert shown > 0.97
    wanted = np.corrcoef(log.number("feat_b_1")[known], np.sqrt(log.row.wanted[known]))[0, 1]
    assert wanted > 0.97


def test_counts_of_a_department_are_those_of_its_own_column(log: Log):
    """``feat_a_i`` counts department i mod 8: of the ad's own it follows what is wanted."""
    known = log.train["feat_a_1"].is_not_null().to_numpy()
    columns = np.stack([log.number(f"feat_a_{8 if d == 0 else d}") for d in range(8)], axis=1)
    own = columns[np.arange(N), log.row.department]
    other = columns[np.arange(N), (log.row.department + 3) % 8]
    assert np.corrcoef(own[known], log.row.wanted[known])[0, 1] > 0.97
    assert np.corrcoef(other[known], log.row.wanted[known])[0, 1] < 0.3


def test_nothing_but_the_sequence_tells_the_worth_of_its_steps():
    """Worth is drawn for each page: the same wants, other pages, another intent."""
    rng = np.random.default_rng(1)
    wants = np.full((4_000, 8), 1 / 8, np.float32)
    found = draw_sequences(wants, 15.0, rng)
    visits = np.arange(4_000)
    intent = call_for(found, draw_worth(rng), visits, visits % 8)
    assert 0.2 < (intent != 0).mean() < 0.7
    assert np.abs(call_for(found, np.zeros(8 * N_PAGES, np.float32), visits, visits % 8)).max() == 0


def test_ads_are_shown_to_those_who_want_such_things_more_than_by_chance(log: Log):
    rng = np.random.default_rng(2)
    shuffled = rng.permutation(log.row.department)
    columns = np.stack([log.number(f"feat_a_{8 if d == 0 else d}") for d in range(8)], axis=1)
    own = columns[np.arange(N), log.row.department].mean()
    assert own > 1.3 * columns[np.arange(N), shuffled].mean()


def test_places_and_departments_agree_or_not_in_two_tastes():
    """A table of rank two: what crosses find with few numbers and trees cell by cell."""
    place = draw_weights(np.random.default_rng(3)).place
    assert place.std() == pytest.approx(toss_law.PLACE, rel=1e-5)
    assert np.linalg.matrix_rank(place.astype(float), tol=1e-4) == 2
