"""The pages: what they hold, what they refuse to hold, and that one broken node stays alone."""

import json
import re
import shutil
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from lib.report import read_results
from tests.report import factory
from tests.report.factory import add_failure, add_result, add_run, code, metric, prose, render
from tests.report.html import Page

MODELS = ("Popularity", "SASRec, ids", "SASRec, titles", "Ceiling: true probabilities")


def results(model_count=4):
    """Metrics of a comparison, SASRec with titles ahead."""
    return [metric(name, 0.02 * (i + 1) + shift, row=row, low=0.02 * i + 0.01 + shift,
                   high=0.02 * i + 0.025 + shift, n=2871, better="higher")
            for name, shift in (("ndcg@10", 0.0), ("hit@10", 0.05))
            for i, row in enumerate(MODELS[:model_count])]  # fmt: skip


def page(home: Path, node: str, profile="demo") -> Page:
    return Page(home / "reports" / profile / f"{node}.html")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A store of three nodes: data, a model on it with a figure and a table, a second model."""
    add_result(tmp_path, "histories", notebook="10_prepare_histories")
    shown = {"image/png": {"alt": "two rows", "figure": "f"}}
    cells = [
        prose("# Do titles help?\n\nWe use [histories](10_prepare_histories.ipynb) and $x_i^2$."),
        code("import lib"),
        code("epochs: int = 3  # 1..9: passes", tags=["parameters"]),
        code("# Draw the comparison\nrun.figure('f', fig)",
             [{"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": shown}]),
        code("run.finish()"),
    ]  # fmt: skip
    add_result(tmp_path, "sasrec", notebook="25_train_sasrec", inputs=["histories"], cells=cells,
               metrics=results(), figure=factory.picture(), title="Do titles help?",
               table={"epoch": [1, 2], "loss": [0.5, None], "why": ["", "diverged"]})  # fmt: skip
    add_result(tmp_path, "gru", notebook="26_train_gru", inputs=["histories"],
               metrics=[metric("ndcg@10", 0.05, row="GRU", n=2871, better="higher")])  # fmt: skip
    return tmp_path


def test_index_of_demo_is_where_a_visitor_looks(home):
    assert render(home) == home / "reports" / "index.html"
    assert {p.name for p in (home / "reports" / "demo").iterdir()} == {
        "histories.html", "sasrec.html", "gru.html"}  # fmt: skip


def test_every_link_leads_somewhere(home):
    add_failure(home, "gru")
    render(home)
    for path in (home / "reports").rglob("*.html"):
        found = Page(path)
        ids = {attributes["id"] for _, attributes, _ in found.elements if "id" in attributes}
        for attributes, _ in found.all("a"):
            target, _, anchor = urllib.parse.unquote(attributes["href"]).partition("#")
            assert target or anchor in ids, f"{path.name}: #{anchor}"
            assert not target or (path.parent / target).is_file(), f"{path.name}: {target}"


def test_pages_ask_nothing_of_a_network_and_run_no_script(home):
    render(home)
    for path in (home / "reports").rglob("*.html"):
        found = Page(path)
        policies = [a["content"] for a, _ in found.all("meta") if "http-equiv" in a]
        assert policies[0].startswith("default-src 'none'; img-src data:;")
        assert not found.all("script") + found.all("link") + found.all("iframe")
        for _, attributes, _ in found.elements:
            assert not [name for name in attributes if name.startswith("on")]
            assert attributes.get("src", "data:").startswith("data:")
        assert "url(" not in found.source
        assert "@import" not in found.source


def test_pages_speak_to_screen_readers(home):
    render(home)
    for path in (home / "reports").rglob("*.html"):
        found = Page(path)
        assert found.all("html")[0][0]["lang"] == "en"
        assert len(found.all("h1")) == len(found.all("main")) == 1
        assert all(attributes.get("scope") for attributes, _ in found.all("th"))
        assert len(found.all("caption")) == len(found.all("table"))
        assert all(attributes.get("alt") for attributes, _ in found.all("img"))
        boxes = [a for a, _ in found.all("div") if "scroll" in a.get("class", "")]
        assert all(box["tabindex"] == "0" for box in boxes)


def test_a_node_page_tells_its_story_in_order(home):
    render(home)
    source = page(home, "sasrec").source
    order = ["<h1>", 'class="lead"', 'id="result"', 'id="figures"', 'id="steps"', 'id="provenance"']
    places = [source.index(part) for part in order]
    assert places == sorted(places)
    assert source.index('class="badge done"') < places[1]
    assert '<details class="provenance" id="provenance">' in source  # closed


def test_figures_are_numbered_once_and_embedded(home):
    render(home)
    found = page(home, "sasrec")
    images = found.all("img")
    assert len(images) == 1  # the notebook's own copy became a link to it
    assert images[0][0]["alt"] == "Two rows with intervals"
    assert images[0][0]["src"].startswith("data:image/png;base64,iVBOR")
    assert found.all("figcaption")[0][1] == "Figure 1. Both rows."
    assert ({"href": "#figure-1"}, "Figure 1") in found.all("a")


def test_best_row_is_bold_and_said_in_words_and_the_ceiling_is_not_best(home):
    render(home)
    table = page(home, "sasrec").source.split("<table>")[1]
    rows = {row.split("</th>")[0]: row for row in re.split('<th scope="row"[^>]*>', table)[1:]}
    assert rows["SASRec, titles"].count('<span class="tag">best</span> <b>') == 2
    assert "best" not in rows["Ceiling: true probabilities"] + rows["Popularity"]
    assert "[0.0500, 0.0650]" in rows["SASRec, titles"]
    assert "2871" in rows["SASRec, titles"]


def test_missing_values_say_so(home):
    folder = add_result(home, "gru", notebook="26_train_gru", metrics=results()[:-1])
    render(home)
    assert "not measured" in page(home, "gru").text()
    assert "no interval" not in page(home, "gru").text()
    assert "missing" in page(home, "sasrec").text()  # the null in its table
    assert "not given" not in page(home, "sasrec").text()
    assert folder.is_dir()


def test_code_is_folded_under_its_first_comment_and_headings_sink_below_the_title(home):
    render(home)
    found = page(home, "sasrec")
    summaries = [text for attributes, text in found.all("summary")]
    assert any(text.startswith("Draw the comparison") for text in summaries)
    assert all("open" not in a for a, _ in found.all("details") if a.get("class") == "code")
    assert [text for _, text in found.all("h1")] == ["Do titles help?"]
    assert '<span class="math">x_i^2</span>' in found.source
    assert ({"href": "histories.html", "rel": "noreferrer"}, "histories") in found.all("a")


def test_failed_node_has_a_page_with_the_error_on_top_and_its_last_good_result(home):
    broken = {"output_type": "error", "ename": "ValueError", "evalue": "loss is nan",
              "traceback": ["\x1b[0;31mValueError\x1b[0m: loss is nan"]}  # fmt: skip
    add_failure(home, "sasrec", cells=[prose("# T"), code("train(model)", [broken])])
    render(home)
    found = page(home, "sasrec")
    text = found.text()
    for part in ("This node failed in train the model", "loss is nan", "lib/train/loop.py:87",
                 "python run_all.py demo --only sasrec", "Peak memory 1.0 GB", "log.txt"):  # fmt: skip
        assert part in text
    assert "\x1b" not in found.source
    assert 'class="code" open' in found.source
    assert found.source.index('class="box bad"') < found.source.index('id="steps"')
    last = page(home, "sasrec.last-good")
    assert "This is the last good result. A newer attempt failed." in last.text()
    assert "0.0600" in last.text()
    index = Page(home / "reports" / "index.html").text()
    assert "1 failed" in index
    assert "sasrec: ValueError: loss is nan" in index


def test_the_page_of_the_last_good_result_goes_when_the_node_is_well_again(home):
    failed = add_failure(home, "gru")
    render(home)
    assert "last-good" in page(home, "gru").source
    shutil.rmtree(failed)
    render(home)
    assert not (home / "reports" / "demo" / "gru.last-good.html").exists()
    assert "last-good" not in page(home, "gru").source


@pytest.mark.parametrize(
    ("state", "words"),
    [("stale", "older than its code"), ("blocked", "a node it uses has no result"),
     ("not run", "has not run yet"), ("corrupt", "do not trust it")],
)  # fmt: skip
def test_a_node_that_is_not_done_keeps_a_page_that_says_why(home, state, words):
    plan = {"gru": {"state": state, "title": "T", "notebook": "26_train_gru", "uses": ["x"],
                    "used_by": [], "reason": "param.epochs 3 → 5"},
            "later": {"state": "blocked", "title": "Later", "reason": "needs gru"}}  # fmt: skip
    render(home, "demo", plan)
    text = page(home, "gru").text()
    assert words in text
    assert "Reason: param.epochs 3 → 5" in text
    assert "needs gru" in page(home, "later").text()
    assert state in Page(home / "reports" / "index.html").text()


def test_the_index_answers_at_a_glance(home):
    old = [m | {"value": m["value"] - 0.03, "low": m["low"] - 0.03, "high": m["high"] - 0.03}
           for m in results()]  # fmt: skip
    add_result(home, "sasrec", key="b" * 12, notebook="25_train_sasrec", metrics=old,
               parameters={"seed": 1, "epochs": 2}, components={"lock": factory.sha(b"old"),
               "code": factory.sha(b"old"), "input.histories": "x"})  # fmt: skip
    (home / "data/store/demo/sasrec/current").write_text("a" * 12)
    add_run(home, {"sasrec": "b" * 12}, started="2026-11-19T10:00:00+00:00")
    add_run(home, {"sasrec": "a" * 12})
    render(home)
    found = Page(home / "reports" / "index.html")
    glance = found.all("dl")[0][1]
    assert "3 done" in glance
    assert "Last run 2026-11-20 10:00 UTC, 1 min 20 s" in glance
    assert "SASRec, titles on histories: ndcg@10 0.0600, next GRU, 0.0100 (20.0%) away" in glance
    assert "8 metrics beyond the interval, 1 node with another result" in glance
    assert "2026-11-19 10:00 UTC" in glance
    text = found.text()
    for part in (
        "param.epochs 2 → 3",
        "code, lock changed",
        "input.histories is no longer used",
        "8 of 8 changed metrics beyond the interval",
    ):
        assert part in text


def test_index_says_nothing_changed_and_nothing_failed(home):
    add_run(home, {"sasrec": "a" * 12})
    render(home)
    assert "This is the first run." in Page(home / "reports" / "index.html").text()
    add_run(home, {"sasrec": "a" * 12}, started="2026-11-21T10:00:00+00:00")
    render(home)
    glance = Page(home / "reports" / "index.html").all("dl")[0][1]
    assert "Nothing: every result is the one of the earlier runs." in glance


def test_provenance_names_all_causes_and_no_person_or_machine(home, monkeypatch):
    text = f"{home}/lib/train/loop.py\n/home/lovelace/secret\n/root/x /Users/lovelace/y"
    cells = [prose("# T"), code("pass", [{"output_type": "stream", "name": "stdout", "text": text},
             {"output_type": "display_data", "metadata": {}, "data": {"text/plain": text}}])]  # fmt: skip
    add_result(home, "gru", notebook="26_train_gru", cells=cells, note=f"see {home}/data",
               parameters={"seed": 1, "folder": f"{home}/data/raw"}, inputs=["histories"])  # fmt: skip
    render(home)
    found = page(home, "gru")
    for private in (str(home), "lovelace", "/root", "/home/"):
        assert private not in found.source
    details = found.source.split('id="provenance"')[1]
    for part in ("0123456789abcdef", "as committed", factory.LOCK[:12], "2.13.0", "350 MB",
                 "set by the profile", "default", "outputs", "a cell", "histories"):  # fmt: skip
        assert part in details or part == "outputs"


def test_prose_of_today_appears_without_a_new_run_and_other_code_does_not(home):
    source = home / "notebooks" / "26_train_gru.ipynb"
    source.parent.mkdir()
    cells = [prose("# T\n\nOld words."), code("import lib"), code("run.finish()")]
    add_result(home, "gru", notebook="26_train_gru", cells=cells)
    source.write_text(json.dumps(factory.notebook([prose("# T\n\nNew words."), *cells[1:]])))
    render(home)
    assert "New words." in page(home, "gru").text()
    source.write_text(json.dumps(factory.notebook([prose("# T\n\nNewer."), code("other")])))
    render(home)
    assert "Old words." in page(home, "gru").text()


def test_metrics_file_lists_every_metric_of_every_profile(home):
    add_result(home, "tiny", profile="smoke", metrics=[metric("auc", 0.7, seed=3, unit="")])
    render(home)
    rows = json.loads((home / "reports" / "metrics.json").read_text())
    assert len(rows) == 8 + 1 + 1
    assert rows[-1] == {"profile": "smoke", "node": "tiny", "metric": "auc", "row": "",
                        "segment": "all", "value": 0.7, "low": None, "high": None, "n": None,
                        "seed": 3, "unit": "", "better": None}  # fmt: skip


def test_the_frame_holds_the_same_numbers(home):
    found = read_results("demo", home)
    chosen = found[(found.node == "sasrec") & (found.metric == "hit@10")]
    np.testing.assert_allclose(chosen.value.astype(float), [0.07, 0.09, 0.11, 0.13])
    with pytest.raises(LookupError, match="no finished node"):
        read_results("nothing", home)


@pytest.mark.parametrize("order", [("demo", "smoke"), ("smoke", "demo")])
def test_other_profiles_are_linked_from_the_first_page(home, order):
    add_result(home, "tiny", profile="smoke")
    for profile in order:
        index = render(home, profile)
        assert (index == home / "reports" / "index.html") == (profile == "demo")
    first = Page(home / "reports" / "index.html")
    assert ({"href": "smoke/index.html"}, "smoke") in first.all("a")
    assert "What do language models really add" in first.text()
    before = (home / "reports" / "index.html").read_bytes()
    render(home, "smoke")
    assert (home / "reports" / "index.html").read_bytes() == before


def test_a_store_without_demo_still_has_a_first_page(tmp_path):
    add_result(tmp_path, "tiny", profile="smoke")
    render(tmp_path, "smoke")
    assert 'href="smoke/index.html"' in (tmp_path / "reports" / "index.html").read_text()


def test_nothing_to_do_writes_nothing(home):
    render(home)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (home / "reports").rglob("*.*")}
    render(home)
    after = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (home / "reports").rglob("*.*")}
    assert before == after


def test_a_node_that_left_the_profile_loses_its_page(home):
    render(home)
    shutil.rmtree(home / "data/store/demo/gru")
    render(home)
    assert not (home / "reports/demo/gru.html").exists()


def damage_record(folder):
    (folder / "record.json").write_bytes(b'{"metrics": [{"name"')


def damage_manifest(folder):
    (folder / "manifest.json").unlink()


def damage_types(folder):
    wrong = {"metrics": {"a": 1}, "figures": [3, {"path": 7}], "tables": "x", "inputs": [1],
             "cells": [{}, None], "parameters": None, "versions": 3, "git": "no", "seconds": "long",
             "started": 10**30, "defaults": 5, "title": ["a"], "device": {"a": 1}}  # fmt: skip
    (folder / "record.json").write_text(json.dumps(wrong))


def damage_notebook(folder):
    (folder / "executed.ipynb").write_text('{"cells": [{"cell_type": "code"')


def damage_table(folder):
    (folder / "outputs/tables/t.parquet").write_bytes(b"PAR1 garbage")


def damage_figure(folder):
    (folder / "figures/f.png").write_bytes(b"<svg onload=alert(1)>")


def damage_paths(folder):
    record = json.loads((folder / "record.json").read_text())
    secret = folder.parents[4] / "secret.png"
    secret.write_bytes((folder / "figures/f.png").read_bytes())
    record["figures"][0]["path"] = "../../../../../secret.png"
    (folder / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "words"),
    [(damage_record, "What do language models"), (damage_manifest, "What do language models"),
     (damage_types, "sasrec"), (damage_notebook, "cannot be read (JSONDecodeError)"),
     (damage_table, "cannot be read (ArrowInvalid)"),
     (damage_figure, "picture is missing from the store"),
     (damage_paths, "picture is missing from the store")],
)  # fmt: skip
def test_one_broken_result_says_so_and_leaves_the_other_pages_alone(home, damage, words):
    damage(home / "data/store/demo/sasrec" / ("a" * 12))
    plan = {name: {"state": "done", "title": name} for name in ("histories", "sasrec", "gru")}
    index = Page(render(home, "demo", plan))
    assert words in page(home, "sasrec").text() + index.text()
    assert "gru did what it should." in page(home, "gru").text()


def test_a_torn_history_line_is_left_out(home):
    add_run(home, {"sasrec": "a" * 12})
    with (home / "data/store/demo/runs.jsonl").open("a") as file:
        file.write('{"run": "x", "nodes": {"sas')
    assert "This is the first run." in Page(render(home)).text()


def test_an_empty_profile_has_an_index(tmp_path):
    assert "No node has made data yet." in Page(render(tmp_path, "demo", {})).text()


def test_html_outputs_are_shown_by_their_plain_text(home):
    html = "<style>p{}</style><table onclick='x()'><tr><td><img src=x></td></tr></table><script>alert(1)</script>"
    data = {"text/html": html, "text/plain": "   rank\n0  <3>"}
    output = {"output_type": "execute_result", "metadata": {}, "data": data}
    add_result(home, "gru", notebook="26_train_gru", cells=[prose("# T"), code("frame", [output])])
    render(home)
    found = page(home, "gru")
    assert not found.all("script") + found.all("img")
    assert "alert(1)" not in found.source
    assert ({"class": "out", "tabindex": "0"}, "   rank\n0  <3>") in found.all("pre")


def test_a_table_shown_by_the_run_is_on_the_page_once(home):
    output = {"output_type": "display_data", "metadata": {"text/html": {"table": "t"}},
              "data": {"text/html": "<table><tr><td>unique-cell</td></tr></table>"}}  # fmt: skip
    add_result(home, "gru", notebook="26_train_gru", cells=[prose("# T"), code("x", [output])],
               table={"a": ["unique-cell"]})  # fmt: skip
    render(home)
    assert page(home, "gru").source.count("unique-cell") == 1


def test_progress_bars_and_long_outputs_are_cut(home):
    bar = "".join(f"\r{i}%" for i in range(101)) + "\n"
    output = {"output_type": "stream", "name": "stderr", "text": bar + "x" * 50_000}
    add_result(home, "gru", notebook="26_train_gru", cells=[prose("# T"), code("x", [output])])
    render(home)
    text = page(home, "gru").text()
    assert "100%" in text
    assert "99%" not in text
    assert "characters left out" in text


def test_thirty_nodes_stay_within_the_budget(tmp_path):
    long = "\n".join(
        f"result_{i} = train(model, source, loss, plan=plan)  # step" for i in range(20)
    )
    cells = [prose("# A question of ordinary length, is it not?")]
    for i in range(15):
        text = {"output_type": "stream", "name": "stdout", "text": f"epoch {i} loss 0.5\n" * 5}
        cells += [
            prose(f"## Step {i}\n\n" + "Words about it. " * 20),
            code(f"# {i}\n{long}", [text]),
        ]
    names = [f"node_{i:02d}" for i in range(30)]
    for i, name in enumerate(names):
        uses = names[max(0, i - 3) : i : 2]
        own = cells if i == 29 else None  # the longest notebook that the static test allows
        add_result(tmp_path, name, key="b" * 12, inputs=uses, metrics=results())
        moved = [m | {"value": m["value"] + 1, "low": m["low"] + 1, "high": m["high"] + 1}
                 for m in results()]  # fmt: skip
        add_result(tmp_path, name, notebook=f"{i + 5:02d}_do_{name}", inputs=uses, cells=own,
                   metrics=moved, table={"x": list(range(30)), "y": [0.5] * 30},
                   components={f"lib/models/m{j}.py": factory.sha(b"m") for j in range(40)},
                   title="A question of ordinary length, is it not?", note="It is so. " * 15)  # fmt: skip
    add_run(tmp_path, dict.fromkeys(names, "b" * 12), started="2026-11-19T10:00:00+00:00")
    add_run(tmp_path, dict.fromkeys(names, "a" * 12))
    index = render(tmp_path, "demo")
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "reports/demo").glob("*.html")}
    assert index.stat().st_size <= 60_000
    assert max(sizes.values()) <= 60_000
    assert len(sizes) == 30
