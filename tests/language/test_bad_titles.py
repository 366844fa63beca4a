"""Items without a title, with one that cleaning empties, and with one that never ends: every stage
serves them or leaves them out, and says so where nothing is left."""

import numpy as np
import polars as pl
import pytest
import torch

from lib.data.titles import clean_titles
from lib.language.backbone import Backbone, set_attention
from lib.language.collaborative import tokenise_titles
from lib.language.contrast import TitleViews
from lib.language.lexical import lexical_embeddings
from lib.language.masked import MaskedTitles, Masking
from lib.language.tokens import tokenise
from lib.studies.texts import TextSource, embed_titles, nearest_titles
from tests.language.conftest import make_model

RAW = ["", "red kettle", '"&quot;"', "mug " * 400, "tea, green", "   "]
LONG, BLANK, LIMIT = 3, [0, 2, 5], 12


@pytest.fixture
def titles():
    return clean_titles(pl.Series(RAW), "d3").to_list()


@pytest.fixture
def backbone(tokenizer):
    model = make_model("qwen3", n_tokens=len(tokenizer))
    set_attention(model, "bidirectional")
    return Backbone(model, tokenizer)


def test_a_title_of_quotes_is_empty_after_cleaning(titles):
    assert [row for row, title in enumerate(titles) if not title.strip()] == BLANK


def test_blank_titles_get_no_direction_and_a_long_one_that_of_its_beginning(
    titles, backbone, tmp_path
):
    options = {"max_tokens": LIMIT, "token_budget": 64, "attention": "bidirectional"}
    vectors = embed_titles(backbone, titles, cache=tmp_path, **options)
    assert np.isfinite(vectors).all()
    assert np.flatnonzero(~vectors.any(axis=1)).tolist() == BLANK
    kept = tokenise(backbone.tokenizer, titles, max_tokens=LIMIT)
    assert kept.lengths[LONG] == LIMIT
    with torch.no_grad():
        ids = torch.tensor(kept[LONG].astype(np.int64))[None]
        alone = backbone.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    tolerance = 0.05 if torch.cpu._is_avx512_bf16_supported() else 1e-4
    np.testing.assert_allclose(vectors[LONG], alone.mean(0), atol=tolerance)
    named = nearest_titles(vectors, titles, n=9, k=2, seed=1)
    assert "" not in named["title"].to_list() + named["nearest 1"].to_list()


def test_blank_titles_stand_in_prompts_and_are_never_written(titles, tokenizer):
    tokens = tokenise_titles(tokenizer, titles, max_tokens=LIMIT)
    assert np.flatnonzero(tokens.untitled).tolist() == BLANK
    assert tokens.first.lengths.min() > 0
    assert tokens.later.lengths.max() <= LIMIT + 2


def test_the_item_stages_learn_from_titled_items_alone(titles, tokenizer):
    tokens = tokenise(tokenizer, titles, max_tokens=LIMIT)
    usable = np.flatnonzero(tokens.lengths > 1)
    assert usable.tolist() == [1, LONG, 4]
    masking = Masking(share=0.5, to_mask=1, to_random=0, mask_id=7, n_ids=300)
    for texts in (MaskedTitles(tokens, usable, masking, pad_id=0),
                  TitleViews(tokens, usable, pad_id=0)):  # fmt: skip
        (batch,) = TextSource(texts, rows=8, seed=1).batches(0)
        assert bool(batch["mask"].any(dim=1).all())
    with pytest.raises(ValueError, match="no text to learn from is left"):
        TextSource(TitleViews(tokens, np.array([], dtype=np.int64), pad_id=0), rows=8, seed=1)


def test_tf_idf_gives_blank_titles_zero_rows_and_names_a_catalogue_without_words(titles):
    rows = lexical_embeddings([*titles, "red mug", "green tea"], n_dims=2, seed=1)
    assert not rows[BLANK].any()
    assert np.isfinite(rows).all()
    with pytest.raises(ValueError, match="share no word"):
        lexical_embeddings(["", "   "], n_dims=2, seed=1)
