"""The shared plots: pure, quiet, readable without colour."""

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest

from lib.studies import figures


def draw_all():
    rng = np.random.default_rng(1)
    rates = np.linspace(0.01, 0.6, 10)
    points = rng.normal(size=(300, 2))
    return {
        "learning": figures.plot_learning(
            {"train": [3.0, 2.0, 1.5], "valid": [3.1, 2.4, 2.3]}, ylabel="loss", best={"valid": 3}
        ),
        "intervals": figures.plot_intervals(
            [figures.Row("A", 0.7, 0.6, 0.8), figures.Row("B", 0.5)],
            xlabel="AUC", baseline=0.5, ceiling=0.9,
        ),
        "reliability": figures.plot_reliability({"m": (rates, rates, np.arange(10))}, log=True),
        "groups": figures.plot_groups(
            {"10": points, "30": points}, [f"g{i % 11}" for i in range(300)], max_points=100
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["learning", "intervals", "reliability", "groups"])
def test_plots_draw_without_a_warning_on_a_white_card(name):
    figure = draw_all()[name]
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    assert file.getvalue().startswith(b"\x89PNG")
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


def test_drawing_leaves_the_settings_and_pyplot_alone():
    names = [name for name in mpl.rcParams if name != "backend"]  # chosen when first asked for
    before = {name: mpl.rcParams[name] for name in names}
    draw_all()
    assert {name: mpl.rcParams[name] for name in names} == before
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_series_differ_by_marker_as_well_as_by_colour():
    lines = draw_all()["learning"].axes[0].get_lines()[:2]
    assert (
        len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines}) == 2
    )


def test_rings_take_the_colour_of_their_line_and_leave_the_others_theirs():
    curves = {name: [0.1, 0.2, 0.3] for name in "abcde"}
    figure = figures.plot_learning(curves, ylabel="auc", best=dict.fromkeys(curves, 3))
    lines = figure.axes[0].get_lines()
    assert [line.get_color() for line in lines[::2]] == list(figures.COLOURS[:5])
    assert [line.get_color() for line in lines[1::2]] == list(figures.COLOURS[:5])


def test_a_curve_may_begin_before_training():
    figure = figures.plot_learning({"a": [3.0, 1.0]}, ylabel="nats", best={"a": 1}, first=0)
    line, ring = figure.axes[0].get_lines()
    assert list(line.get_xdata()) == [0, 1]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([1], [1.0])


def test_no_name_covers_another_name_or_a_dot():
    rng = np.random.default_rng(1)
    points = {f"a longer name {n}": (10 + x, y) for n, (x, y) in enumerate(rng.random((9, 2)))}
    axes = figures.plot_cost(points, xlabel="s", ylabel="auc").axes[0]
    names = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(names) == 9
    assert not any(a.overlaps(b) for n, a in enumerate(names) for b in names[:n])
    dots = axes.transData.transform(list(points.values()))
    assert not any(box.contains(*dot) for box in names for dot in dots)


def test_small_groups_are_drawn_together_and_named_so():
    figure = draw_all()["groups"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == 8
    assert labels[-1] == "other"


def test_three_maps_take_two_rows_and_leave_the_last_place_empty():
    points = np.random.default_rng(1).normal(size=(30, 2))
    figure = figures.plot_groups({name: points for name in "abc"}, ["g"] * 30)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b", "c", ""]
    assert [axes.axison for axes in figure.axes] == [True, True, True, False]


def test_the_same_points_make_the_same_picture():
    files = []
    for _ in range(2):
        files.append(io.BytesIO())
        draw_all()["groups"].savefig(files[-1], metadata={"Software": None})
    assert files[0].getvalue() == files[1].getvalue()


def test_drawing_does_not_load_the_pages():
    code = "import sys, lib.studies.figures; print([m for m in sys.modules if 'lib.report' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
