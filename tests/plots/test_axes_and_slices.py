"""Plots of random grids and of any two axes: what is drawn is what the table holds."""

import itertools

import numpy as np
import pytest
from matplotlib import colors
from test_plots import check_looks, decays, line

import weightdecay as wd
from made_results import made
from weightdecay.plots import style, table_lines, value_axis
from weightdecay.plots.trials import trials


@pytest.fixture(scope="module")
def drawn():
    """A Sobol grid of three axes."""
    axes = {"learning_rate": wd.LogUniform(1e-4, 1e-1), "momentum": wd.Uniform(0, 0.99)}
    return made(wd.Grid.sobol(16, decay=wd.L2(wd.LogUniform(1e-5, 1e0)), **axes, seeds=range(2)), died=(3,))


@pytest.fixture(scope="module")
def full():
    """A full grid with a name, a number with zero, and a rule of two parts."""
    decay = [
        *decays(wd.L2, num=3),
        *((wd.Masked(wd.L2(c), wd.masks.first), wd.ProximalL1(0.1)) for c in (1e-3, 1e-2)),
    ]
    axes = {"momentum": [0.0, 0.9], "normalization": ["layer", "none"]}
    return made(wd.Grid(decay=decay, learning_rate=[1e-3, 1e-2, 1e-1], **axes), died=(0, 1, 2, 3))


def points(ax, label):
    return np.transpose(line(ax, label))


def test_plot_slices_draws_every_candidate_against_each_axis(drawn):
    panels, table = drawn.plot_slices(), drawn.table()
    assert len(panels) == 3
    labels = ["coefficient c of L2", "learning rate", "momentum"]
    for panel, name, label in zip(panels, ["coefficient", "learning_rate", "momentum"], labels, strict=True):
        assert panel.get_xlabel().replace("\n", " ").startswith(label)
        finite = table[np.isfinite(table["validation_loss"])]
        shown = points(panel, "L2")
        expected = finite[[name, "validation_loss"]].to_numpy(float)
        np.testing.assert_allclose(shown[np.isfinite(shown[:, 1])], expected, rtol=1e-12)
        lost = table[~np.isfinite(table["validation_loss"])][name]
        np.testing.assert_allclose(points(panel, "diverged, or not finite")[:, 0], lost, rtol=1e-12)
        chosen = drawn.best().number
        ring = points(panel, f"chosen: {drawn.best().decay}")
        np.testing.assert_allclose(ring, [table.loc[chosen, [name, "validation_loss"]].astype(float)], rtol=1e-12)
        assert all(one.get_linestyle() == "None" for one in panel.get_lines())
    assert [panel.get_xscale() for panel in panels] == ["log", "log", "linear"]
    assert len({panel.get_ylim() for panel in panels}) == 1
    check_looks(panels[0])


def test_plot_parallel_draws_each_candidate_as_a_line(drawn):
    ax, table = drawn.plot_parallel(), drawn.table()
    chosen = drawn.best().number
    heights = np.column_stack(
        [
            _logs(table["coefficient"]),
            _logs(table["learning_rate"]),
            (table["momentum"] - table["momentum"].min()) / np.ptp(table["momentum"]),
        ]
    )
    assert line(ax, f"chosen: {drawn.best().decay}")[1][:3] == pytest.approx(heights[chosen])
    lines = [np.asarray(one.get_ydata(), float) for one in ax.get_lines() if len(one.get_xdata()) == 4]
    shown = np.array([one[:3] for one in lines])
    finite = np.isfinite(table["validation_loss"].to_numpy())
    assert len(lines) == finite.sum() + 1  # the chosen one is drawn twice
    distances = np.abs(shown[:, None] - heights[None]).max(axis=2).min(axis=0)
    np.testing.assert_allclose(distances[finite], 0, atol=1e-12)
    # The brighter the line, the lower the loss.
    order = [one for one in ax.get_lines() if len(one.get_xdata()) == 4 and one.get_color() != "black"]
    bright = [np.dot(colors.to_rgb(one.get_color()), (0.2126, 0.7152, 0.0722)) for one in order]
    ends = [one.get_ydata()[-1] for one in order]
    assert np.all(np.diff(bright) >= -1e-9)
    assert np.all(np.diff(ends) <= 1e-9)
    dotted = [one for one in ax.get_lines() if one.get_linestyle() == ":"]
    assert len(dotted) == (~finite).sum() == 1
    check_looks(ax)


def _logs(values):
    logs = np.log10(values.to_numpy(float))
    return (logs - logs.min()) / np.ptp(logs)


def test_plot_parallel_crosses_below_an_axis_without_a_value(full):
    ax = full.plot_parallel()
    assert "below an axis: the candidate has no such value" in ax.get_legend().get_title().get_text().replace("\n", " ")
    check_looks(ax)


@pytest.mark.parametrize(
    ("x", "y"), [("momentum", "learning_rate"), ("decay", "normalization"), ("learning_rate", None)]
)
def test_plot_heatmap_takes_any_two_axes(full, x, y):
    ax, table = full.plot_heatmap(x=x, y=y), full.table()
    y = y or "coefficient"
    if "coefficient" in (x, y):
        table = table[table["coefficient"].notna()]
    (mesh,) = [one for one in ax.collections if hasattr(one, "get_array") and one.get_array() is not None]
    expected = table.groupby([y, x], sort=True)["validation_loss"].min().unstack()  # pandas leaves nan out
    cells = np.ma.filled(mesh.get_array(), np.nan)
    order = [value_axis.of(table, name).names for name in (y, x)]
    if "decay" in (x, y):
        expected = expected[list(order[1])]
    np.testing.assert_allclose(cells, expected.to_numpy(), rtol=1e-12)
    assert [ax.get_xlabel().split(",")[0], ax.get_ylabel().split(",")[0]] == [
        value_axis.of(table, name).label.split(",")[0] for name in (x, y)
    ]
    check_looks(ax)


def test_plot_heatmap_draws_points_of_a_random_grid_over_any_axes(drawn):
    ax, table = drawn.plot_heatmap(x="momentum", y="learning_rate"), drawn.table()
    finite = table[np.isfinite(table["validation_loss"])]
    (cloud,) = ax.collections
    np.testing.assert_allclose(cloud.get_offsets(), finite[["momentum", "learning_rate"]], rtol=1e-12)
    np.testing.assert_allclose(cloud.get_array(), finite["validation_loss"], rtol=1e-12)
    check_looks(ax)


def test_plot_heatmap_gives_rates_of_uneven_gaps_equal_steps():
    grid = wd.Grid(decay=decays(wd.L2, num=3), learning_rate=[1e-3, 1e-2, 1e-1, 1e30])
    ax = made(grid).plot_heatmap()
    assert [one.get_text() for one in ax.get_yticklabels()] == ["0.001", "0.01", "0.1", "1e+30"]
    np.testing.assert_allclose(np.diff(ax.get_yticks()), 1)
    check_looks(ax)


def test_plots_say_what_they_cannot_draw(full, drawn):
    with pytest.raises(
        ValueError, match=r"x is 'momentun'; give one of decay, coefficient, .* Did you mean 'momentum'"
    ):
        full.plot_heatmap(x="momentun", y="learning_rate")
    with pytest.raises(ValueError, match="y is 'momentum', as x is"):
        full.plot_heatmap(x="momentum", y="momentum")
    with pytest.raises(ValueError, match="decay is 'Luck'; give the name of a rule"):
        full.plot_heatmap(x="momentum", y="learning_rate", decay="Luck")
    with pytest.raises(ValueError, match="facets is 'decay'"):
        full.plot_path(facets="decay")
    with pytest.raises(ValueError, match="facets is 'momentum', which has 16 values"):
        drawn.plot_path(facets="momentum")
    with pytest.raises(ValueError, match="metric is 'luck'"):
        drawn.plot_slices("luck")
    with pytest.raises(ValueError, match="metric is 'luck'"):
        drawn.importance("luck")


def test_facets_share_axes_and_colours():
    result = made(wd.Grid(decay=decays(wd.L2, wd.Decoupled), learning_rate=[1e-3, 1e-2, 1e-1], seed=range(2)))
    panels, table = result.plot_path(facets="learning_rate"), result.table()
    assert [panel.get_title() for panel in panels] == [f"learning rate {rate}" for rate in ("0.001", "0.01", "0.1")]
    assert len({panel.get_ylim() for panel in panels}) == len({panel.get_xlim() for panel in panels}) == 1
    for panel, rate in zip(panels, (1e-3, 1e-2, 1e-1), strict=True):
        for rule in ("L2", "Decoupled"):
            rows = table[(table["decay"] == rule) & (table["learning_rate"] == rate)]
            np.testing.assert_allclose(points(panel, rule), rows[["coefficient", "validation_loss"]], rtol=1e-12)
        assert panel.get_legend() is None
    looks = {
        (one.get_label(), one.get_color(), one.get_marker())
        for panel in panels
        for one in panel.get_lines()
        if one.get_label() in ("L2", "Decoupled")
    }
    assert len(looks) == 2
    assert sum(any("chosen" in one.get_label() for one in panel.get_lines()) for panel in panels) == 1


def test_every_candidate_of_a_worse_facet_is_marked():
    result = made(wd.Grid(decay=wd.logspace(wd.L2, 1e-4, 1, 9), learning_rate=[1e-3, 1e-2]))
    table = result.table()
    good = 0.5 + 0.01 * np.abs(np.arange(9) - 4)
    for rate, losses in ((1e-3, good + 0.4), (1e-2, good)):
        rows = np.flatnonzero(table["learning_rate"] == rate)
        result.dataset["validation_loss"][rows, -1] = losses
    worse, better = result.plot_path(facets="learning_rate")
    np.testing.assert_allclose(np.sort(line(worse, "worse than shown")[0]), np.unique(table["coefficient"]), rtol=1e-12)
    assert not [one for one in better.get_lines() if one.get_label() == "worse than shown"]
    assert worse.get_ylim() == better.get_ylim()
    assert better.get_ylim()[1] < 0.8


def test_limits_hold_a_standard_error_of_the_best():
    grid = wd.Grid(decay=wd.logspace(wd.L2, 1e-4, 1, 9), learning_rate=[1e-2], seed=range(3))
    result = made(grid)
    of_candidates = [0.5, 0.501, 0.502, 0.503, 0.6, 0.7, 0.8, 0.9, 2.0]
    offsets = np.array([-0.1, 0.0, 0.1])
    for index, member in enumerate(grid):
        number = list(np.unique([m["decay"].coefficient for m in grid])).index(member["decay"].coefficient)
        result.dataset["validation_loss"][index, -1] = of_candidates[number] + offsets[member["seed"]]
    low, high = result.plot_path().get_ylim()
    error = 0.1 / np.sqrt(3)
    assert low < 0.5 - error
    assert 0.5 + error < high < 0.6


def test_colours_of_twelve_rules_differ():
    kinds = [wd.L2, wd.L1, wd.Decoupled, wd.Independent, wd.Corrected, wd.Cautious, wd.Stable, wd.Adaptive]
    kinds += [wd.ProximalL1, wd.ProximalL2, wd.Spectral, wd.Orthogonal]
    result = made(wd.Grid(decay=decays(*kinds, num=3), learning_rate=[1e-2]))
    names = {kind.__name__ for kind in kinds}
    shown = [one for one in result.plot_path().get_lines() if one.get_label() in names]
    assert len({one.get_color() for one in shown}) == len({one.get_marker() for one in shown}) == len(shown) == 12
    lab = np.array([_lab(colors.to_rgb(colour)) for colour in style.COLOURS])
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(apart) > 15  # 2.3 is what can just be told apart, side by side


def _lab(rgb):
    """CIELAB of sRGB, by the formulas of IEC 61966-2-1 and CIE 15."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (
        np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in matrix @ np.array(linear) / [0.9505, 1, 1.089]
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_points_are_joined_where_only_the_coefficient_differs():
    grid = wd.Grid(decay=decays(wd.L2, num=6), learning_rate=[1e-3, 1e-2])
    result = made(grid)
    losses = result.dataset["validation_loss"]
    # The best rate is the first one for the first three coefficients and the second one for the others.
    for index, member in enumerate(result.members):
        coefficient = getattr(member["decay"], "coefficient", 0)
        is_best = (member["learning_rate"] == 1e-3) == (coefficient < 10**-1.8)
        losses[index, -1] = 0.5 if is_best else 0.6
    (found,) = [one for one in table_lines.through(result.table(), "validation_loss", split=None).lines if one.column]
    assert found.joined == (True, True, False, True, True)
    assert found.runs() == [slice(0, 3), slice(3, 6)]
    ax = result.plot_path(split=None)
    (marked,) = [one for one in ax.get_lines() if one.get_label() == "L2"]
    assert marked.get_linestyle() == "None"
    joined = [one for one in ax.get_lines() if one.get_marker() == "" and len(one.get_xdata()) == 3]
    assert [len(one.get_xdata()) for one in joined] == [3, 3]
    assert "points that differ in learning rate are not joined" in ax.get_legend().get_title().get_text().replace(
        "\n", " "
    )
    check_looks(ax)


def test_basin_of_a_path_is_that_of_good_candidates():
    result = made(wd.Grid(decay=decays(wd.L2, num=12), learning_rate=[1e-2]))
    losses = [0.61, *(0.6 - 0.02 * np.sin(np.linspace(0, 3, 8))), 2.3, 5.0, np.nan, 400.0]
    result.dataset["validation_loss"][:, -1] = losses
    ax = result.plot_path()
    low, high = ax.get_ylim()
    assert 0.57 < low < 0.58
    assert 0.61 < high < 0.7
    coefficients = np.geomspace(1e-4, 1, 12)
    np.testing.assert_allclose(line(ax, "worse than shown")[0], coefficients[[8, 9, 11]])
    np.testing.assert_allclose(line(ax, "diverged, or not finite")[0], coefficients[[10]])
    accuracy = result.dataset["validation_accuracy"]
    accuracy[:, -1] = 1 - np.array([0.61, *losses[1:9], 0.9, 0.95, np.nan, 1.0])
    ax = result.plot_path("validation_accuracy")
    assert ax.get_ylim()[1] > 1 - 0.58
    assert ax.get_ylim()[0] > 0.3


def test_trials_of_methods_are_drawn_in_rows():
    values = {"one": [0.5, 0.6, 0.55], "two": [0.7, np.nan, 90.0], "three": [np.nan]}
    ax = trials(values, {"one": 0.5, "two": 0.7}, "validation_loss", loss="softmax_cross_entropy")
    assert [one.get_text() for one in ax.get_yticklabels()] == ["one", "two", "three"]
    assert ax.get_xlim()[1] < 90
    assert [one.get_ydata() for one in ax.get_lines() if one.get_marker() == ">"] == [[1]]
    assert [one.get_ydata() for one in ax.get_lines() if one.get_marker() == "x"] == [[1], [2]]
    assert line(ax, "worse than shown")[1] == [1]
    assert line(ax, "chosen")[0] == [0.5]
