"""The graph of nodes as a small inline picture: columns by depth, one link per node."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from lib.report.results import Node
from lib.report.text import tidy

__all__ = ["draw_graph"]

WIDTH, HEIGHT, GAP_X, GAP_Y = 132, 26, 34, 10
MARKS = {"done": "✓", "failed": "✕", "stale": "↻", "blocked": "⊘", "not run": "○"}


def draw_graph(nodes: Sequence[Node], pages: str) -> Markup:
    """Inline SVG; ``pages`` is the folder of the node pages, relative to the index."""
    places, columns, rows = _place(nodes)
    width, height = columns * (WIDTH + GAP_X) - GAP_X + 4, rows * (HEIGHT + GAP_Y) - GAP_Y + 4
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="group" '
        'aria-label="Graph of nodes; the table of nodes lists the same links">'
    ]
    lines = []
    for node in nodes:
        x, y = places[node.name]
        for use in node.uses:
            if use in places:
                a, b = places[use][0] + WIDTH, places[use][1] + HEIGHT // 2
                middle, end = (a + x) // 2, y + HEIGHT // 2
                lines.append(f"M{a} {b}C{middle} {b} {middle} {end} {x} {end}")
    parts.append(f'<path class="edge" d="{"".join(lines)}"/>')
    for node in nodes:
        x, y = places[node.name]
        name = node.name if len(node.name) <= 16 else f"{node.name[:15]}…"
        text = f"{MARKS.get(node.state, '•')} {name}"
        state = node.state.replace(" ", "-")
        parts.append(
            f'<a href="{escape(pages + node.name)}.html" class="n {escape(tidy(state))}">'
            f"<title>{escape(node.name)}: {escape(tidy(node.state))}</title>"
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
            f'<text x="{x + 8}" y="{y + 17}">{escape(tidy(text))}</text></a>'
        )
    return Markup("".join(parts) + "</svg>")


def _place(nodes: Sequence[Node]) -> tuple[dict[str, tuple[int, int]], int, int]:
    """Column = longest way from a start; within a column, near the mean row of what is used."""
    by_name = {node.name: node for node in nodes}
    depth: dict[str, int] = {}

    def deepen(name: str, path: tuple[str, ...] = ()) -> int:
        if name not in depth:
            uses = [u for u in by_name[name].uses if u in by_name and u not in (*path, name)]
            depth[name] = 1 + max((deepen(use, (*path, name)) for use in uses), default=-1)
        return depth[name]

    for node in nodes:
        deepen(node.name)
    rows: dict[str, float] = {}
    columns = [
        [n for n in nodes if depth[n.name] == d] for d in range(max(depth.values(), default=-1) + 1)
    ]
    for column in columns:

        def wish(node: Node) -> float:
            known = [rows[use] for use in node.uses if use in rows]
            return sum(known) / len(known) if known else 0.0

        for row, node in enumerate(sorted(column, key=wish)):
            rows[node.name] = row
    tallest = max(map(len, columns), default=0)
    places = {}
    for node in nodes:
        spare = (tallest - len(columns[depth[node.name]])) * (HEIGHT + GAP_Y) // 2
        y = 2 + spare + int(rows[node.name]) * (HEIGHT + GAP_Y)
        places[node.name] = (2 + depth[node.name] * (WIDTH + GAP_X), y)
    return places, len(columns), tallest
