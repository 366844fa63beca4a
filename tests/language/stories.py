"""A real trained Llama of 264,128 weights, read from llama2.c's binary layout.

Header of seven int32, then float32 arrays layer by layer of each kind.  llama2.c rotates
neighbouring pairs and Hugging Face rotates halves, so the query and key rows are re-ordered.
"""

import struct
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

BOS = 1


def load_stories(folder: Path) -> LlamaForCausalLM:
    raw = (folder / "stories260K.bin").read_bytes()
    dim, inner, layers, heads, kv_heads, vocab, length = struct.unpack("7i", raw[:28])
    stream = torch.from_numpy(np.frombuffer(raw, dtype=np.float32, offset=28).copy())
    place = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal place
        size = int(np.prod(shape))
        place += size
        return stream[place - size : place].view(*shape)

    def halves(weight: torch.Tensor, n: int) -> torch.Tensor:
        return weight.view(n, -1, 2, dim).transpose(1, 2).reshape(-1, dim)

    head = dim // heads
    table = take(vocab, dim)
    parts = {
        "input_layernorm": take(layers, dim),
        "self_attn.q_proj": take(layers, dim, dim),
        "self_attn.k_proj": take(layers, kv_heads * head, dim),
        "self_attn.v_proj": take(layers, kv_heads * head, dim),
        "self_attn.o_proj": take(layers, dim, dim),
        "post_attention_layernorm": take(layers, dim),
        "mlp.gate_proj": take(layers, inner, dim),
        "mlp.down_proj": take(layers, dim, inner),
        "mlp.up_proj": take(layers, inner, dim),
    }
    state = {
        "model.embed_tokens.weight": table,
        "lm_head.weight": table,
        "model.norm.weight": take(dim),
    }
    for name, weights in parts.items():
        for layer, weight in enumerate(weights):
            if "q_proj" in name or "k_proj" in name:
                weight = halves(weight, heads if "q_proj" in name else kv_heads)
            state[f"model.layers.{layer}.{name}.weight"] = weight
    config = LlamaConfig(vocab_size=vocab, hidden_size=dim, intermediate_size=inner, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=length,
                         rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=BOS, eos_token_id=2)  # fmt: skip
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


def load_pieces(folder: Path) -> list[str]:
    """The tokenizer's pieces by id."""
    raw = (folder / "tok512.bin").read_bytes()
    place, pieces = 4, []
    while place < len(raw):
        (size,) = struct.unpack("i", raw[place + 4 : place + 8])
        pieces.append(raw[place + 8 : place + 8 + size].decode("utf8", errors="replace"))
        place += 8 + size
    return pieces
