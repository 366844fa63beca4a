"""The law of the marketplace: exact, drawn from as stated, the same for the same seed."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from lib.data.world.catalogue import END, ODDITIES, make_catalogue
from lib.data.world.choice import State, item_probabilities, make_law, state_at
from lib.data.world.events import draw_next
from lib.data.world.people import make_people
from lib.data.world.rng import generator, hash_pairs, unique_codes
from lib.data.world.simulate import World, make_world
from lib.data.world.titles import make_titles
from lib.data.world.words import STUFFING, TYPES
from tests.data.world import probabilities_by_loops, small_config, some_states, write_small


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(small_config())


def test_probabilities_are_those_of_the_formula(world: World):
    state = some_states(world, 40)
    expected = probabilities_by_loops(world.law, state, world.config.affinity)
    np.testing.assert_allclose(item_probabilities(world.law, state), expected, atol=2e-6)


@given(seed=st.integers(0, 10_000), known=st.sets(st.sampled_from(["title", "behaviour", "whims"])))
@settings(max_examples=25, deadline=None)
def test_probabilities_sum_to_one_whatever_is_known(seed, known):
    config = small_config(n_users=20)
    world = make_world(config)
    law = make_law(config, world.law.catalogue, world.law.people, frozenset(known))
    found = item_probabilities(law, some_states(world, 12, seed))
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_what_is_not_in_the_shop_yet_has_probability_zero(world: World):
    state = some_states(world, 50)
    state = State(state.users, state.times, np.full_like(state.recent, -1))
    future = world.law.catalogue.arrivals[None, :] > state.times[:, None]
    assert future.any()
    assert item_probabilities(world.law, state)[future].max() == 0


@pytest.mark.parametrize("place", range(6))
def test_draws_follow_the_stated_probabilities(world: World, place: int):
    """Pearson's chi-square per state; a false alarm once in 100,000 for each of the six."""
    n_draws = 40_000
    one = some_states(world, 6)
    state = State(
        users=np.full(n_draws, one.users[place]),
        times=np.full(n_draws, one.times[place]),
        recent=np.tile(one.recent[place], (n_draws, 1)),
    )
    drawn = draw_next(world.law, state, generator(1, "test", place))
    head = State(state.users[:1], state.times[:1], state.recent[:1])
    expected = n_draws * item_probabilities(world.law, head)[0].astype(float)
    counts = np.bincount(drawn, minlength=len(expected)).astype(float)
    assert counts[expected == 0].sum() == 0
    common = expected >= 5  # the rare ones together, as the test needs
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0
    statistic = ((observed - wanted)[keep] ** 2 / wanted[keep]).sum()
    assert statistic < chi2.isf(1e-5, keep.sum() - 1)


def test_purchases_are_as_likely_as_the_law_says(world: World):
    """Mean log-likelihood of what was bought against its expectation: within 4.4 sigma, 1e-5."""
    people, rng = world.law.people, np.random.default_rng(3)
    events = rng.choice(len(world.items), 1200, replace=False)
    users = np.searchsorted(people.offsets, events, side="right") - 1
    state = state_at(
        people.offsets, world.items, people.times, users, events - people.offsets[users]
    )
    found = item_probabilities(world.law, state).astype(float)
    logs = np.log(np.maximum(found, 1e-30))
    expected = (found * logs).sum(axis=1)
    variance = (found * logs**2).sum(axis=1) - expected**2
    own = logs[np.arange(len(events)), world.items[events]]
    assert abs((own - expected).sum()) < 4.4 * np.sqrt(variance.sum())


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path):
    def hashes(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_small(tmp_path / name, seed=seed, n_users=60, n_avazu=400, n_toss=300)
    first, again, other = (hashes(tmp_path / name) for name in "abc")
    assert len(first) > 30
    assert first == again
    assert first.keys() == other.keys()
    same = {name for name in first if first[name] == other[name]}
    assert same <= {"toss/sample_submission.csv", "truth/item_keys.npy"}


def test_a_larger_world_has_as_many_events_as_asked():
    for n_users in (100, 1_000, 5_000):  # sd of a length is 8, so the mean is known to 3 * 0.8
        people = make_people(small_config(n_users=n_users, mean_events=13.0))
        mean = np.diff(people.offsets).mean()
        assert abs(mean - 13) < 3 * 10 / np.sqrt(n_users) + 0.3


def test_people_buy_in_order_and_inside_the_three_years(world: World):
    people = world.law.people
    owner = np.repeat(np.arange(people.n_users), np.diff(people.offsets))
    steps = np.diff(people.times)[owner[1:] == owner[:-1]]
    assert steps.min() > 0
    assert people.times.max() < END
    assert np.diff(people.offsets).min() >= 4


def test_popularity_is_heavy_tailed_and_cold_items_exist():
    world = make_world(small_config(n_users=3_000, n_items=1_500))
    counts = -np.sort(-np.bincount(world.items, minlength=1_500))
    assert counts[:150].sum() > 0.3 * counts.sum()
    assert np.median(counts) < 0.8 * counts.mean()
    people, catalogue = world.law.people, world.law.catalogue
    cut = np.quantile(people.times, 0.8)
    late = world.items[people.times >= cut]
    assert 0.005 < np.mean(~np.isin(late, world.items[people.times < cut])) < 0.2
    assert (catalogue.arrivals[world.items] <= people.times).all()


def test_needs_follow_one_another(world: World):
    """After a kettle, its descaler is far more likely than otherwise."""
    nouns = [kind.noun for kind in TYPES]
    kettle, descaler = nouns.index("electric kettle"), nouns.index("kettle descaler")
    types = world.law.catalogue.types
    state = some_states(world, 60)
    state.recent[:] = -1
    before = item_probabilities(world.law, state)[:, types == descaler].sum(axis=1)
    state.recent[:, 0] = np.flatnonzero(types == kettle)[0]
    after = item_probabilities(world.law, state)[:, types == descaler].sum(axis=1)
    assert np.median(after / before) > 3


def test_titles_have_every_oddity_a_real_catalogue_has():
    catalogue = make_catalogue(small_config(n_items=3_000))
    titles = make_titles(catalogue)
    by_kind = {
        kind: [titles[i] for i in np.flatnonzero(catalogue.oddity == index)]
        for index, kind in enumerate(ODDITIES)
    }
    assert all(by_kind.values())
    assert set(by_kind["empty"]) == {""}
    assert all("&quot;" in title and "&amp;" in title for title in by_kind["entities"])
    assert all(title.startswith("<span") for title in by_kind["broken"])
    assert all(len(title.split()) > 20 and STUFFING in title for title in by_kind["overlong"])
    assert all(any(ord(letter) > 0x3FF for letter in title) for title in by_kind["script"])
    assert all(any(ord(letter) > 0x25FF for letter in title) for title in by_kind["emoji"])
    assert len(set(titles)) < len(titles) - 30
    assert np.mean([len(title.split()) <= 20 for title in by_kind["plain"]]) == 1
    assert len({word for title in by_kind["plain"] for word in title.split()}) < 400


def test_the_title_holds_the_share_of_affinity_that_was_asked():
    config = small_config(n_items=4_000, text_share=0.6)
    catalogue = make_catalogue(config)
    readable = catalogue.title_affinity.any(axis=0)
    title = catalogue.title_affinity[:, readable].var()
    hidden = catalogue.hidden_affinity[:, readable].var()
    assert abs(title / (title + hidden) - 0.6) < 0.03
    assert not catalogue.title_affinity[:, ~readable].any()
    assert 0 < np.mean(~readable) < 0.03


def test_equal_titles_say_the_same_about_taste():
    catalogue = make_catalogue(small_config(n_items=3_000))
    first: dict[str, int] = {}
    for index, title in enumerate(make_titles(catalogue)):
        if title and not title.startswith("<"):
            twin = first.setdefault(title, index)
            np.testing.assert_array_equal(
                catalogue.title_affinity[:, index], catalogue.title_affinity[:, twin]
            )


def test_every_type_has_something_to_sell_on_the_first_day():
    catalogue = make_catalogue(small_config(n_items=96))
    first_day = catalogue.types[catalogue.arrivals == catalogue.arrivals.min()]
    assert (np.bincount(first_day, minlength=48) >= 2).all()


def test_codes_and_hashes_are_different_for_different_things():
    codes = unique_codes(50_000, 8, "0123456789abcdef", 3)
    assert len(np.unique(codes)) == 50_000
    hashes = hash_pairs(np.arange(1_000)[:, None], np.arange(50)[None, :], 9)
    assert len(np.unique(hashes)) == 50_000


def test_more_codes_than_letters_allow_are_refused():
    with pytest.raises(ValueError, match="300 codes of 2 letters asked, at most 256"):
        unique_codes(300, 2, "0123456789abcdef", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_items": 50}, "n_items is 50, expected at least 96"),
        ({"text_share": 1.4}, "text_share is 1.4, expected 0..1"),
        ({"mean_events": 1.0}, r"mean_events 1.0 \(expected >= 4\)"),
        ({"n_toss": -1}, "n_toss is -1, expected 0 or more"),
    ],
)
def test_impossible_worlds_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        small_config(**changes)
