"""An executed notebook as cells for the page's template, and the filters that show them.

Everything that may come from data is text here: markdown shows raw HTML as text, HTML outputs
keep table elements only, links go to our pages or to http(s) addresses, ANSI codes are dropped.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup, escape

from lib.pipeline.schema import is_parameters
from lib.pipeline.store import Json
from lib.report.text import cut

__all__ = ["code_html", "markdown_html", "shown_cells", "table_html"]

TABLE_TAGS = ["table", "thead", "tbody", "tr", "th", "td", "caption", "b", "i", "em", "strong", "p",
              "br", "small", "code", "pre", "div", "span", "ul", "ol", "li"]  # fmt: skip
DROPPED = re.compile(r"<(style|script)\b.*?(</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)")
MAX_OUTPUT = 20_000


def shown_cells(
    executed: Path, source: Path, seconds: Mapping[object, object], figures: Mapping[str, int]
) -> list[Json]:
    """The cells as the template shows them; ``figures``: name -> number. No title is left."""
    cells = json.loads(executed.read_text("utf-8", "replace"))["cells"]
    for place, cell in enumerate(cells):
        cell["anchor"] = place  # as in the record and in errors
    shown: list[Json] = []
    for cell in _with_fresh_prose(cells, source):
        text, is_code, anchor = (
            _joined(cell["source"]),
            cell["cell_type"] == "code",
            cell.get("anchor"),
        )
        if not shown and not is_code:  # the page has this title already
            text = re.sub(r"\A\s*# .*\n?", "", text)
        lines = [line.strip() for line in text.splitlines() if line.strip()] or ["empty cell"]
        if cell["cell_type"] != "raw":
            shown.append({
                "is_code": is_code, "source": text, "anchor": anchor,
                "seconds": seconds.get(anchor),
                "title": cut(lines[0].lstrip("#% ").strip() or lines[0], 100),
                "outputs": [_output(output, figures) for output in cell.get("outputs", [])],
            })  # fmt: skip
    return shown


def _with_fresh_prose(executed: list[Json], source: Path) -> list[Json]:
    """The markdown of today's notebook around the executed code, where the code is the same."""
    try:
        today = json.loads(source.read_text("utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return executed
    code = [cell for cell in executed if cell["cell_type"] == "code"]
    injected = [c for c in code if "injected-parameters" in c.get("metadata", {}).get("tags", [])]
    ran = [cell for cell in code if cell not in injected]
    now = [_joined(cell["source"]) for cell in today if cell["cell_type"] == "code"]
    if [_joined(cell["source"]) for cell in ran] != now:
        return executed
    queue, cells = iter(ran), []
    for cell in today:
        is_code = cell["cell_type"] == "code"
        cells.append(next(queue) if is_code else cell)
        cells += injected if is_code and is_parameters(cell) else []
    return cells


def _output(output: Json, figures: Mapping[str, int]) -> Json:
    """One output, reduced to the one thing of it that the template shows."""
    data, metadata = output.get("data", {}), output.get("metadata", {})
    about = metadata.get("image/png", {})
    if output.get("output_type") == "stream":
        return {"stream": output.get("name", "stdout"), "text": _clean(output.get("text"))}
    if output.get("output_type") == "error":
        return {"error": _clean("\n".join(map(str, output.get("traceback", []))))}
    if str(about.get("figure")) in figures:  # run.figure and run.table mark what they show
        return {"figure": figures[str(about["figure"])]}
    if table := metadata.get("text/html", {}).get("table"):
        return {"table": str(table)}
    if "image/png" in data:
        alt = about.get("alt") or "Picture without a description"
        return {"png": re.sub(r"[^A-Za-z0-9+/=]", "", _joined(data["image/png"])), "alt": alt}
    if "text/html" in data:
        return {"html": _joined(data["text/html"])}
    plain = _clean(data.get("text/plain"))
    return {"plain": plain} if plain and "PosixPath(" not in plain else {}  # where run.save put it


def _joined(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _clean(value: object) -> str:
    lines = ANSI.sub("", _joined(value)).split("\n")  # progress bars rewrite theirs
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines).strip("\n")
    half, more = MAX_OUTPUT // 2, len(text) - MAX_OUTPUT
    return f"{text[:half]}\n… {more} characters left out …\n{text[-half:]}" if more > 0 else text


def code_html(source: str) -> Markup:
    """Python with classes on comments, keywords, strings and numbers only: a page stays small."""
    from pygments.lexers import PythonLexer  # type: ignore[import-untyped]
    from pygments.token import Comment, Keyword, Number, String  # type: ignore[import-untyped]

    kinds = ((Comment, "c"), (Keyword, "k"), (String, "s"), (Number, "m"))
    parts = []
    for token, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source):
        kind = next((name for parent, name in kinds if token in parent), "")
        parts.append(f'<i class="{kind}">{escape(text)}</i>' if kind else escape(text))
    return Markup("".join(parts))


def table_html(html: str) -> Markup:
    """An HTML output: table elements stay, all else becomes text; headers get their scope."""
    import bleach  # type: ignore[import-untyped]

    plain = bleach.clean(DROPPED.sub("", html), tags=TABLE_TAGS, attributes=["colspan", "rowspan"])
    head, end, body = plain.partition("</thead>")
    column, row = ('<th scope="col"', '<th scope="row"') if end else ('<th scope="row"', "")
    return Markup(re.sub(r"<th\b", column, head) + end + re.sub(r"<th\b", row, body))


def markdown_html(text: str, pages: Mapping[str, str]) -> Markup:
    """Markdown without raw HTML; ``pages``: notebook -> link. Formulas stay as they are written."""
    import mistune

    class Renderer(mistune.HTMLRenderer):
        def heading(self, text: str, level: int, **_: object) -> str:
            return f"<h{min(level + 1, 6)}>{text}</h{min(level + 1, 6)}>"

        def link(self, text: str, url: str, title: str | None = None) -> str:
            path = url.partition("#")[0]
            url = pages.get(Path(path).stem, "") if path.endswith(".ipynb") else url
            known = url in pages.values() or re.match(r"https?://|#", url)
            hint = f' title="{escape(title)}"' if title else ""
            return f'<a href="{escape(url)}"{hint} rel="noreferrer">{text}</a>' if known else text

        def image(self, text: str, *_: object, **__: object) -> str:
            return f"<em>{escape(text)}</em>"  # pictures come from run.figure, with a caption

        def inline_math(self, text: str) -> str:
            return f'<span class="math">{escape(text)}</span>'

        def block_math(self, text: str) -> str:
            return f'<div class="math">{escape(text)}</div>'

    renderer = Renderer(escape=True, allow_harmful_protocols=False)
    plugins = ["table", "strikethrough", "url", "math"]
    html = str(mistune.create_markdown(renderer=renderer, plugins=plugins)(text))
    html = re.sub(r'<th(?: style="[^"]*")?>', '<th scope="col">', html)
    html = re.sub(r'<td style="[^"]*">', "<td>", html)
    return Markup(html.replace("<table>", '<div class="scroll" tabindex="0"><table>')
                  .replace("</table>", "</table></div>"))  # fmt: skip
