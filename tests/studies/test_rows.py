"""What the rows of the SASRec study are made of: read back whole, or refused with a remedy."""

import numpy as np
import polars as pl
import pytest

from lib.data.histories import Targets
from lib.studies.rows import (
    build_recipes,
    read_baselines,
    read_embeddings,
    read_seeds,
    seed_columns,
    whitened,
)

SETTINGS = {"id": {"learning_rate": 1e-3, "dropout": 0.1},
            "sum": {"learning_rate": 2e-3, "dropout": 0.2}}  # fmt: skip
TARGETS = Targets(np.array([0, 1, 2], np.int32), np.array([4, 5, 6], np.int64))


def table(n_rows=6, bad=None):
    rows = np.random.default_rng(1).normal(size=(n_rows, 3)).astype(np.float32)
    if bad is not None:
        rows[bad, 1] = np.nan
    return rows


def test_embeddings_of_all_stages_are_read_by_name(tmp_path):
    for stage in ("raw", "llm2rec"):
        np.save(tmp_path / f"{stage}.npy", table())
    found = read_embeddings(tmp_path, 5)
    assert list(found) == ["llm2rec", "raw"]
    np.testing.assert_array_equal(found["raw"], table())


@pytest.mark.parametrize("rows", [table(5), table(7), table()[1], table()[None]])
def test_another_number_of_rows_than_items_is_refused(tmp_path, rows):
    np.save(tmp_path / "raw.npy", rows)
    with pytest.raises(ValueError, match=r"raw\.npy has the shape .* expected 6 rows.*24_extract"):
        read_embeddings(tmp_path, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_refused_with_its_row(tmp_path, value):
    rows = table()
    rows[3, 1] = value
    np.save(tmp_path / "csft.npy", rows)
    with pytest.raises(ValueError, match=r"csft\.npy holds NaN or infinite .* 1 rows.*\[3\]"):
        read_embeddings(tmp_path, 5)


def test_a_row_without_its_text_or_its_settings_is_named():
    with pytest.raises(ValueError, match=r"'llm2rec\+id': no embeddings 'llm2rec'"):
        build_recipes(["llm2rec+id"], {"tfidf": table()}, SETTINGS)
    with pytest.raises(ValueError, match="'tfidf' needs settings for 'text'"):
        build_recipes(["tfidf"], {"tfidf": table()}, SETTINGS)
    recipes = build_recipes(["shuffled+id"], {"tfidf": table()}, SETTINGS)
    assert recipes["shuffled+id"].shuffled
    with pytest.raises(ValueError, match=r"'tfidf\|raw\+id': no embeddings 'raw'"):
        build_recipes(["tfidf|raw+id"], {"tfidf": table()}, SETTINGS)
    both = build_recipes(["tfidf|raw+id"], {"tfidf": table(), "raw": 2 * table()}, SETTINGS)
    np.testing.assert_array_equal(
        both["tfidf|raw+id"].embeddings, np.concatenate([table(), 2 * table()], axis=1)
    )
    assert recipes["shuffled+id"].learning_rate == 2e-3


def save(folder, name, columns):
    pl.DataFrame({"user": TARGETS.users, "position": TARGETS.positions} | columns).write_parquet(
        folder / name
    )


def test_ranks_of_each_seed_come_back_as_they_were(tmp_path):
    ranks = {"id": np.array([[1.0, 2, 3], [4, 5, 6]]), "a#b+id": np.array([[7.0, 8, 9.5]])}
    save(tmp_path, "seeds.parquet", seed_columns(ranks))
    found = read_seeds(tmp_path, TARGETS)
    assert found.keys() == ranks.keys()
    for row in ranks:
        np.testing.assert_array_equal(found[row], ranks[row])


def test_ranks_of_other_targets_are_refused(tmp_path):
    save(tmp_path, "ranks.parquet", {"popularity": np.ones(3)})
    assert read_baselines(tmp_path, TARGETS)["popularity"].tolist() == [1, 1, 1]
    others = Targets(TARGETS.users, TARGETS.positions + 1)
    with pytest.raises(ValueError, match=r"3 other targets.*run 13_measure_baselines"):
        read_baselines(tmp_path, others)


@pytest.mark.parametrize(
    ("n_rows", "n_dims", "rank"), [(40, 3, 3), (40, 8, 5), (4, 9, 3), (1, 3, 0)]
)
def test_whitened_rows_vary_alike_in_every_direction_and_say_the_same(n_rows, n_dims, rank):
    rng = np.random.default_rng(2)
    wide = rng.normal(size=(n_rows, min(n_dims, 5))) @ rng.normal(size=(min(n_dims, 5), n_dims))
    rows = np.vstack([np.zeros(n_dims), 7 + wide * 100]).astype(np.float32)
    found = whitened(rows)
    assert found.shape == (n_rows + 1, rank)
    assert not found[0].any()
    inner = found[1:].astype(np.float64)
    np.testing.assert_allclose(inner.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(inner.T @ inner / n_rows, np.eye(rank), atol=1e-4)
    # nothing is lost: the rows of before are a linear map of those of after
    before = rows[1:] - rows[1:].mean(axis=0)
    told = inner @ np.linalg.lstsq(inner, before, rcond=None)[0]
    np.testing.assert_allclose(told, before, atol=1e-2)
