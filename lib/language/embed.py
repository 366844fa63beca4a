"""Titles to vectors: mean pooling over title tokens, length-bucketed, with nothing padded away.

A batch holds texts of one exact length where there are enough of them, up to a budget of tokens:
on a CPU most of the gain over a padded batch of 32 comes from here.
"""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers.pytorch_utils import Conv1D

from lib.language.backbone import Backbone, hidden_states, trunk_of
from lib.language.contrast import mean_pool
from lib.language.tokens import TokenTable, budget_batches, pad_rows

__all__ = ["embed_tokens", "embedding_key", "export_sentence_transformer"]


@torch.no_grad()
def embed_tokens(
    model: nn.Module,
    texts: TokenTable,
    *,
    token_budget: int,
    pad_id: int,
    precision: torch.dtype = torch.float32,
    words: bool = False,
) -> NDArray[np.float32]:
    """Mean-pooled states of every text; one without tokens is the zero vector.  -> (N, D)

    With ``words`` the mean of the tokens as they enter stands in front, both of length 1
    -> (N, 2 D): a small model forgets words on its way up, and the items lose what they told.
    """
    was_training = model.training
    model.eval()
    reader = model if precision == torch.float32 else narrow_copy(model, precision)
    device = next(model.parameters()).device
    entry = model.get_input_embeddings()  # type: ignore[operator]
    width = int(model.config.hidden_size) * (1 + words)  # type: ignore[union-attr,arg-type]
    vectors = np.zeros((len(texts), width), dtype=np.float32)
    lengths = texts.lengths
    for rows in budget_batches(lengths, token_budget):
        rows = rows[lengths[rows] > 0]
        if not len(rows):
            continue
        ids, mask = (part.to(device) for part in pad_rows([texts[row] for row in rows], pad_id))
        with torch.autocast(device.type, dtype=precision, enabled=reader is not model):
            states = hidden_states(reader, ids, mask)
        pooled = mean_pool(states.float(), mask)
        if words:
            halves = mean_pool(entry(ids).float(), mask), pooled
            pooled = torch.cat([nn.functional.normalize(half) for half in halves], dim=1)
        vectors[rows] = pooled.cpu().numpy()
    model.train(was_training)
    return vectors


def narrow_copy(model: nn.Module, precision: torch.dtype) -> nn.Module:
    """The same layers with the weights of their products held in ``precision``; the rest is shared.

    Under autocast only the products are narrow, and the sum that runs through all layers keeps
    its digits; autocast alone would round every weight again for each batch.
    """
    products = (part for part in trunk_of(model).modules() if isinstance(part, nn.Linear | Conv1D))
    narrow = {id(part.weight): nn.Parameter(part.weight.to(precision), requires_grad=False)
              for part in products}  # fmt: skip
    shared = {id(weight): weight for weight in model.parameters()}
    return copy.deepcopy(model, shared | narrow)


def embedding_key(model: nn.Module, texts: TokenTable, attention: str, words: bool = False) -> str:
    """A name for exactly these vectors: weights, titles and what is read of them."""
    digest = hashlib.sha256(f"{attention} words={words}".encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(texts.offsets.tobytes())
    digest.update(texts.ids.tobytes())
    return digest.hexdigest()[:16]


def export_sentence_transformer(backbone: Backbone, folder: Path, *, max_tokens: int) -> None:
    """Write a folder that ``SentenceTransformer(folder)`` loads and that gives the same vectors.

    The chat template is left out: sentence-transformers would wrap every title into it.
    The trunk is saved with its attention mode, which ``is_causal`` in config.json carries.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    plain = folder / "plain"
    backbone.model.base_model.save_pretrained(plain)
    template, backbone.tokenizer.chat_template = backbone.tokenizer.chat_template, None
    try:
        backbone.tokenizer.save_pretrained(plain)
    finally:
        backbone.tokenizer.chat_template = template
    trunk = Transformer(str(plain), max_seq_length=max_tokens)
    pooling = Pooling(backbone.d_hidden, pooling_mode="mean")
    SentenceTransformer(modules=[trunk, pooling], device="cpu").save(str(folder))
    for file in sorted(plain.iterdir()):
        file.unlink()
    plain.rmdir()
