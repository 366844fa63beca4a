"""An executed notebook as cells for the page's template, and the filters that show them.

Everything that may come from data is text here: markdown shows raw HTML as text, an output with
HTML is shown by its plain text, links go to our pages or to http(s) addresses, ANSI codes go.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup, escape

from lib.pipeline import WrongUse
from lib.pipeline.notebook import clean_text
from lib.pipeline.schema import is_parameters, read_notebook
from lib.pipeline.store import Json
from lib.report.text import cut

__all__ = ["code_html", "markdown_html", "shown_cells"]

MAX_OUTPUT = 20_000


def shown_cells(
    executed: Path, source: Path, seconds: Mapping[object, float], figures: Mapping[str, int]
) -> list[Json]:
    """The cells as the template shows them; ``figures``: name -> number. No title is left."""
    cells = json.loads(executed.read_text("utf-8", "replace"))["cells"]
    for place, cell in enumerate(cells):
        cell["anchor"] = place  # as in the record and in errors
    shown: list[Json] = []
    for cell in _with_fresh_prose(cells, source):
        text, is_code = cell["source"], cell["cell_type"] == "code"
        if not shown and not is_code:  # the page has this title already
            text = re.sub(r"\A\s*# .*\n?", "", text)
        first = next((line.strip() for line in text.splitlines() if line.strip()), "empty cell")
        shown.append({
            "is_code": is_code, "source": text, "anchor": cell.get("anchor"),
            "seconds": seconds.get(cell.get("anchor")),
            "title": cut(first.lstrip("#% ").strip() or first, 100),
            "outputs": [_output(output, figures) for output in cell.get("outputs", [])],
        })  # fmt: skip
    return shown


def _with_fresh_prose(executed: list[Json], source: Path) -> list[Json]:
    """The markdown of today's notebook around the executed code, where the code is the same."""
    try:
        today = read_notebook(source)["cells"]
    except WrongUse:
        return executed
    code = [cell for cell in executed if cell["cell_type"] == "code"]
    injected = [c for c in code if "injected-parameters" in c["metadata"].get("tags", [])]
    ran = [cell for cell in code if cell not in injected]
    now = [cell["source"] for cell in today if cell["cell_type"] == "code"]
    if [cell["source"] for cell in ran] != now:
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
    if output["output_type"] == "stream":
        return {"stream": output["name"], "text": _clean(output["text"])}
    if output["output_type"] == "error":
        return {"error": _clean("\n".join(output["traceback"]))}
    if about.get("figure") in figures:  # run.figure and run.table mark what they show
        return {"figure": figures[about["figure"]]}
    if table := metadata.get("text/html", {}).get("table"):
        return {"table": table}
    if "image/png" in data:
        alt = about.get("alt") or "Picture without a description"
        return {"png": re.sub(r"[^A-Za-z0-9+/=]", "", data["image/png"]), "alt": alt}
    plain = _clean(data.get("text/plain", ""))
    return {"plain": plain} if plain and "PosixPath(" not in plain else {}  # where run.save put it


def _clean(text: str) -> str:
    lines = clean_text(text).split("\n")  # progress bars rewrite theirs
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
