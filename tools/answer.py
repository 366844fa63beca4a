"""The answer so far, in the README's words, with the figures of ``docs/results``."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path

__all__ = ["answer", "figures"]

ANSWER = """\
Small models on a CPU: backbones of 1.3 million weights at most, trained on the titles at hand.
NDCG@10 over all items, on targets that no choice has seen.

- **Titles help where ids are sparse, and plain words tell all of it that we found.** On Beauty a
tuned SASRec reaches {beauty[id]} with ids alone, {beauty[tfidf+id]} with TF-IDF of the titles,
{beauty[raw+id]} with the vectors of an untouched backbone, {beauty[llm2rec+id]} after all stages of
LLM2Rec, and {beauty[tfidf|llm2rec+id]} with TF-IDF and LLM2Rec together (three seeds). With 1,024
directions of TF-IDF instead of 256: {wide[tfidf+id]} alone, {wide[tfidf|llm2rec+id]} with LLM2Rec.
Without ids an untouched backbone ({beauty[raw]}) and LLM2Rec ({beauty[llm2rec]}) stay behind
TF-IDF ({beauty[tfidf]}; one seed).
- **Where ids are dense, titles add nothing.** MovieLens-1M: ids {ml[id]}, with LLM2Rec
{ml[llm2rec+id]}, with TF-IDF {ml[tfidf+id]} (one seed).
- **Neighbours still know something else.** Mixing item-kNN (alone {beauty[item-kNN]}) into ids and
both texts gives Beauty's best row, {beauty[tfidf|llm2rec+id&item-kNN]}.
- **A language model with items as tokens comes near SASRec and does not pass it:**
{soft_beauty[pretrained-user]} against {soft_beauty[sasrec]} on Beauty, {soft_ml[pretrained-user]}
against {soft_ml[sasrec]} on MovieLens-1M.
- **A frozen language model adds nothing to clicks in the simulated world:** AUC
{clicks[residual_text]} with it, {clicks[baseline]} for DeepFM alone, {clicks[ceiling]} for the true
probabilities. Sequences pay there: DARE + QNN-α scores {ladder[DARE + QNN-α, hold-out]}, boosted
trees {ladder[GBDT, hold-out]} (the ladder's own measure).
- **Not known yet:** what models of half a billion weights and more add. The profiles `games-2023`,
`kindle`, `avazu` and `toss` wait for a GPU and the real data; nobody has run them here."""


def figures(root: Path, file: str, notebook: str, metric: str) -> dict[str, str]:
    """Each row's figure, as ``.0602``; where two nodes have a row, the later one's."""
    nodes = json.loads((root / "docs" / "results" / file).read_text("utf-8"))["nodes"].values()
    tables: list[Mapping[str, Mapping[str, list[float]]]]
    tables = [node["metrics"] for node in nodes if node["notebook"] == notebook]
    return {row: f"{values[metric][0]:.4f}".replace("0.", ".", 1)
            for table in tables for row, values in table.items() if metric in values}  # fmt: skip


def answer(root: Path) -> str:
    ranking = "25_evaluate_sasrec", "ndcg@10"
    soft = "31_evaluate_soft_tokens", "ndcg@10"
    told = ANSWER.format(
        beauty=figures(root, "beauty.json", *ranking),
        wide=figures(root, "beauty_wide.json", *ranking),
        ml=figures(root, "ml-1m.json", *ranking),
        soft_beauty=figures(root, "soft_tokens_beauty.json", *soft),
        soft_ml=figures(root, "soft_tokens_ml-1m.json", *soft),
        clicks=figures(root, "demo.json", "43_compare_on_x4", "auc"),
        ladder=figures(root, "demo.json", "59_climb_the_ladder", "score"),
    )
    head, *points = told.split("\n- ")
    wrapped = [textwrap.fill(f"- {point}", 100, subsequent_indent="  ", break_on_hyphens=False)
               for point in points]  # fmt: skip
    return "\n".join([textwrap.fill(head, 100), "", *wrapped])
