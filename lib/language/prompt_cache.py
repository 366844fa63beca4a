"""One prompt, many rows: compute the prompt's keys and values once and attend to them.

With causal attention the prompt's states do not depend on what follows, so for a frozen model in
``eval`` they are constants, and reading them is exact, gradients of the soft tokens included:

    naive    [prompt, soft_1 … soft_S] for every row, all layers, the full head
    here     [soft_1 … soft_S] for every row, attending to one stored prompt

The stored layer is read-only.  transformers' own cache would grow by each batch, and the second
batch would silently attend to the first one's soft tokens.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from lib.language.attention import FUSED
from lib.language.backbone import trunk_of

__all__ = ["ReadOnlyLayer", "allow_checkpointing", "continue_from", "encode_prompt"]


class ReadOnlyLayer(DynamicLayer):
    """Keys and values of one prompt; every batch sees them in front of its own, none is stored.

    ``shared``: the model's attention asks the prompt itself, once for all rows; else the prompt is
    copied in front of every row.
    """

    def __init__(self, keys: Tensor, values: Tensor, *, shared: bool = False) -> None:
        super().__init__()
        self.keys, self.values = keys, values  # (1, H, P, D/H)
        self.shared, self.asked = shared, False
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if self.shared:
            self.asked = False
            key_states.prompt = self  # type: ignore[attr-defined]
            return key_states, value_states
        n_rows = key_states.shape[0]
        # .to: under autocast the rows may be shorter floats than the stored prompt
        keys = self.keys.expand(n_rows, -1, -1, -1).to(key_states.dtype)
        values = self.values.expand(n_rows, -1, -1, -1).to(value_states.dtype)
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def encode_prompt(model: nn.Module, prompt: Sequence[int]) -> Cache:
    """Keys and values of the prompt; call again after every update if the model is being tuned.

    Without a trainable weight nothing is recorded for backward.
    """
    if not prompt:
        raise ValueError("the prompt has no tokens; expected some text in front of the soft tokens")
    trunk = trunk_of(model)
    _require_plain_causal(trunk)
    is_tuned = any(weight.requires_grad for weight in trunk.parameters())
    ids = torch.tensor([list(prompt)], device=next(trunk.parameters()).device)
    growing = DynamicCache(config=trunk.config)
    with torch.set_grad_enabled(is_tuned and torch.is_grad_enabled()):
        trunk(input_ids=ids, past_key_values=growing, use_cache=True)
    shared = trunk.config._attn_implementation == FUSED  # type: ignore[union-attr]
    return Cache(layers=[ReadOnlyLayer(layer.keys, layer.values, shared=shared)
                         for layer in growing.layers])  # fmt: skip


def continue_from(
    model: nn.Module, cache: Cache, soft: Tensor, mask: Tensor | None = None
) -> Tensor:
    """States of the soft tokens behind the prompt.  (B, S, D), (B, S) -> (B, S, D)

    The mask, right-padded, is extended over the prompt: one of length S alone would be accepted
    by the model and be wrong.
    """
    if mask is not None:
        n_prompt = cache.get_seq_length()
        mask = None if bool(mask.all()) else nn.functional.pad(mask, (n_prompt, 0), value=1)
    states: Tensor = trunk_of(model)(
        inputs_embeds=soft, attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state
    if any(layer.shared and not layer.asked for layer in cache.layers):  # type: ignore[attr-defined]
        raise ValueError(
            f"{type(model).__name__} does not hand the stored prompt to its attention; load it "
            "with another attention (sdpa), which copies the prompt"
        )
    return states


def allow_checkpointing(model: PreTrainedModel, prompt: Sequence[int]) -> None:
    """Trade a second forward pass for memory, where the family keeps the prompt while doing so.

    Some families drop the cache under gradient checkpointing, silently when S = 1.  So it is
    tried: states with and without must agree, or checkpointing is refused.
    """
    trunk = trunk_of(model)
    width = trunk.get_input_embeddings().weight.shape[1]  # type: ignore[operator,union-attr]
    soft = torch.linspace(-1, 1, width, device=model.device)[None, None].requires_grad_()
    cache = encode_prompt(model, prompt)
    expected = continue_from(model.eval(), cache, soft)
    for module in trunk.modules():
        if hasattr(type(module), "_can_checkpoint_with_cache"):
            module._can_checkpoint_with_cache = True  # type: ignore[assignment]  # our layers only read, so a replay is exact
    _checkpointing(model, "enable")({"use_reentrant": False})
    model.train()  # transformers checkpoints in training mode alone
    found = continue_from(model, cache, soft)
    if not torch.allclose(found, expected, atol=1e-5):
        _checkpointing(model, "disable")()
        model.eval()
        raise ValueError(
            f"{type(model).__name__} loses the stored prompt, or applies dropout, under gradient "
            "checkpointing; switch checkpointing off or use a Qwen3, Qwen2 or Llama backbone"
        )


def _checkpointing(model: PreTrainedModel, what: str) -> Callable[..., None]:
    # transformers 5.23 renamed "gradient" to "activation" and warns about the name of before
    return getattr(model, f"activation_checkpointing_{what}", None) or getattr(
        model, f"gradient_checkpointing_{what}"
    )


def _require_plain_causal(trunk: nn.Module) -> None:
    config = trunk.config
    if getattr(config, "is_causal", True) is False:
        raise ValueError("a prompt can be reused only under causal attention; load the backbone "
                         "with attention='causal'")  # fmt: skip
    if trunk.training and any(isinstance(m, nn.Dropout) and m.p > 0 for m in trunk.modules()):
        raise ValueError("the language model is in training mode and has dropout, so its prompt is "
                         "not a constant; call .eval() on it after every .train()")  # fmt: skip
