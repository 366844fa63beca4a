"""The page that maps the published configuration names every key, and only parameters that exist."""

import re
from pathlib import Path

from lib.models.dare_config import DAREConfig
from lib.models.ladder import HEADS, _names
from lib.pipeline.schema import parse_schema, read_notebook
from lib.train.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "published-configuration.md").read_text(encoding="utf-8")
NOTEBOOKS = {"12": "12_prepare_clicklog", "60": "60_train_dare_qnn", "61": "61_infer_and_submit",
             "62": "62_blend_submissions"}  # fmt: skip
KEYS = [
    "exp_name",
    "seed",
    "device",
    "deterministic",
    "amp",
    "use_compile",
    "train_path",
    "test_path",
    "cache_dir",
    "use_cache",
    "chunked_build",
    "shard_rows",
    "add_isna_mask",
    "impute_strategy",
    "cat_cols",
    "num_cols_explicit",
    "num_patterns",
    "hash_buckets",
    "hash_buckets_margin",
    "manifest_train",
    "manifest_test",
    "sequence.col",
    "sequence.max_len",
    "sequence.pad_id",
    "sequence.top_k",
    "sequence.recency_tau",
    "sequence.query_mode",
    "sequence.query_key",
    "sequence.transformer_block",
    "tfm.n_layers",
    "tfm.n_heads",
    "tfm.dropout",
    "tfm.ffn_hidden",
    "model.emb_dim",
    "model.dare_dropout",
    "model.cat_embedding_dims",
    "qnn_alpha.feature_embed_dim",
    "qnn_alpha.heads",
    "qnn_alpha.rank",
    "qnn_alpha.proj_dim",
    "qnn_alpha.mlp_hidden",
    "qnn_alpha.dropout",
    "qnn_alpha.use_se",
    "qnn_alpha.se_reduction",
    "qnn_alpha.use_residual",
    "qnn_alpha.norm",
    "qnn_alpha.pair_grouping",
    "qnn_alpha.aux_head_weight",
    "train.batch_size",
    "train.epochs",
    "train.lr",
    "train.weight_decay",
    "train.warmup_epochs",
    "train.grad_clip_norm",
    "train.early_stop_patience",
    "cv.n_splits",
    "cv.group_key",
    "cv.stratify_target",
    "cv.time_key",
    "cv.composite_group",
    "calibration.enabled",
    "calibration.method",
    "calibration.lr",
    "calibration.iters",
    "logging.log_dir",
    "logging.tb",
    "logging.csv_log",
    "logging.verbose_steps",
    "ensemble.method",
    "ensemble.trim_ratio",
    "ensemble.weights",
    "ensemble.val_weight_temperature",
    "sampler.type",
    "sampler.pos_fraction",
    "ema.enabled",
    "ema.decay",
    "ema.eval_with_ema",
    "features.covis",
]
INSIDE = {
    "training": _names(Plan),
    "encoder": _names(DAREConfig),
    "transformer": _names(DAREConfig),
    "head": {"kind"}.union(*map(_names, HEADS.values())),
    "auxiliary": {"hidden", "weight"},
    "hashing": {"buckets", "margin", "salt"},
}


def lines():
    return re.findall(r"^\| `([\w.]+)` \| (.+?) \| (.*?) ?\|$", PAGE, flags=re.M)


def test_every_key_of_the_published_configuration_has_its_line_once():
    assert sorted(key for key, *_ in lines()) == sorted(KEYS)


def test_every_parameter_named_exists_in_its_notebook_and_a_key_without_one_has_a_reason():
    schemas = {
        number: parse_schema(read_notebook(ROOT / "notebooks" / f"{name}.ipynb"), name)
        for number, name in NOTEBOOKS.items()
    }
    for key, ours, remark in lines():
        named = re.findall(r"`([^`]+)` \[(\d\d)\]", ours)
        if not named:
            assert remark, f"{key} has neither a parameter nor a reason"
        for parameter, number in named:
            if parameter == "raw":
                continue
            name, _, inside = parameter.partition(":")
            assert name in schemas[number], f"{key}: {name} is no parameter of {number}"
            for part in re.findall(r"(\w+):", inside):
                known = INSIDE.get(name)
                assert known is None or part in known, f"{key}: {name} has no {part}"
