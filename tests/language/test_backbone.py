"""Loading, refusing, and the attention that a model really has."""

import json

import pytest
import torch

from lib.language.attention import FUSED
from lib.language.backbone import (
    Backbone,
    add_lora,
    hidden_states,
    load_backbone,
    looks_ahead,
    merge_lora,
    set_attention,
)
from lib.language.tokens import train_tokenizer
from tests.language.conftest import TEXTS, make_model
from tests.language.stories import BOS, load_pieces, load_stories


@pytest.fixture
def folder(tmp_path, tokenizer):
    Backbone(make_model("qwen3", len(tokenizer)), tokenizer).save(tmp_path / "backbone")
    return tmp_path / "backbone"


@pytest.mark.parametrize("implementation", [FUSED, "sdpa", "eager"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_attention_is_what_was_asked_padded_and_unpadded(family, implementation, attention):
    model = make_model(family, implementation=implementation)
    set_attention(model, attention)
    ids = torch.randint(1, 300, (1, 5), generator=torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[0, 4] = (ids[0, 4] + 1) % 300
    pad = torch.nn.functional.pad
    for width in (0, 3):
        mask = pad(torch.ones_like(ids), (0, width))
        a, b = (hidden_states(model, pad(x, (0, width)), mask)[0, :4] for x in (ids, changed))
        assert bool((a - b).abs().max() > 1e-6) == (attention == "bidirectional")
    alone = hidden_states(model, ids, None)
    padded = hidden_states(model, pad(ids, (0, 3)), pad(torch.ones_like(ids), (0, 3)))[:, :5]
    torch.testing.assert_close(alone, padded, rtol=0, atol=1e-5)


def test_bidirectional_states_equal_a_full_mask_given_by_hand(family):
    model = make_model(family)
    set_attention(model, "bidirectional")
    ids = torch.arange(1, 6)[None]
    everything = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    oracle = model.base_model(input_ids=ids, attention_mask=everything, use_cache=False)
    torch.testing.assert_close(
        hidden_states(model, ids, None), oracle.last_hidden_state, rtol=0, atol=1e-5
    )


def test_saved_folder_loads_with_the_mode_asked_for_and_not_the_mode_saved(folder, tokenizer):
    both = load_backbone(folder, attention="bidirectional")
    both.save(folder)
    assert not looks_ahead(load_backbone(folder, attention="causal").model)
    assert looks_ahead(load_backbone(folder, attention="bidirectional").model)


def test_attention_dropout_set_at_loading_gives_two_different_views(folder):
    model = load_backbone(folder, attention="bidirectional", attention_dropout=0.3).model.train()
    ids = torch.arange(1, 8)[None]
    assert not torch.equal(hidden_states(model, ids, None), hidden_states(model, ids, None))


def test_nothing_at_the_place_says_how_to_get_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"fetch PROFILE.*20_pretrain_small_backbone"):
        load_backbone(tmp_path / "nowhere", attention="causal")


def test_a_tokenizer_of_another_model_is_refused(folder):
    train_tokenizer(TEXTS, n_tokens=260).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"260 tokens and the model 29\d rows"):
        load_backbone(folder, attention="causal")


def test_a_checkpoint_of_another_architecture_is_refused(folder):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
                      .replace('"full_attention"\n', '"full_attention",\n    "full_attention"\n'))  # fmt: skip
    with pytest.raises(ValueError, match=r"do not belong to Qwen3ForCausalLM: missing"):
        load_backbone(folder, attention="causal")
    config.write_text(config.read_text().replace("Qwen3ForCausalLM", "BertModel"))
    with pytest.raises(ValueError, match=r"\['BertModel'\], expected a causal"):
        load_backbone(folder, attention="causal")


@pytest.mark.parametrize("fault", ["cut", "gone", "other sizes"])
def test_weights_that_cannot_be_read_name_folder_and_remedy(folder, fault):
    weights, config = folder / "model.safetensors", folder / "config.json"
    if fault == "cut":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif fault == "gone":
        weights.unlink()
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 40}))
    with pytest.raises(ValueError, match=r"backbone: the weights cannot be read .*save the model"):
        load_backbone(folder, attention="causal")


def test_a_backbone_without_pad_token_pads_with_its_end(folder, tokenizer):
    tokenizer_config = folder / "tokenizer_config.json"
    tokenizer_config.write_text(
        tokenizer_config.read_text().replace('"pad_token": "<|endoftext|>"', '"pad_token": null')
    )
    backbone = load_backbone(folder, attention="causal")
    assert backbone.tokenizer.pad_token_id is None
    assert backbone.pad_id == backbone.eos_id


def test_merged_lora_is_the_model_that_was_trained(family):
    model = make_model(family)
    ids = torch.arange(1, 7)[None]
    before = hidden_states(model, ids, None).detach()
    tuned = add_lora(model, rank=2, alpha=4, dropout=0.0)
    trained = [p for p in tuned.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in trained) < sum(p.numel() for p in tuned.parameters()) / 3
    for weight in trained:
        torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(2))
    expected = hidden_states(tuned, ids, None).detach()
    assert not torch.allclose(before, expected)
    torch.testing.assert_close(
        hidden_states(merge_lora(tuned), ids, None), expected, rtol=0, atol=1e-5
    )


def test_lora_on_tied_embeddings_is_refused():
    with pytest.raises(ValueError, match="embeddings are tied"):
        add_lora(
            make_model("qwen3"), rank=2, alpha=4, dropout=0.0, targets=["q_proj", "embed_tokens"]
        )


def test_a_real_pretrained_model_tells_a_story_and_can_be_switched(shared_data):
    folder = shared_data / "stories260k"
    model, pieces = load_stories(folder), load_pieces(folder)
    ids = model.generate(
        torch.tensor([[BOS]]),
        attention_mask=torch.ones(1, 1),
        max_new_tokens=30,
        do_sample=False,
        pad_token_id=0,
    )
    assert (
        "".join(pieces[i] for i in ids[0, 1:]).strip().startswith("Once upon a time, there was a")
    )
    set_attention(model, "bidirectional")
    assert looks_ahead(model)
