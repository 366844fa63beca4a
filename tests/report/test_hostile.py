"""Whatever data, parameters or titles hold arrives on the pages as text."""

import json
from pathlib import Path

import pytest

from tests.report import factory
from tests.report.factory import add_failure, add_result, add_run, code, metric, prose, render
from tests.report.html import Page

ATTACK = '</title></style></script><script>window.owned=1</script><img src=x onerror="owned=1">'
HOSTILE = {
    "markup": ATTACK,
    "quotes": '"\' onmouseover=\'owned=1\' " style="position:fixed" `',
    "template": "{{ 7*7 }}{% raw %}${7*7}&lt;b&gt;&amp;",
    "direction": "safe \u202egnp.exe\u202c \u200f\u2066 end \u061c",
    "control": "a\x00b\x1b[31mc\rd\ud800e",
    "long": "W" * 10_000,
    "comment": "<!--profiles--> --> <!-- ]]>",
}


def hostile_store(home: Path, text: str) -> Path:
    """One node with the text wherever a record, a notebook or an error has room for one."""
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": text},
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": text}},
        {"output_type": "display_data", "metadata": {}, "data": {"text/plain": text}},
        {"output_type": "display_data", "data": {"image/png": text}, "metadata": {
            "image/png": {"alt": text}, "text/html": {"table": text}}},
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBOR" + text}},
        {"output_type": "display_data", "metadata": {}, "data": {
            "image/svg+xml": f"<svg onload='owned=1'>{text}</svg>", "text/latex": text,
            "application/javascript": "owned=1", "text/markdown": text}},
        {"output_type": "error", "ename": text, "evalue": text, "traceback": [text]},
    ]  # fmt: skip
    cells = [
        prose(f"# {text}\n\n{text}\n\n[{text}](javascript:owned=1) ![{text}](http://evil.example/x)"
              f" [a](data:text/html,{text}) [b]({text}) <iframe src='http://evil.example'>"
              f" ${text}$ `{text}`\n\n```html\n{text}\n```\n\n| {text} |\n|---|\n| {text} |\n"),
        code(f"# {text}\nx = '''{text}'''", outputs),
    ]  # fmt: skip
    fields = {"title": text, "note": text, "device": text, "versions": {text: text},
              "git": {"commit": text, "dirty": True}, "defaults": [text]}  # fmt: skip
    metrics = [metric(f"m {text}", value, row=f"{row} {text}", segment=segment, unit=text,
                      better="higher", low=value - 0.1, high=value + 0.1)
               for row, value in (("a", 0.5), ("b", 0.6)) for segment in ("all", text)]  # fmt: skip
    clean = text.encode("utf-8", "replace").decode()  # parquet refuses lone surrogates by itself
    for key, shift in (("b" * 12, 1.0), ("a" * 12, 0.0)):
        moved = [m | {k: m[k] + shift for k in ("value", "low", "high")} for m in metrics]
        folder = add_result(home, "node", key=key, metrics=moved, cells=cells, inputs=["up"],
                            parameters={text: text, "p": [text, key]}, figure=factory.picture(),
                            table={clean: [clean, None], "n": [1.5, None]},
                            components={text: key, f"input.{text}": text}, **fields)  # fmt: skip
    record = json.loads((folder / "record.json").read_text())
    record["figures"][0] |= {"alt": text, "caption": text}
    record["tables"][0]["caption"] = text
    record["cells"] = [{"index": 1, "title": text, "seconds": 1.0}]
    record["inputs"]["up"] = {"node": text, "path": text, "key": text, "hash": text}
    (folder / "record.json").write_text(json.dumps(record))
    add_result(home, "broken", **fields)
    add_failure(home, "broken", cells=cells, title=text, message=text, lines=[text], place=text,
                reproduce=text, log=text, notebook=text)  # fmt: skip
    add_run(home, {"node": "b" * 12}, started=text)
    add_run(home, {"node": "a" * 12}, started=text)
    return render(home, "demo", {
        "node": {"state": "stale", "title": text, "notebook": "50_node", "reason": text,
                 "uses": ["broken"], "used_by": [text]},
        "broken": {"state": "failed", "title": text, "notebook": text[:40], "uses": [text]},
        "odd": {"state": text[:200], "title": text, "reason": text},
    }, about=text)  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_stays_text(tmp_path, kind):
    index = hostile_store(tmp_path, HOSTILE[kind])
    for path in [index, *(tmp_path / "reports" / "demo").glob("*.html")]:
        page = Page(path)
        for tag, attributes, _ in page.elements:
            assert tag not in {"script", "iframe", "object", "embed", "link", "form", "base"}
            assert not [name for name in attributes if name.startswith("on")]
            assert not attributes.get("style")
            assert attributes.get("src", "data:image/png").startswith("data:image/png")
            href = attributes.get("href", "#")
            assert not href.lower().startswith(("javascript:", "data:"))
            assert not href.startswith("http") or attributes["rel"] == "noreferrer"  # of prose
        assert not set(page.source) & set("\u202e\u202c\u200f\u2066\u061c\x00\x1b"), path.name


def test_hostile_text_is_readable(tmp_path):
    index = hostile_store(tmp_path, ATTACK)
    for path in (index, tmp_path / "reports/demo/node.html", tmp_path / "reports/demo/broken.html"):
        assert "<script>window.owned=1</script>" in Page(path).text()


def test_templates_are_not_evaluated(tmp_path):
    index = hostile_store(tmp_path, HOSTILE["template"])
    for path in (index, tmp_path / "reports/demo/node.html"):
        assert "{{ 7*7 }}" in Page(path).text()


def test_direction_overrides_are_shown_by_number(tmp_path):
    hostile_store(tmp_path, HOSTILE["direction"])
    assert "safe ⟨U+202E⟩gnp.exe⟨U+202C⟩" in Page(tmp_path / "reports/demo/node.html").text()


def test_a_title_of_ten_thousand_letters_is_cut_and_says_so(tmp_path):
    index = hostile_store(tmp_path, HOSTILE["long"])
    assert "(10000 characters)" in Page(index).text()
    assert index.stat().st_size < 60_000
    assert len(Page(tmp_path / "reports/demo/node.html").all("h1")[0][1]) < 300


def test_arabic_and_emoji_stay_as_they_are(tmp_path):
    text = "كتاب جديد 👩\u200d🚀 日本語"
    hostile_store(tmp_path, text)
    assert text in Page(tmp_path / "reports/demo/node.html").text()
