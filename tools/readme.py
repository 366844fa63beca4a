"""The parts of README.md that are made from other files: the answer, the map and the results.

    python tools/readme.py            # write them
    python tools/readme.py --check    # say whether they are up to date; changes nothing

The map comes from ``params/demo.yaml``, the figures of the answer and the results from
``docs/results/*.json`` as ``tools/keep_results.py`` leaves them. Each part stands between
``<!-- made: NAME -->`` and ``<!-- end -->``; a test compares.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.data.files import write_atomic  # noqa: E402
from lib.pipeline.profile import Home, load_profile  # noqa: E402
from tools.answer import answer  # noqa: E402

SYSTEMS = {  # by the first digit of a notebook's number
    "0": "the world", "1": "data", "2": "LLM2Rec", "3": "soft tokens", "4": "LLM-CTR",
    "5": "the ladder", "6": "DARE + QNN-α", "9": "the whole",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One figure of a notebook that the README tells: the best row of one metric."""

    system: str
    notebook: str
    metric: str
    title: str
    cheap: str = ""  # pattern of the rows that it must beat
    suffix: str = ""  # of the rows that compete
    left_out: str = ""  # pattern of the rows that stand for themselves, on the page
    ceiling: str = "ceiling"  # the row of the true probabilities


COUNTED = "popularity.*|Markov.*|item-kNN.*"
SHOWN = (
    Shown(system="counting", notebook="13_measure_baselines", metric="ndcg@10",
          title="NDCG@10"),
    Shown(system="LLM2Rec", notebook="25_evaluate_sasrec", metric="ndcg@10", title="NDCG@10",
          cheap=rf"{COUNTED}|tfidf(\+id)?|id|shuffled.*", left_out=".*&item-kNN"),
    Shown(system="soft tokens", notebook="31_evaluate_soft_tokens", metric="ndcg@10",
          title="NDCG@10", cheap=f"{COUNTED}|sasrec.*|bpr-mf|fpmc"),
    Shown(system="LLM-CTR", notebook="43_compare_on_x4", metric="auc", title="AUC",
          cheap="baseline|random projector"),
    Shown(system="the ladder: DCNv2", notebook="51_train_dcnv2", metric="auc",
          title="AUC, hold-out", suffix=", hold-out"),
    Shown(system="the ladder: xDeepFM, DeepFM", notebook="53_train_xdeepfm", metric="auc",
          title="AUC, hold-out", suffix=", hold-out"),
    Shown(system="the ladder, whole", notebook="59_climb_the_ladder", metric="score",
          title="Score, hold-out", cheap="GBDT.*|DART.*", suffix=", hold-out"),
    Shown(system="DARE + QNN-α", notebook="60_train_dare_qnn", metric="auc",
          title="AUC, hold-out", suffix=", hold-out"),
)  # fmt: skip


def draw_map(home: Home) -> str:
    """The notebooks of the demo and what each reads, as mermaid; ways through others left out.

    Notebooks are the boxes, one frame per system; an arrow means "reads what it made".
    """
    nodes = load_profile(home, "demo").nodes
    uses: dict[str, set[str]] = {node.notebook: set() for node in nodes.values()}
    for node in nodes.values():
        uses[node.notebook] |= {nodes[need].notebook for need in node.needs} - {node.notebook}
    lines = ["```mermaid", "flowchart LR"]
    for digit, system in SYSTEMS.items():
        members = sorted(name for name in uses if name[0] == digit)
        if members:
            lines.append(f'  subgraph s{digit}["{system}"]')
            lines += [f'    n{name[:2]}["{name.replace("_", " ")}"]' for name in members]
            lines.append("  end")
    for name in sorted(uses):
        lines += [f"  n{need[:2]} --> n{name[:2]}" for need in sorted(direct(name, uses))]
    return "\n".join([*lines, "```"])


def direct(name: str, uses: Mapping[str, set[str]]) -> set[str]:
    """What a notebook reads and no other of its inputs has read already.

    >>> sorted(direct("c", {"a": set(), "b": {"a"}, "c": {"a", "b"}}))
    ['b']
    """

    def behind(start: str) -> set[str]:
        found, queue = set[str](), list(uses[start])
        while queue:
            each = queue.pop()
            if each not in found:
                found.add(each)
                queue.extend(uses[each])
        return found

    return {need for need in uses[name] if all(need not in behind(o) for o in uses[name] - {need})}


def real_profiles(home: Home) -> dict[str, set[str]]:
    """The profiles on data from elsewhere, and the notebooks each runs."""
    names = sorted(path.stem for path in (home.root / "params").glob("*.yaml"))
    profiles = [load_profile(home, name) for name in names]
    return {profile.name: {node.notebook for node in profile.nodes.values()}
            for profile in profiles if profile.fetch or profile.manual}  # fmt: skip


def results_table(home: Home) -> str:
    """One line per system and data: the best row's figure, or that it was not run."""
    kept = [json.loads(path.read_text("utf-8")) | {"file": path.name}
            for path in sorted((home.root / "docs" / "results").glob("*.json"))]  # fmt: skip
    lines = ["| system | data | measure | best row | best cheap row | ceiling | from |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    real, absent = real_profiles(home), []
    for shown in SHOWN:
        missing = []
        for profile in ("demo", *(name for name in real if shown.notebook in real[name])):
            found = [line for each in kept if (line := result_line(shown, profile, each))]
            lines += found
            missing += [] if found else [profile]
        if missing:
            absent.append(f"| {shown.system} | {', '.join(missing)} | {shown.title} "
                          "| *not run, or not kept* | | | |")  # fmt: skip
    return "\n".join(lines + absent)


def result_line(shown: Shown, profile: str, kept: Mapping[str, Any]) -> str:
    """The line of one file for one notebook on one profile; empty where it has none."""
    command = re.search(r"run_all\.py ([\w-]+)", str(kept.get("command", "")))
    if command is None or command[1] != profile:
        return ""
    nodes = kept.get("nodes", {}).values()
    tables = [node["metrics"] for node in nodes if node["notebook"] == shown.notebook]
    rows = {name: values[shown.metric] for table in tables for name, values in table.items()
            if shown.metric in values and name.endswith(shown.suffix)
            and not re.fullmatch(shown.left_out, name)}  # fmt: skip
    cheap = {name for name in rows if re.fullmatch(shown.cheap, name.removesuffix(shown.suffix))}
    models = {name for name in rows if "ceiling" not in name.lower()} - cheap
    if not models:
        return ""
    ceiling = rows.get(shown.ceiling)
    data = "demo (simulated)" if profile == "demo" else profile
    return (
        f"| {shown.system} | {data} | {shown.title} | {best_of(models, rows, shown)} | "
        f"{best_of(cheap, rows, shown)} | {numbers(ceiling[:1]) if ceiling else '–'} | "
        f"[{kept['file'].removesuffix('.json')}](docs/results/{kept['file']}) |"
    )


def best_of(names: set[str], rows: Mapping[str, list[float]], shown: Shown) -> str:
    """The best of these rows with its figure; a dash where there is none."""
    best = max(sorted(names), key=lambda name: rows[name][0], default="")
    name = best.removesuffix(shown.suffix).replace("|", r"\|")
    return f"{name} {numbers(rows[best])}" if best else "–"


def numbers(value: list[float]) -> str:
    """
    >>> numbers([0.98424, 0.98273, 0.98575]), numbers([0.5])
    ('.9842 [.9827, .9858]', '.5000')
    """
    told = [f"{number:.4f}".replace("0.", ".", 1) for number in value]
    return told[0] if len(told) == 1 else f"{told[0]} [{told[1]}, {told[2]}]"


def fill(text: str, parts: Mapping[str, str], *, page: str = "README.md") -> str:
    """The text with each marked part replaced.

    >>> fill("<!-- made: x -->\\nold\\n<!-- end -->", {"x": "new"})
    '<!-- made: x -->\\nnew\\n<!-- end -->'
    """
    for name, made in parts.items():
        start = f"<!-- made: {name} -->\n"
        pattern = re.compile(rf"{start}(?:(?!<!-- end).)*<!-- end -->", re.DOTALL)
        new = f"{start}{made}\n<!-- end -->"
        count = len(pattern.findall(text))
        text = pattern.sub(new.replace("\\", r"\\"), text)
        if count != 1:
            raise SystemExit(f"{page} has {count} parts `made: {name}`, expected one")
    return text


def up_to_date(text: str) -> str:
    home = Home(ROOT)
    parts = {"answer": answer(home.root), "map": draw_map(home), "results": results_table(home)}
    return fill(text, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    made = up_to_date(text)
    if options.check:
        sys.exit(
            "README.md is older than its sources: python tools/readme.py" if made != text else 0
        )
    write_atomic(readme, made.encode())


if __name__ == "__main__":
    main()
