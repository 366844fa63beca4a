"""Every command of the documentation runs: a page is followed from top to bottom in a copy.

``bash`` and ``python`` blocks run, ``diff`` blocks are applied, ``yaml`` blocks are saved where
their first line says (``# params/NAME.yaml``) or else checked as nodes. What cannot run here is
listed below, with its reason; a block that is skipped or replaced is still read for its options.
"""

import re
import shlex
import textwrap
from collections import Counter
from pathlib import Path
from typing import cast

import pytest

from lib.pipeline import WrongUse
from lib.pipeline.profile import Home, build_node, read_yaml
from lib.pipeline.schema import check_parameters, parse_schema, read_notebook
from tests.docs.conftest import say
from tests.docs.pages import ROOT, Block, blocks_of, documentation, read_blocks

PAGES = [page for page in documentation() if page.suffix == ".md"]
EXCEPTIONS = {  # all of them, in one place: page, reason -> blocks
    ("docs/how-to/on-a-gpu.md", "it downloads gigabytes"): 1,
    (
        "docs/how-to/cluster.md",
        "it needs a Dask cluster; tests/pipeline/test_dask.py starts one",
    ): 2,
    ("docs/how-to/cluster.md", "it needs a SLURM cluster and dask-jobqueue"): 1,
    ("docs/how-to/cluster.md", "it needs a Kubernetes cluster and dask-kubernetes"): 1,
}
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]{2,}\Z")
COMMANDS = {"run-one", "doctor", "status", "diff", "gc", "fetch", "init"}


def test_what_is_not_run_is_listed_here() -> None:
    skipped = Counter(
        (block.page, block.skip) for page in PAGES for block in blocks_of(page) if block.skip
    )
    assert dict(skipped) == EXCEPTIONS


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.timeout(1800)
def test_a_page_can_be_followed(page: Path, request: pytest.FixtureRequest) -> None:
    blocks = [block for block in blocks_of(page) if block.language in DO]
    if blocks:
        follow(blocks, request.getfixturevalue("tree"))


def follow(blocks: list[Block], tree: Path) -> None:
    """Do what the blocks say, one after another."""
    for block in blocks:
        if block.skip or block.instead:
            read_only(block, tree)
        if not block.skip:
            DO[block.language](block, tree)


def run_shell(block: Block, tree: Path) -> None:
    must(say(tree, f"{block.first}\n{block.instead or block.body}"), block)


def run_python(block: Block, tree: Path) -> None:
    script = tree / "block_of_a_page.py"
    script.write_text(f"{block.first}\n{block.instead or block.body}", "utf-8")
    must(say(tree, f"PYTHONPATH=. .venv/bin/python {script.name}"), block)


def apply_diff(block: Block, tree: Path) -> None:
    (tree / "block.diff").write_text(block.body, "utf-8")
    must(
        say(tree, "patch -p1 --fuzz=2 --no-backup-if-mismatch <block.diff && rm block.diff"), block
    )


def place_yaml(block: Block, tree: Path) -> None:
    if found := re.match(r"# (params/\w+\.yaml)\n", block.body):
        (tree / found[1]).write_text(block.body, "utf-8")
        must(say(tree, f".venv/bin/python run_all.py {Path(found[1]).stem} --explain"), block, 3)
        return
    nodes, lines = read_yaml(textwrap.dedent(block.body), block.place)
    assert isinstance(nodes, dict), f"{block.place}: no nodes"
    if "nodes" in nodes:
        nodes = cast("dict[str, object]", nodes["nodes"])
    else:
        lines = {("nodes", *path): line for path, line in lines.items()}
    for name, spec in nodes.items():
        node = build_node(name, spec, lines, block.place)
        notebook = read_notebook(Home(ROOT).notebook(node.notebook))
        schema = parse_schema(notebook, node.notebook)
        check_parameters(schema, node.params, lambda name: f"{block.place}: {name}")


def read_only(block: Block, tree: Path) -> None:
    """What is not run must at least exist: profile, options, make target; Python must compile."""
    if block.language == "python":
        compile(block.body, block.place, "exec")
    if block.language != "bash":
        return
    for line in block.body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or any(PLACEHOLDER.match(word) for word in words):
            continue
        if words[0] == "make":
            must(say(tree, shlex.join(["make", "-n", *words[1:]])), block)
        elif "run_all.py" in words:
            after = words[words.index("run_all.py") + 1 :]
            if after and after[0] in COMMANDS:
                options_exist([*words[: words.index(after[0]) + 1]], after, block, tree)
            else:
                must(say(tree, shlex.join([*words, "--explain"])), block, 3)
        elif any(word.endswith(".py") for word in words):
            script = next(n for n, word in enumerate(words) if word.endswith(".py"))
            options_exist(words[: script + 1], words[script + 1 :], block, tree)


def options_exist(command: list[str], words: list[str], block: Block, tree: Path) -> None:
    told = must(say(tree, shlex.join([*command, "--help"])), block)
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in told, f"{block.place}: {command[-1]} knows no {word}"


def must(ran, block: Block, *allowed: int) -> str:
    """The output of a command that ended well; else the page, the line and what was said."""
    if ran.returncode not in {0, *allowed}:
        pytest.fail(
            f"{block.place} no longer works (exit {ran.returncode}):\n"
            f"{block.instead or block.body}\n{ran.stdout[-1500:]}\n{ran.stderr[-1500:]}",
            pytrace=False,
        )
    return str(ran.stdout)


DO = {"bash": run_shell, "python": run_python, "diff": apply_diff, "yaml": place_yaml}

BROKEN = {
    "a command": "```bash\n.venv/bin/python run_all.py smoke --expain\n```\n",
    "the second of two lines": "```bash\nfalse\ntrue\n```\n",
    "a profile that is gone": "<!-- test: as true -->\n```bash\n.venv/bin/python run_all.py dem\n```\n",
    "an option that is gone": "<!-- test: skip because long -->\n```bash\n.venv/bin/python tools/keep_results.py demo --oot x\n```\n",
    "a make target": "<!-- test: as true -->\n```bash\nmake report\n```\n",
    "an import": "```python\nfrom lib.data.clicks import Click\n```\n",
    "a parameter": "```yaml\nx:\n  notebook: 51_train_dcnv2\n  params: {dropuot: 0.1}\n```\n",
    "a diff": "```diff\n--- a/Makefile\n+++ b/Makefile\n@@ -1 +1 @@\n-no such line\n+x\n```\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_a_page_that_no_longer_works_is_found(what: str, tree: Path) -> None:
    blocks = list(read_blocks(BROKEN[what], "broken.md"))
    assert len(blocks) == 1
    with pytest.raises((pytest.fail.Exception, AssertionError, WrongUse), match=r"broken\.md"):
        follow(blocks, tree)


def test_a_wrong_comment_is_refused() -> None:
    with pytest.raises(ValueError, match="skip because"):
        list(read_blocks("<!-- test: ignore -->\n```bash\ntrue\n```\n", "x.md"))


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"
