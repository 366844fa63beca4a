"""Small real models of four families, with random weights."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from lib.language.attention import FUSED
from lib.language.tokens import train_tokenizer

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
TEXTS = ["red kettle", "descaler for kettles", "blue mug", "tea, green", "a book about tea", "mug"]


def make_model(family: str, n_tokens: int = 300, implementation: str = FUSED) -> PreTrainedModel:
    torch.manual_seed(3)
    config = {
        "qwen3": lambda: Qwen3Config(vocab_size=n_tokens, head_dim=8, **SHAPE),
        "qwen2": lambda: Qwen2Config(vocab_size=n_tokens, **SHAPE),
        "llama": lambda: LlamaConfig(vocab_size=n_tokens, **SHAPE),
        "gpt2": lambda: GPT2Config(
            vocab_size=n_tokens, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
        ),
    }[family]()
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()


FAMILIES = ["qwen3", "qwen2", "llama", "gpt2"]


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS * 20, n_tokens=300)
