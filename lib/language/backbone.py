"""Load a causal language model from a Hugging Face folder, and decide which way it looks.

Every stage of the project takes a ``Backbone``: a causal LM with its head, its tokenizer, and an
attention mode that is set explicitly and then proven on the model itself: one future token is
changed and the earlier states are looked at.  (Flags alone are not to be trusted: with
``module.is_causal`` only, PyTorch's fused attention is bidirectional without padding and causal
with it.)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from lib.language.attention import FUSED

__all__ = [
    "Attention",
    "Backbone",
    "add_lora",
    "hidden_states",
    "load_backbone",
    "looks_ahead",
    "merge_lora",
    "set_attention",
    "trunk_of",
]

Attention = Literal["causal", "bidirectional"]

# A model may keep spare rows behind its vocabulary (Qwen: 290 of 151,936); more than this share of
# unused rows means that the tokenizer belongs to another model.
MAX_SPARE_ROWS = 0.1


@dataclass(frozen=True)
class Backbone:
    """A causal language model and the tokenizer that belongs to it."""

    model: PreTrainedModel
    tokenizer: Tokenizer

    @property
    def d_hidden(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def eos_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Any id will do for padding, because pads are told by the mask and never by their id."""
        pad = self.tokenizer.pad_token_id
        return int(self.eos_id if pad is None else pad)

    def save(self, folder: Path) -> None:
        """Write an ordinary Hugging Face folder (safetensors)."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_backbone(
    source: str | Path,
    *,
    attention: Attention,
    implementation: Literal["sdpa", "eager"] = "sdpa",
    attention_dropout: float = 0.0,
    revision: str | None = None,
) -> Backbone:
    """Load a causal LM in float32 from a folder or the hub's cache; refuse what does not fit.

    ``attention_dropout`` must be given here: a layer copies it when it is built, and setting the
    config afterwards changes nothing.  float32 because Adam loses small steps in bfloat16 weights.
    """
    source = str(source)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"No language model and tokenizer at {source!r} ({_first_line(error)}). Expected a "
            "Hugging Face folder, or a hub name that was fetched before: "
            "`run_all.py fetch PROFILE`; offline, use the output of 20_pretrain_small_backbone."
        ) from error
    _require_causal_lm(config, source)
    if hasattr(config, "attention_dropout"):
        config.attention_dropout = attention_dropout
    elif attention_dropout:
        raise ValueError(f"{source}: {config.model_type} has no attention_dropout to set to "
                         f"{attention_dropout}; use 0.0 or a Qwen or Llama backbone")  # fmt: skip
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=torch.float32,
            attn_implementation=FUSED if implementation == "sdpa" else implementation,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, SafetensorError) as error:  # absent, other shapes, cut off
        raise ValueError(
            f"{source}: the weights cannot be read ({_first_line(error)}). Expected a whole "
            "*.safetensors of the shapes in config.json; fetch or save the model again."
        ) from error
    missing = sorted(set(loading["missing_keys"]) - set(model._tied_weights_keys or ()))
    if missing:
        raise ValueError(
            f"{source}: the weights do not belong to {type(model).__name__}: missing "
            f"{missing[:5]}. Save the checkpoint together with its own config.json."
        )
    _require_matching_tokenizer(model, tokenizer, source)
    set_attention(model, attention)
    return Backbone(model.eval(), tokenizer)


def set_attention(model: PreTrainedModel, attention: Attention) -> None:
    """Switch a model to causal or bidirectional attention and prove it on the model itself.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=1, num_attention_heads=1, bos_token_id=None, eos_token_id=None))
    >>> set_attention(model, "bidirectional"); looks_ahead(model)
    True
    """
    model.config.is_causal = attention == "causal"
    if looks_ahead(model) != (attention == "bidirectional"):
        raise ValueError(
            f"{type(model).__name__} cannot be made {attention} with "
            f"{model.config._attn_implementation!r} attention. Use a Qwen3, Qwen2, Llama or GPT-2 "
            "backbone with 'sdpa' or 'eager'."
        )


@torch.no_grad()
def looks_ahead(model: PreTrainedModel) -> bool:
    """Whether an earlier state moves when only the last token changes, with and without padding."""
    n_ids = model.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=model.device) % n_ids
    padded = torch.nn.functional.pad(ids, (0, 2))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 2))
    was_training = model.training
    model.eval()
    answers = set()
    for tokens, attention_mask in ((ids, None), (padded, mask)):
        states = hidden_states(model, tokens, attention_mask)[:, :3]
        answers.add(bool((states[0] - states[1]).abs().max() > 1e-6 * states.abs().max()))
    model.train(was_training)
    if len(answers) == 2:
        raise ValueError(f"{type(model).__name__}: attention with and without padding disagree")
    return answers.pop()


def hidden_states(model: nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    """States after the last layer, without the head.  (B, L), (B, L) -> (B, L, D)

    Right padding and a causal mask need no mask at all, but a bidirectional model does.
    """
    if mask is not None and bool(mask.all()):
        mask = None  # the fused kernel is faster without one
    trunk = trunk_of(model)
    return trunk(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state


def trunk_of(model: nn.Module) -> nn.Module:
    """The layers below the head, with adapters in place where there are any."""
    causal_lm = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # type: ignore[operator]
    return causal_lm.base_model  # type: ignore[return-value]


def add_lora(
    model: PreTrainedModel, *, rank: int, alpha: int, dropout: float, targets: Iterable[str] = ()
) -> nn.Module:
    """Freeze the model and put low-rank adapters beside its linear layers (Hu et al. 2021).

    Embeddings and head are refused: where they are tied, as in every small Qwen, a merged adapter
    changes one of them and not the other, and the merged model is not the one that was trained.
    """
    from peft import LoraConfig, get_peft_model

    chosen = sorted(targets)
    forbidden = [name for name in chosen if name in {"embed_tokens", "lm_head", "wte"}]
    if forbidden and model.config.tie_word_embeddings:
        raise ValueError(f"LoRA on {forbidden} of a model whose embeddings are tied would be lost "
                         "in the merge; leave them out of the targets")  # fmt: skip
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none",
        target_modules=chosen or "all-linear", task_type="CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",  # its linear layers are stored transposed
    )  # fmt: skip
    return get_peft_model(model, config)


def merge_lora(model: nn.Module) -> PreTrainedModel:
    """Fold the adapters into the weights, so that the next stage starts from a plain model."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model  # type: ignore[operator,return-value]


def _require_causal_lm(config: object, source: str) -> None:
    names = getattr(config, "architectures", None) or []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise ValueError(
            f"{source} holds {names or 'a model of unknown architecture'}, expected a causal "
            "language model with its head (…ForCausalLM), such as Qwen/Qwen3-0.6B or gpt2"
        )


def _require_matching_tokenizer(model: PreTrainedModel, tokenizer: Tokenizer, source: str) -> None:
    n_rows, n_tokens = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if not (1 - MAX_SPARE_ROWS) * n_rows <= n_tokens <= n_rows:
        raise ValueError(
            f"{source}: the tokenizer has {n_tokens} tokens and the model {n_rows} rows, so they "
            "do not belong together; put the tokenizer files of the same model into the folder"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{source}: the tokenizer has no end-of-sequence token; set eos_token in "
                         "tokenizer_config.json, because titles must be able to end")  # fmt: skip


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200]
