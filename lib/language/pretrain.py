"""A small Qwen3-architecture language model for worlds without a network.

It learns the texts at hand in minutes on a CPU and is saved as an ordinary Hugging Face folder, so
that nothing after it can tell it from ``Qwen/Qwen3-0.6B`` but its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast as Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from lib.language.attention import FUSED
from lib.language.backbone import hidden_states
from lib.language.tokens import TokenTable

__all__ = ["Criterion", "SmallSize", "build_small_model", "language_loss", "pack_blocks"]


class Criterion(Protocol):
    """Cross-entropy of states against rows of a table: (N, D), (V, D), (N,) -> ()"""

    def __call__(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallSize:
    """The shape of the embedded backbone; head size times heads may differ from the width."""

    d_hidden: int
    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_inner: int
    max_positions: int

    def __post_init__(self) -> None:
        if self.n_heads % self.n_key_value_heads:
            raise ValueError(
                f"n_heads={self.n_heads} must be a multiple of "
                f"n_key_value_heads={self.n_key_value_heads}: each of those serves equally many"
            )


def build_small_model(
    size: SmallSize, tokenizer: Tokenizer, generator: torch.Generator
) -> Qwen3ForCausalLM:
    """A Qwen3 with tied embeddings and fresh weights drawn from ``generator``."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.d_hidden,
        num_hidden_layers=size.n_layers,
        num_attention_heads=size.n_heads,
        num_key_value_heads=size.n_key_value_heads,
        head_dim=size.d_head,
        intermediate_size=size.d_inner,
        max_position_embeddings=size.max_positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=FUSED,
    )
    model = Qwen3ForCausalLM(config)
    for weight in model.parameters():
        if weight.dim() > 1:  # norms keep their ones
            nn.init.normal_(weight, std=config.initializer_range, generator=generator)
    return model


def pack_blocks(
    tokens: TokenTable, *, block: int, eos_id: int, generator: np.random.Generator
) -> NDArray[np.int32]:
    """Texts in random order, joined by the end token and cut into equal blocks.  -> (N, block)

    The tail that fills no block is dropped; short corpora are repeated until they fill one.

    >>> table = TokenTable.from_rows([[1, 2], [3]])
    >>> pack_blocks(table, block=5, eos_id=0, generator=np.random.default_rng(0)).shape
    (1, 5)
    """
    if not len(tokens.ids):
        raise ValueError("the corpus holds no token at all; expected texts to learn from")
    order = generator.permutation(len(tokens))
    end = np.array([eos_id], dtype=np.int32)
    stream = np.concatenate([part for row in order for part in (tokens[row], end)])
    if len(stream) < block:
        stream = np.tile(stream, -(-block // len(stream)))
    n_blocks = len(stream) // block
    return np.ascontiguousarray(stream[: n_blocks * block].reshape(n_blocks, block))


def language_loss(model: nn.Module, batch: dict[str, Tensor], *, criterion: Criterion) -> Tensor:
    """Mean of -log p(next token) over full blocks of tokens, batch["ids"] (B, L).  -> ()"""
    ids = batch["ids"].long()
    states = hidden_states(model, ids[:, :-1], None)
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    return criterion(states.flatten(0, 1), head, ids[:, 1:].flatten())


def review_corpus(titles: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Titles and review texts that say something, each once.

    >>> review_corpus(["Kettle", ""], ["Good", "Kettle"])
    ['Kettle', 'Good']
    """
    return list(dict.fromkeys(text for text in (*titles, *texts) if text.strip()))
