import pytest
import torch
from rtdl_revisiting_models import FTTransformer as PeerFTTransformer

from lib.models.fields import EmbeddingConfig, Sizes
from lib.models.ft_transformer import (
    FTTransformer,
    FTTransformerConfig,
    Mixout,
    drop_rows,
    set_mixout_anchor,
)

OFFSETS, CARDINALITIES = torch.tensor([0, 4, 10]), [4, 6, 3]


def make(sizes, n_blocks=3, **options):
    torch.manual_seed(1)
    plain = {"n_heads": 4, "attention_dropout": 0.0, "ffn_dropout": 0.0}
    config = FTTransformerConfig(
        sizes=sizes,
        embedding=EmbeddingConfig(d_embedding=16, lazy=False),
        n_blocks=n_blocks,
        **{**plain, **options},
    )
    return FTTransformer(config).double()


def make_peer(n_blocks):
    return PeerFTTransformer(
        n_cont_features=2,
        cat_cardinalities=CARDINALITIES,
        d_out=1,
        n_blocks=n_blocks,
        d_block=16,
        attention_n_heads=4,
        attention_dropout=0.0,
        ffn_d_hidden_multiplier=4 / 3,
        ffn_dropout=0.0,
        residual_dropout=0.0,
    ).double()


@torch.no_grad()
def copy_weights(peer, model):
    model.class_token.copy_(peer.cls_embedding.weight)
    model.fields.table.weight.copy_(torch.cat([e.weight for e in peer.cat_embeddings.embeddings]))
    model.fields.position_bias.copy_(peer.cat_embeddings.bias)
    model.fields.numbers.load_state_dict(peer.cont_embeddings.state_dict())
    for mine, theirs in zip(model.blocks, peer.backbone.blocks, strict=True):
        parts = theirs["attention"]
        for name in ("weight", "bias"):
            joined = [getattr(getattr(parts, k), name) for k in ("W_q", "W_k", "W_v")]
            getattr(mine.attention.qkv, name).copy_(torch.cat(joined))
        mine.attention.out.load_state_dict(parts.W_out.state_dict())
        if "attention_normalization" in theirs:
            mine.norm_attention.load_state_dict(theirs["attention_normalization"].state_dict())
        mine.norm_inner.load_state_dict(theirs["ffn_normalization"].state_dict())
        mine.inner_in.load_state_dict(theirs["ffn"].linear1.state_dict())
        mine.inner_out.load_state_dict(theirs["ffn"].linear2.state_dict())
    model.norm.load_state_dict(peer.backbone.output.normalization.state_dict())
    model.head.load_state_dict(peer.backbone.output.linear.state_dict())


@pytest.fixture
def plain_sizes():
    return Sizes(n_ids=13, n_fields=3, n_numeric=2)


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_logits_and_gradients_equal_rtdl_with_copied_weights(n_blocks, plain_sizes, make_batch):
    batch = make_batch(4, dtype=torch.float64)
    model, peer = make(plain_sizes, n_blocks), make_peer(n_blocks)
    copy_weights(peer, model)
    ours = model(batch)
    theirs = peer(batch["numeric"], batch["categorical"].long() - OFFSETS)[:, 0]
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(model.class_token.grad, peer.cls_embedding.weight.grad)
    table = torch.cat([e.weight.grad for e in peer.cat_embeddings.embeddings])
    torch.testing.assert_close(model.fields.table.weight.grad, table)
    first, last = peer.backbone.blocks[0], peer.backbone.blocks[-1]
    torch.testing.assert_close(
        model.blocks[0].inner_in.weight.grad, first["ffn"].linear1.weight.grad
    )
    torch.testing.assert_close(
        model.blocks[-1].attention.qkv.weight.grad,
        torch.cat([getattr(last["attention"], k).weight.grad for k in ("W_q", "W_k", "W_v")]),
    )


def test_the_first_attention_has_no_norm_and_the_others_do(plain_sizes):
    norms = [type(block.norm_attention).__name__ for block in make(plain_sizes).blocks]
    assert norms == ["Identity", "LayerNorm", "LayerNorm"]


def test_the_last_block_for_the_class_token_alone_gives_what_all_tokens_give(
    plain_sizes, make_batch
):
    batch, model = make_batch(4, dtype=torch.float64), make(plain_sizes)
    x = torch.cat([model.class_token.expand(4, 1, -1), model.fields(batch).tokens], dim=1)
    for block in model.blocks:
        x = block(x)
    torch.testing.assert_close(model.represent(batch), x[:, 0])


def test_dropping_rows_keeps_the_mean_and_whole_slices(generator):
    torch.manual_seed(3)
    x = torch.ones(20_000, 2, 3)
    out = drop_rows(x, 0.25, n_axes=1)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(out.flatten(1).amin(1), out.flatten(1).amax(1))
    # 20,000 draws of spread sqrt(0.25 / 0.75) = 0.58: three times the spread of the mean is 0.012
    assert abs(out.mean().item() - 1) < 0.012


def test_stochastic_depth_grows_with_depth_and_rests_at_evaluation(plain_sizes, make_batch):
    batch = make_batch(4, dtype=torch.float64)
    model = make(plain_sizes, stochastic_depth=0.3, token_dropout=0.5)
    assert [block.skip_rate for block in model.blocks] == pytest.approx([0.1, 0.2, 0.3])
    model.eval()
    torch.testing.assert_close(model(batch), make(plain_sizes).eval()(batch))


def test_a_dropped_token_is_a_zero_token(plain_sizes, make_batch):
    batch, model = make_batch(2, dtype=torch.float64), make(plain_sizes, token_dropout=0.999)
    torch.manual_seed(0)
    with torch.no_grad():
        seen = model(batch)
    assert seen[0] == seen[1]  # both rows lost every feature


def test_mixout_is_unbiased_and_falls_back_to_its_anchor():
    torch.manual_seed(2)
    start = torch.zeros(300, 300)
    mixout = Mixout(start, 0.4)
    weight = torch.ones(300, 300)
    mixed = mixout(weight)
    assert mixed.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    # spread of one draw sqrt(0.4 / 0.6) = 0.82 over 90,000 draws; three of them: 0.008
    assert abs(mixed.mean().item() - 1) < 0.008
    assert torch.equal(mixout.eval()(weight), weight)


def test_mixout_anchors_move_to_the_present_weights_on_request(plain_sizes, make_batch):
    batch, model = make_batch(3, dtype=torch.float64), make(plain_sizes, mixout=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    set_mixout_anchor(model)
    before = model.train()(batch)
    torch.testing.assert_close(before, model.eval()(batch))  # weight equals anchor: nothing to mix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 5}, "d_embedding=16 must be a multiple of n_heads=5"),
        ({"n_blocks": 0}, "n_blocks=0"),
        ({"token_dropout": 1.0}, "token_dropout=1.0: expected 0 or more, less than 1"),
    ],
)
def test_contradicting_options_are_refused(options, message, plain_sizes):
    with pytest.raises(ValueError, match=message):
        make(plain_sizes, **options)
