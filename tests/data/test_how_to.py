"""The how-to page says what is true: its profile is valid, and its example runs."""

import re
from pathlib import Path

import yaml

from lib.data.filters import Filters, filter_interactions
from lib.data.histories import Histories
from lib.data.prepare import PATTERNS, build_histories, judge_items, read_raw
from lib.pipeline.profile import Home, load_profile
from lib.pipeline.schema import check_parameters, parse_schema, read_notebook

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "your-own-sequences.md").read_text(encoding="utf-8")
(PROFILE,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)


def test_the_profile_of_the_page_is_valid(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "shop.yaml").write_text(PROFILE)
    for node in load_profile(Home(tmp_path), "shop").nodes.values():
        schema = parse_schema(
            read_notebook(ROOT / "notebooks" / f"{node.notebook}.ipynb"), node.notebook
        )
        check_parameters(schema, node.params, lambda name: name)


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    rows = [
        f"u{u}\tp{(u + n) % 7}\t{1_400_000_000 + 1000 * n + u}" for u in range(8) for n in range(7)
    ]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (tmp_path / "purchases.inter").write_text("\n".join([header, *rows]) + "\n")
    titles = [f"p{n}\tProduct {n}" for n in range(7)]
    (tmp_path / "products.item").write_text("\n".join(["item_id\ttitle", *titles]) + "\n")
    params = yaml.safe_load(PROFILE)["nodes"]["histories"]["params"]
    raw = read_raw(tmp_path, params["source"], columns=params["columns"])
    raw, judged = judge_items(raw, "full", 20)
    filters = Filters(
        min_rating=0.0, repeats="keep", user_core=params["user_core"],
        item_core=params["item_core"], start="", end="", min_items=0,
    )  # fmt: skip
    kept, _ = filter_interactions(raw.rows, filters, judged.usable)
    build_histories(tmp_path / "h", kept, raw.items, split=params["split"], made={})
    histories = Histories.open(tmp_path / "h")
    assert (histories.n_users, histories.n_items) == (8, 7)
    assert histories.titles[1] == "Product 0"
    test = histories.targets["test"]
    windows, _ = histories.windows(test.users, test.positions, 50)
    assert len(windows) == len(histories.target_items(test)) == 5


def test_every_format_stands_on_the_page() -> None:
    for source, (pattern, titles) in PATTERNS.items():
        assert f"| `{source}` |" in PAGE
        assert f"`{pattern}`, titles `{titles}`" in PAGE
