"""Published tables: told with their source, and put beside the right row of ours."""

import polars as pl
import pytest

from lib.studies.compare import MEASURES
from lib.studies.published import PUBLISHED, beside_published, what_differs

RESULTS = pl.DataFrame(
    [
        ("id", "hit@10", 0.4),
        ("id", "ndcg@10", 0.2),
        ("llm2rec", "ndcg@10", 0.3),
        ("csft", "ndcg@10", 0.25),
        ("popularity", "ndcg@10", 0.01),
    ],
    schema=["row", "measure", "value"],
    orient="row",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_table_is_whole_and_its_figures_are_of_one_ranking(name):
    table = PUBLISHED[name]
    assert table.ours.keys() <= table.rows.keys()
    cuts = [measure.partition("@") for measure in table.measures]
    assert {kind for kind, _, _ in cuts} <= MEASURES.keys()
    for row, figures in table.rows.items():
        known = dict(zip(table.measures, figures, strict=False))
        for k in {cut for _, _, cut in cuts}:
            hit, ndcg = known.get(f"hit@{k}", 1.0), known.get(f"ndcg@{k}", 0.0)
            assert hit != hit or 0 < ndcg < hit < 1 or k == "20", row
        for kind in ("hit", "ndcg"):
            rising = [known[m] for m in table.measures if m.startswith(kind) and m in known]
            rising = [figure for figure in rising if figure == figure]
            assert rising == sorted(rising), f"{row}: {kind} falls with K"
    assert "ours" in what_differs(name)


def test_ours_stands_beside_the_row_it_is_meant_to_match():
    found = beside_published("games-2023", RESULTS).filter(pl.col("measure") == "ndcg@10")
    ours = dict(found.select("published row", "ours").iter_rows())
    assert ours == dict.fromkeys(ours) | {"LLM2Rec": 0.3, "CSFT": 0.25}
    assert dict(found.select("published row", "published").iter_rows())["LLM2Rec"] == 0.0521


def test_a_figure_that_was_not_published_has_no_line():
    found = beside_published("beauty", RESULTS).filter(pl.col("published row") == "SASRec, RecBole")
    assert found["measure"].to_list() == ["hit@10", "ndcg@10"]


def test_an_unknown_table_names_the_known_ones():
    with pytest.raises(ValueError, match=r"beauty.*games-2023.*ml-1m"):
        beside_published("steam", RESULTS)
