"""An executed notebook as an HTML fragment: nbconvert on its ``basic`` template, our blocks.

Everything that may come from data is text here: markdown shows raw HTML as text, HTML outputs
keep table elements only, links go to our pages or to http(s) addresses, ANSI codes are dropped.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from lib.report.results import Json
from lib.report.tables import cut
from lib.report.text import plain_tex, tidy

__all__ = ["convert_notebook"]

TABLE_TAGS = ["table", "thead", "tbody", "tr", "th", "td", "caption", "b", "i", "em", "strong", "p",
              "br", "small", "code", "pre", "div", "span", "ul", "ol", "li"]  # fmt: skip
DROPPED = re.compile(r"<(style|script)\b.*?(</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)")
OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")  # progress bars rewrite their line
MAX_OUTPUT = 20_000


def convert_notebook(
    executed: Path,
    source: Path | None,
    *,
    seconds: Mapping[int, float],
    figures: Mapping[str, int],
    pages: Mapping[str, str],
    scrub: Callable[[str], str],
) -> Markup:
    """Body of a page. ``figures``: name -> number; ``pages``: notebook -> link; no h1 is left."""
    import nbformat

    cells = json.loads(executed.read_text("utf-8", "replace"))["cells"]
    for index, cell in enumerate(cells):
        cell["index"] = index  # as in the record and in errors
    for cell in (cells := _with_fresh_prose(cells, source)):
        cell["source"] = scrub(_joined(cell.get("source")))
        index = cell.pop("index", None)
        cell["metadata"] = {"anchor": index, "seconds": seconds.get(index),
                            "title": _cell_title(cell)}  # fmt: skip
        cell["outputs"] = [_output(o, figures, scrub) for o in cell.get("outputs", [])]
        if cell["cell_type"] != "code":
            cell.pop("outputs")
    if cells and cells[0]["cell_type"] == "markdown":  # the page has this title already
        cells[0]["source"] = re.sub(r"\A\s*# .*\n?", "", cells[0]["source"])
    notebook = nbformat.from_dict(
        {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    )
    exporter = _exporter()
    exporter.environment.filters["markdown2html"] = lambda text: _markdown(text, pages)
    body, _ = exporter.from_notebook_node(notebook)
    return Markup(body)


@cache
def _exporter() -> Any:
    from jinja2 import FileSystemLoader
    from nbconvert.exporters import HTMLExporter  # 1.5 s, so only where a page is rendered

    exporter = HTMLExporter(
        template_name="basic",
        template_file="notebook.j2",
        extra_loaders=[FileSystemLoader(Path(__file__).parent / "template")],
    )
    exporter.environment.filters |= {
        "code": _code,
        "text": escape,
        "tidy": tidy,
        "table_html": _table_html,
    }
    return exporter


def _with_fresh_prose(executed: list[Json], source: Path | None) -> list[Json]:
    """The markdown of today's notebook around the executed code, where the code is the same."""
    if source is None or not source.is_file():
        return executed
    try:
        today = json.loads(source.read_text("utf-8"))["cells"]
    except (ValueError, KeyError):
        return executed
    code = [cell for cell in executed if cell["cell_type"] == "code"]
    injected = [c for c in code if "injected-parameters" in c.get("metadata", {}).get("tags", [])]
    ran = [cell for cell in code if cell not in injected]
    same = [_joined(cell["source"]) for cell in ran] == [
        _joined(cell["source"]) for cell in today if cell["cell_type"] == "code"
    ]
    if not same:
        return executed
    queue, cells = iter(ran), []
    for cell in today:
        is_code = cell["cell_type"] == "code"
        cells.append(next(queue) if is_code else cell)
        if is_code and "parameters" in cell.get("metadata", {}).get("tags", []):
            cells += injected
    return cells


def _output(output: Json, figures: Mapping[str, int], scrub: Callable[[str], str]) -> Json:
    """One output, reduced to what the template shows."""
    kind = output.get("output_type")
    if kind == "stream":
        text = _clean(_joined(output.get("text")), scrub)
        return {"output_type": "stream", "name": output.get("name", "stdout"), "text": text}
    if kind == "error":
        lines = _clean("\n".join(map(str, output.get("traceback", []))), scrub)
        return {"output_type": "error", "traceback": [lines], "ename": "", "evalue": ""}
    data, metadata = output.get("data", {}), output.get("metadata", {})
    shown: Json = {}
    about_png, about_html = metadata.get("image/png", {}), metadata.get("text/html", {})
    if str(about_png.get("figure")) in figures:  # run.figure and run.table mark what they show
        shown = {"figure": figures[str(about_png["figure"])]}
    elif about_html.get("table"):
        shown = {"table": str(about_html["table"])}
    elif "image/png" in data:
        alt = about_png.get("alt") or "Picture without a description"
        shown = {"png": re.sub(r"[^A-Za-z0-9+/=]", "", _joined(data["image/png"])), "alt": alt}
    elif "text/html" in data:
        shown = {"html": scrub(_joined(data["text/html"]))}
    elif "text/plain" in data and "PosixPath(" not in data["text/plain"]:  # where run.save put it
        shown = {"text": _clean(_joined(data["text/plain"]), scrub)}
    return {"output_type": "display_data", "data": {}, "metadata": shown}


def _clean(text: str, scrub: Callable[[str], str]) -> str:
    text = scrub(OVERWRITTEN.sub("", ANSI.sub("", text.replace("\r\n", "\n")))).strip("\n")
    if len(text) <= MAX_OUTPUT:
        return text
    half = MAX_OUTPUT // 2
    return f"{text[:half]}\n… {len(text) - MAX_OUTPUT} characters left out …\n{text[-half:]}"


def _cell_title(cell: Json) -> str:
    lines = [line.strip() for line in cell["source"].splitlines() if line.strip()]
    first = lines[0] if lines else "empty cell"
    return cut(first.lstrip("#% ").strip() or first, 100)


def _code(source: str) -> Markup:
    """Python with classes on comments, keywords, strings and numbers only: a page stays small."""
    from pygments.lexers import PythonLexer  # type: ignore[import-untyped]
    from pygments.token import Comment, Keyword, Number, String  # type: ignore[import-untyped]

    kinds = ((Comment, "c"), (Keyword, "k"), (String, "s"), (Number, "m"))
    parts = []
    for token, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source):
        kind = next((name for parent, name in kinds if token in parent), "")
        parts.append(f'<i class="{kind}">{escape(text)}</i>' if kind else escape(text))
    return Markup("".join(parts))


def _table_html(html: str) -> Markup:
    """An HTML output: table elements stay, all else becomes text; headers get their scope."""
    import bleach  # type: ignore[import-untyped]

    cleaned = bleach.clean(
        DROPPED.sub("", html), tags=TABLE_TAGS, attributes=["colspan", "rowspan"]
    )
    head, end, body = cleaned.partition("</thead>")
    column, row = ('<th scope="col"', '<th scope="row"') if end else ('<th scope="row"', "")
    return Markup(re.sub(r"<th\b", column, head) + end + re.sub(r"<th\b", row, body))


def _markdown(text: str, pages: Mapping[str, str]) -> Markup:
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):  # type: ignore[misc]
        def heading(self, text: str, level: int, **_: object) -> str:
            return f"<h{min(level + 1, 6)}>{text}</h{min(level + 1, 6)}>"

        def link(self, text: str, url: str, title: str | None = None) -> str:
            path = url.partition("#")[0]
            url = pages.get(Path(path).stem, "") if path.endswith(".ipynb") else url
            known = url in pages.values() or re.match(r"https?://|#", url)
            hint = f' title="{escape(title)}"' if title else ""
            return f'<a href="{escape(url)}"{hint} rel="noreferrer">{text}</a>' if known else text

        def image(self, text: str, *_: object, **__: object) -> str:
            return f"<em>{text}</em>"  # pictures come from run.figure, with a caption

        def block_mermaidjs(self, code: str) -> str:
            return f"<pre>{escape(code)}</pre>"

        def inline_math(self, body: str) -> str:
            return f'<span class="math">{plain_tex(body)}</span>'

        def block_math(self, body: str) -> str:
            return f'<div class="math">{plain_tex(body)}</div>'

    renderer = Renderer(escape=True, allow_harmful_protocols=False, exclude_anchor_links=True)
    html = MarkdownWithMath(renderer=renderer).render(tidy(text))
    html = re.sub(r"<th\b", '<th scope="col"', html)
    return Markup(html.replace("<table>", '<div class="scroll" tabindex="0"><table>')
                  .replace("</table>", "</table></div>"))  # fmt: skip


def _joined(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")
