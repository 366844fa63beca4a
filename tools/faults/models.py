"""Models that are gone, cut off or of another kind, as a person's own model folder may be."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.faults.trial import Expect, Fault, Pair, Trial

__all__ = ["MODEL"]

FOLDER = "own_model"  # below data/raw
WEIGHTS = "*.safetensors"
EXPORT = "sentence_transformer"  # made for other programs: no notebook reads it
FAILED = {"the node": r"✗ \w+: failed", "the cell": r"\.ipynb, cell \d+", "the folder": FOLDER}


def model_inputs(pair: Pair) -> dict[str, Path]:
    """The inputs of a node that hold weights."""
    found = {}
    for name, reference in pair.case.inputs.items():
        node, _, sub = reference.partition("/")
        place = pair.space.result(node).output(sub)
        if any(EXPORT not in path.relative_to(place).parts for path in place.rglob(WEIGHTS)):
            found[name] = place
    return found


def no_model(pair: Pair) -> str:
    return "" if model_inputs(pair) else "reads no model"


@contextmanager
def own_model(pair: Pair, name: str, source: Path | None) -> Iterator[Path]:
    """The profile names ``data/raw/own_model`` for one input, a copy of what it was before."""
    folder = pair.space.root / "data" / "raw" / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if source is not None:
        shutil.copytree(source, folder)

    def change(node: dict[str, Any]) -> None:
        node["inputs"][name] = f"raw:{FOLDER}"

    try:
        with pair.space.changed_profile(pair.node, change):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def gone(pair: Pair) -> Iterator[Trial]:
    """The folder is not there."""
    name = pair.dice.choice(sorted(model_inputs(pair)))
    says = {"the folder": f"data/raw/{FOLDER} is not there",
            "the remedy": r"put it there or try `run_all\.py fetch smoke`"}  # fmt: skip
    with own_model(pair, name, None):
        yield Trial(pair.only(), Expect(3, says))


@contextmanager
def cut(pair: Pair) -> Iterator[Trial]:
    """The file of weights ends in the middle, as after a download that broke off."""
    models = model_inputs(pair)
    name = pair.dice.choice(sorted(models))
    says = FAILED | {"the cause": "(?i)damaged|missing|cut off|incomplete|cannot be read",
                     "the remedy": "(?i)run the node|Train it with|fetch|save the"}  # fmt: skip
    with own_model(pair, name, models[name]) as folder:
        for weights in folder.rglob(WEIGHTS):
            weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        yield Trial(pair.only(), Expect(1, says))


@contextmanager
def another_kind(pair: Pair) -> Iterator[Trial]:
    """The folder holds a model that is no causal language model."""
    models = {n: p for n, p in model_inputs(pair).items() if is_language_model(p)}
    if not models:
        yield Trial((), Expect(0, {}))
        return
    name = pair.dice.choice(sorted(models))
    says = FAILED | {"the cause": r"holds \['BertModel'\]", "what is expected": "expected a causal"}
    with own_model(pair, name, models[name]) as folder:
        path = folder / "config.json"
        config = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(config | {"architectures": ["BertModel"]}), "utf-8")
        yield Trial(pair.only(), Expect(1, says))


def is_language_model(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and "architectures" in json.loads(path.read_text("utf-8"))


MODEL = Fault(
    "missing model", "the folder of a model is gone; its weights are cut in half; a language model "
    "is of another kind", "blocked, exit 3; then failed, exit 1, with folder, cause and remedy",
    (gone, cut, another_kind), no_model,
)  # fmt: skip
