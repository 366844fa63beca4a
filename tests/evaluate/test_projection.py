"""Numbers beside a projection against their definitions over all pairs, and the map itself."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lib.evaluate import projection


def clusters(generator, n=120, d=8, groups=3):
    group = np.arange(n) % groups
    return generator.normal(size=(n, d)) + 8 * np.eye(d)[group], group


def test_the_map_keeps_clusters_and_comes_back_the_same(generator):
    vectors, group = clusters(generator)
    first, second = projection.project(vectors, ((10.0, 0), (25.0, 1)), iterations=300)
    assert first.coordinates.shape == (120, 2)
    assert (first.perplexity, second.perplexity, second.seed) == (10.0, 25.0, 1)
    assert projection.group_purity(first.coordinates, group)["purity"] > 0.95
    assert first.preservation == projection.neighbourhood_preservation(vectors, first.coordinates)
    assert first.preservation > 2 * 10 / 119
    again, _ = projection.project(vectors, ((10.0, 0), (25.0, 1)), iterations=300)
    assert_array_equal(again.coordinates, first.coordinates)


def test_one_setting_or_too_few_points_are_refused(generator):
    with pytest.raises(ValueError, match="two or more"):
        projection.project(generator.normal(size=(200, 3)), ((10.0, 0),))
    with pytest.raises(ValueError, match="40 points are too few for perplexity 50"):
        projection.project(generator.normal(size=(40, 3)))


def test_neighbours_are_kept_by_a_copy_and_by_chance_otherwise(generator):
    vectors = generator.normal(size=(300, 5))
    assert projection.neighbourhood_preservation(vectors, vectors * 2 + 1) == 1.0
    noise = projection.neighbourhood_preservation(vectors, generator.normal(size=(300, 2)))
    assert_allclose(noise, 10 / 299, atol=0.01)


def test_purity_of_random_groups_is_chance(generator):
    result = projection.group_purity(generator.normal(size=(600, 4)), np.arange(600) % 3)
    assert_allclose(result["purity"], result["chance"], atol=0.03)
    assert_allclose(result["chance"], 199 / 599)


def test_effective_rank_counts_directions(generator):
    basis = np.linalg.qr(generator.normal(size=(1_000, 6)))[0]
    basis = np.linalg.qr(basis - basis.mean(0))[0]
    assert_allclose(projection.effective_rank(basis), 6, rtol=1e-6)
    line = np.arange(10.0)[:, None] * [1.0, 2.0, 3.0]
    assert_allclose(projection.effective_rank(line), 1, rtol=1e-6)
    assert projection.effective_rank(np.ones((5, 3))) == 1.0


def test_anisotropy_and_uniformity_equal_all_pairs(generator):
    x = generator.normal(1, 1, (50, 4))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    i, j = np.triu_indices(50, 1)
    assert_allclose(projection.anisotropy(x), (unit[i] * unit[j]).sum(1).mean(), atol=1e-12)
    distance = ((unit[i] - unit[j]) ** 2).sum(1)
    expected = np.log(np.exp(-2 * distance).mean())
    assert_allclose(projection.uniformity(x), expected, atol=1e-12)
    assert_allclose(projection.uniformity(x, block=7), expected, atol=1e-12)


def test_alignment_is_the_distance_of_pairs(generator):
    x = generator.normal(size=(20, 4))
    assert projection.alignment(x, 3 * x) == pytest.approx(0)
    assert projection.alignment(x, -x) == pytest.approx(4)


def test_a_sample_is_ordered_distinct_and_everything_when_small(generator):
    rows = projection.sample_rows(1_000, 100, generator)
    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert projection.sample_rows(5, 100, generator).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: projection.effective_rank([[np.nan]]), "vectors holds 1 NaN"),
        (lambda: projection.effective_rank([1.0]), "expected \\(points, dimensions\\)"),
        (lambda: projection.anisotropy([[0.0, 0.0], [1.0, 0.0]]), "1 vectors are all zeros"),
        (lambda: projection.anisotropy([[1.0]]), "a pair needs two"),
        (lambda: projection.uniformity([[1.0]]), "a pair needs two"),
        (lambda: projection.alignment([[1.0]], [[1.0, 2.0]]), "expected the same"),
        (lambda: projection.group_purity([[1.0], [2.0]], ["a"]), "2 vectors but 1 groups"),
        (lambda: projection.group_purity([[1.0], [2.0]], ["a", "b"]), "k=10 neighbours among 2"),
        (
            lambda: projection.neighbourhood_preservation([[1.0]] * 5, [[1.0]] * 4, k=2),
            "5 vectors but 4 points",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
