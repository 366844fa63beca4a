"""A submission holds every ID once and probabilities only; a blend of equals is that one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluate import ensemble
from lib.evaluate.clicks import average_precision
from lib.studies.submissions import (
    METHODS,
    Combine,
    align_submissions,
    blend_all,
    combine,
    disagreement_table,
    read_sample,
    read_submission,
    write_submission,
)

IDS = [f"TEST_{n:07d}" for n in range(12)]
SAID = np.linspace(0.05, 0.95, 12)


def write(path, ids, values, header="ID,clicked"):
    rows = [f"{i},{v}" for i, v in zip(ids, values, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_what_is_written_is_read_back_and_stands_in_the_order_of_the_sample(tmp_path):
    sample = write(tmp_path / "sample.csv", IDS[::-1], [0] * 12)
    write_submission(tmp_path / "mine.csv", IDS, SAID, sample=sample)
    assert read_sample(tmp_path / "mine.csv") == IDS[::-1]
    np.testing.assert_array_equal(read_submission(tmp_path / "mine.csv", IDS), SAID)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            [*IDS[:5], *IDS[:6], "TEST_0000011"],
            r"5 ids are there more than once \(TEST_0000000, TEST_0000001, TEST_0000002, "
            r"TEST_0000003, TEST_0000004\)",
        ),
        (
            IDS[7:],
            r"7 ids are missing \(TEST_0000000, TEST_0000001, TEST_0000002, TEST_0000003, "
            r"TEST_0000004\); expected the 12",
        ),
        (
            [*IDS, *(f"X{n}" for n in range(6))],
            r"6 ids are foreign \(X0, X1, X2, X3, X4\)",
        ),
        (["other", *IDS[1:]], r"1 ids are missing \(TEST_0000000\) and 1 ids are foreign \(other"),
    ],
)
def test_a_duplicate_missing_or_foreign_id_is_refused_with_the_first_five_named(
    tmp_path, ids, message
):
    path = write(tmp_path / "theirs.csv", ids, [0.5] * len(ids))
    with pytest.raises(ValueError, match=message):
        read_submission(path, IDS)
    sample = write(tmp_path / "sample.csv", IDS, [0] * 12)
    with pytest.raises(ValueError, match=message):
        write_submission(tmp_path / "new.csv", ids, [0.5] * len(ids), sample=sample)
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("bad", ["1.5", "-0.1", "nan", "inf", "", "yes"])
def test_a_value_that_is_no_probability_is_refused_and_named(tmp_path, bad):
    path = write(tmp_path / "theirs.csv", IDS, [bad, *SAID[1:]])
    with pytest.raises(
        ValueError, match=r"1 values of 'clicked' are no probability \(TEST_0000000"
    ):
        read_submission(path, IDS)


def test_other_columns_or_no_file_are_refused(tmp_path):
    path = write(tmp_path / "theirs.csv", IDS, SAID, header="id,probability")
    with pytest.raises(ValueError, match=r"columns \['id', 'probability'\]"):
        read_submission(path, IDS)
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv"):
        read_submission(tmp_path / "nothing.csv", IDS)


def test_probabilities_that_are_none_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="TEST_0000000: nan"):
        write_submission(tmp_path / "a.csv", IDS, np.full(12, np.nan))
    with pytest.raises(ValueError, match="for 12 ids"):
        write_submission(tmp_path / "a.csv", IDS, SAID[:3])


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(data=st.lists(st.floats(0.001, 0.999), min_size=1, max_size=20), copies=st.integers(2, 4))
def test_a_blend_of_equal_submissions_is_that_submission(method, data, copies):
    said = np.array(data)
    blended = combine([said] * copies, Combine(method=method), scores=[0.3] * copies)
    np.testing.assert_allclose(blended, said, rtol=1e-9)


def test_rank_average_keeps_its_order_on_the_scale_of_the_logit_mean():
    rng = np.random.default_rng(1)
    models = [rng.random(200), rng.random(200) ** 3]
    blended = combine(models, Combine(method="rank_average"))
    labels = (rng.random(200) < models[0]).astype(np.int8)
    ranks = ensemble.rank_average(models)
    assert average_precision(labels, blended) == pytest.approx(average_precision(labels, ranks))
    assert blended.mean() == pytest.approx(ensemble.logit_mean(models).mean())


def test_weights_come_from_validation_by_temperature_or_are_given():
    models = [np.full(3, 0.2), np.full(3, 0.8)]
    sharp = combine(models, Combine(method="weighted", temperature=1e-4), scores=[0.30, 0.35])
    flat = combine(models, Combine(method="weighted", temperature=1e4), scores=[0.30, 0.35])
    given_weights = combine(models, Combine(method="weighted", weights=(3, 1)))
    np.testing.assert_allclose([sharp[0], flat[0], given_weights[0]], [0.8, 0.5, 0.35], atol=1e-5)
    with pytest.raises(ValueError, match="neither weights nor validation scores"):
        combine(models, Combine(method="weighted"))
    assert set(blend_all(models, Combine(method="mean"))) == set(METHODS) - {"weighted"}
    assert set(blend_all(models, Combine(method="mean"), [0.3, 0.4])) == set(METHODS)


def test_a_method_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"method='average'.*logit_mean, mean"):
        Combine(method="average")


def test_disagreement_names_every_pair_and_one_file_is_no_blend(tmp_path):
    files = {
        name: write(tmp_path / f"{name}.csv", IDS[::step], SAID)
        for name, step in (("a", 1), ("b", -1))
    }
    said = align_submissions(files, IDS)
    table = disagreement_table(said | {"c": said["a"]})
    assert table.select("first", "second").rows() == [("a", "b"), ("a", "c"), ("b", "c")]
    np.testing.assert_allclose(table["of ranks"], [-1, 1, -1])
    assert table["mean distance"][1] == 0
    assert table["top decile"][1] == 1
    with pytest.raises(ValueError, match="two or more"):
        align_submissions({"a": files["a"]}, IDS)
