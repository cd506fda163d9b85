"""Plots show what a result holds, with units, and nothing lies over anything else."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors, pyplot

import weightdecay as wd
from made_results import LAYERS, STEPS, made
from weightdecay.core import rule_facts
from weightdecay.decay import KINDS
from weightdecay.plots import axis_labels, heatmap, style, table_lines
from weightdecay.plots.weights import weights
from weightdecay.results.grid_result import GridResult


def decays(*rules, num=5):
    return [wd.NoDecay(), *itertools.chain(*(wd.logspace(rule, 1e-4, 1e0, num) for rule in rules))]


@pytest.fixture(scope="module")
def result():
    return made(wd.Grid(decay=decays(wd.ProximalL1, wd.L2), learning_rate=[1e-2], seed=range(3)))


@pytest.fixture(scope="module")
def rates():
    grid = wd.Grid(decay=decays(wd.Decoupled, wd.L2), learning_rate=[1e-3, 1e-2, 1e-1], seed=range(2))
    return made(grid, died=(len(grid) - 1,))


def line(ax, label):
    (found,) = [one for one in ax.get_lines() if one.get_label() == label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def of_rule(result, rule):
    """Means and standard errors of a rule's candidates at the last step, by pandas."""
    last = result.dataset.isel(step=-1)
    names = ["decay", "coefficient", "learning_rate", "validation_loss", "validation_accuracy", "train_accuracy"]
    frame = pd.DataFrame({name: last[name].values for name in names}).query("decay == @rule").astype({"decay": str})
    for name in ("validation_loss", "validation_accuracy", "train_accuracy"):
        frame[name] = frame[name].astype(np.float64)
    return frame.assign(gap=frame["train_accuracy"] - frame["validation_accuracy"])


def overlapping(boxes):
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def check_looks(ax):
    """Every axis has a label with a unit, the legend covers no data, labels do not touch, and all stays on the page."""
    figure = ax.figure
    figure.canvas.draw()
    page = figure.bbox.padded(1)  # pixel, for rounding
    for label in (ax.get_xlabel(), ax.get_ylabel()):
        assert re.search(r", .+| in .+", label), f"no unit in {label!r}"
    legend = ax.get_legend()
    if legend is not None:
        assert not legend.get_window_extent().overlaps(ax.get_window_extent().padded(-1))
        assert page.containsx(legend.get_window_extent().x1)
        assert page.containsy(legend.get_window_extent().y1)
    for axis in (ax.xaxis, ax.yaxis):
        shown = [one.get_window_extent() for one in axis.get_ticklabels() if one.get_text() and one.get_visible()]
        inside = [box for box in shown if page.overlaps(box)]
        assert not overlapping(inside)
        label = axis.label.get_window_extent()
        assert page.containsx(label.x0)
        assert page.containsy(label.y0)
        assert page.containsx(label.x1)
        assert page.containsy(label.y1)
        assert not any(label.overlaps(box) for box in inside)


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS)
def test_units_are_those_of_the_rules_docstrings(rule):
    told = rule.units()
    assert list(rule(**dict.fromkeys(told, 0.1)).coefficients()) == list(told)
    for name, unit in told.items():
        (said,) = re.findall(rf"^      {name}: ((?:.|\n       )+)", rule.__doc__, re.MULTILINE)
        said = re.sub(r"\s+", " ", said).replace("Number of steps", "step")
        for part in unit.removesuffix(" if decoupled").split(", or "):
            assert part == "no unit" or re.search(rf"{re.escape(part)}(?![²^\w])", said), (name, unit, said)
        assert axis_labels.is_coefficient(rule_facts.column(name))


def test_plot_path_draws_means_and_errors_by_coefficient(result):
    ax = result.plot_path()
    bands = ax.collections
    for place, rule in enumerate(("ProximalL1", "L2")):
        by_hand = of_rule(result, rule).groupby("coefficient")["validation_loss"].agg(["mean", "sem"]).reset_index()
        # The same float32 numbers averaged in float64, in another order.
        np.testing.assert_allclose(line(ax, rule), by_hand[["coefficient", "mean"]].to_numpy().T, rtol=1e-12)
        low, high = by_hand["mean"] - by_hand["sem"], by_hand["mean"] + by_hand["sem"]
        edges = bands[place].get_paths()[0].vertices
        for x, bottom, top in zip(by_hand["coefficient"], low, high, strict=True):
            ends = edges[np.isclose(edges[:, 0], x), 1]
            np.testing.assert_allclose((ends.min(), ends.max()), (bottom, top), rtol=1e-12)
    none = of_rule(result, "NoDecay")["validation_loss"]
    np.testing.assert_allclose(line(ax, "no decay")[1], none.mean(), rtol=1e-12)
    chosen = result.best()
    assert line(ax, f"chosen: {chosen.decay}")[1] == [chosen.mean]
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "validation loss, nats"
    check_looks(ax)


def test_plot_path_marks_the_choice_by_its_own_metric(result):
    chosen = result.best(metric="validation_accuracy")
    ax = result.plot_path("validation_accuracy")
    assert line(ax, f"chosen: {chosen.decay}")[1] == [chosen.mean]
    assert ax.get_ylabel() == "validation accuracy, fraction of examples"


def test_plot_path_rings_no_decay_on_the_left_axis():
    result = made(wd.Grid(decay=decays(wd.L2, num=3), learning_rate=[1e-2], seed=range(2)))
    result.dataset["validation_loss"][:2, -1] = 0.1
    ax = result.plot_path()
    x, y = line(ax, "chosen: NoDecay()")
    assert x == [0]
    np.testing.assert_allclose(y, 0.1, rtol=1e-6)  # float32
    (ring,) = [one for one in ax.get_lines() if one.get_label() == "chosen: NoDecay()"]
    ax.figure.canvas.draw()
    np.testing.assert_allclose(ring.get_transform().transform((0, 0.1))[0], ax.get_window_extent().x0)


def test_plot_path_splits_learning_rates_and_crosses_what_diverged(rates):
    ax = rates.plot_path()
    labels = [one.get_label() for one in ax.get_lines()]
    assert "Decoupled, learning rate 0.001" in labels
    assert "L2, learning rate 0.1" in labels
    assert "no decay, learning rate 0.01" in labels
    assert line(ax, "diverged, or not finite")[0].tolist() == [1.0]
    for rule, rate in (("Decoupled", 0.01), ("L2", 0.001)):
        by_hand = of_rule(rates, rule).query("learning_rate == @rate").groupby("coefficient")["validation_loss"].mean()
        np.testing.assert_allclose(line(ax, f"{rule}, learning rate {rate:g}")[1], by_hand, rtol=1e-12)
    check_looks(ax)


@pytest.mark.slow
def test_plot_path_takes_the_best_over_what_is_on_no_axis(rates):
    ax = rates.plot_path(split=None)
    means = of_rule(rates, "Decoupled").groupby(["coefficient", "learning_rate"])["validation_loss"].mean()
    np.testing.assert_allclose(line(ax, "Decoupled")[1], means.groupby("coefficient").min(), rtol=1e-12)
    assert "best over learning rate" in ax.get_legend().get_title().get_text()
    ax = rates.plot_path("validation_accuracy", split=None)
    means = of_rule(rates, "Decoupled").groupby(["coefficient", "learning_rate"])["validation_accuracy"].mean()
    np.testing.assert_allclose(line(ax, "Decoupled")[1], means.groupby("coefficient").max(), rtol=1e-12)


@pytest.mark.slow
def test_plot_path_splits_by_any_axis():
    grid = wd.Grid(decay=decays(wd.L2, num=3), learning_rate=[1e-3, 1e-2], momentum=[0.0, 0.9], dropout_rate=[0.0, 0.5])
    result = made(grid)
    ax = result.plot_path(split="momentum")
    assert {"L2, momentum 0", "L2, momentum 0.9"} < {one.get_label() for one in ax.get_lines()}
    assert "best over learning rate, dropout rate" in ax.get_legend().get_title().get_text()
    with pytest.raises(ValueError, match="split is 'luck'; give one of learning_rate, momentum, dropout_rate, or None"):
        result.plot_path(split="luck")


@pytest.mark.slow
def test_plot_path_joins_no_points_of_a_random_grid():
    rng = np.random.default_rng(1)
    pairs = [(float(10 ** rng.uniform(-4, 0)), float(10 ** rng.uniform(-4, -1))) for _ in range(20)]
    grid = wd.Grid(decay=[wd.L2(pairs[0][0])], learning_rate=[pairs[0][1]])
    for coefficient, rate in pairs[1:]:
        grid = grid + wd.Grid(decay=[wd.L2(coefficient)], learning_rate=[rate])
    result = made(grid)
    ax = result.plot_path()
    (points,) = [one for one in ax.get_lines() if one.get_label() == "L2"]
    assert points.get_linestyle() == "None"
    assert "each point has its own learning rate" in ax.get_legend().get_title().get_text()
    check_looks(ax)
    ax = result.plot_heatmap()
    (cloud,) = ax.collections
    assert len(cloud.get_offsets()) == 20
    np.testing.assert_allclose(sorted(map(tuple, cloud.get_offsets())), sorted(pairs), rtol=1e-12)
    check_looks(ax)


def test_plot_path_keeps_the_basin_readable():
    result = made(wd.Grid(decay=decays(wd.L2), learning_rate=[1e-2]))
    result.dataset["validation_loss"][3, -1] = 40
    best = result.table()["validation_loss"].min()
    assert result.plot_path().get_ylim()[1] <= 2.6 * best


def test_plot_path_draws_into_given_axes(result):
    _, ax = pyplot.subplots()
    assert result.plot_path("weight_norm", ax=ax) is ax
    check_looks(ax)
    with pytest.raises(ValueError, match="metric is 'luck'; give one of validation_accuracy"):
        result.plot_path("luck")


def test_plot_path_gives_a_coefficient_of_zero_its_place():
    decay = [wd.NoDecay(), wd.L2(0.0), *wd.logspace(wd.L2, 1e-6, 1e0, 7)]
    ax = made(wd.Grid(decay=decay, learning_rate=[1e-2])).plot_path()
    assert line(ax, "L2")[0][0] == 0
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim()[0] < 0
    assert next(one.get_text() for one in ax.get_xticklabels()) == "0"
    check_looks(ax)


def test_plot_path_takes_rules_of_every_form():
    decay = [
        *(wd.ElasticNet(c, 0.1) for c in (1e-3, 1e-2)),
        *(wd.L2(wd.PerLayer({"Dense_0": c, "Dense_1": 0.1})) for c in (1e-3, 1e-2, 1e-1)),
        *((wd.Masked(wd.L2(c), wd.masks.first), wd.ProximalL1(0.1)) for c in (1e-3, 1e-2)),
        *(wd.Huber(c, delta) for c in (1e-3, 1e-2) for delta in (0.1, 1.0)),
        *wd.logspace(wd.MaxNorm, 0.5, 2.0, 3),
    ]
    result = made(wd.Grid(decay=decay, learning_rate=[1e-2]))
    ax = result.plot_path()
    assert line(ax, "ElasticNet by l1 coefficient")[0].tolist() == [1e-3, 1e-2]
    assert line(ax, "L2 by coefficient of Dense_0")[0].tolist() == [1e-3, 1e-2, 1e-1]
    assert line(ax, "L2 on first + ProximalL1 by L2 on first")[0].tolist() == [1e-3, 1e-2]
    assert line(ax, "Huber")[0].tolist() == [1e-3, 1e-2]
    assert line(ax, "MaxNorm")[0].tolist() == [0.5, 1.0, 2.0]
    assert "best over delta" in ax.get_legend().get_title().get_text()
    assert "MaxNorm in weight" in ax.get_xlabel().replace("\n", " ")
    check_looks(ax)


def test_plot_path_tells_the_best_of_many_rules_apart():
    kinds = [KINDS[name] for name in KINDS if list(KINDS[name].units()) == ["coefficient"] and KINDS[name].neutral == 0]
    result = made(wd.Grid(decay=decays(*kinds, num=3), learning_rate=[1e-2]))
    ax = result.plot_path()
    best = result.table().groupby("decay")["validation_loss"].min().drop("NoDecay").nsmallest(table_lines.MAX_LINES)
    coloured = {
        one.get_label() for one in ax.get_lines() if colors.to_hex(one.get_color()) in map(str.lower, style.COLOURS)
    }
    assert coloured >= set(best.index)
    assert line(ax, f"{len(kinds) - table_lines.MAX_LINES} others, worse")[0].size == 3
    check_looks(ax)


def test_legends_of_many_lines_end():
    _, ax = pyplot.subplots()
    for place in range(40):
        ax.plot([0, 1], [0, place], label=f"line {place}")
    style.finish(style.axes(ax), "time, s", "length, m")
    words = [one.get_text() for one in ax.get_legend().get_texts()]
    assert words == [*(f"line {place}" for place in range(14)), "and 23 others", "line 37", "line 38", "line 39"]
    check_looks(ax)


def test_plot_sparsity_tells_who_makes_zeros(result):
    ax, table = result.plot_sparsity(), result.table()
    zeros = table[table["decay"] == "ProximalL1"]["zero_fraction"]
    np.testing.assert_allclose(line(ax, "ProximalL1")[1], zeros)
    assert line(ax, "none: L2, no decay")[1][0] == 0
    check_looks(ax)


@pytest.mark.slow
def test_plot_gap_draws_means_and_errors(result, rates):
    ax = result.plot_gap()
    by_hand = of_rule(result, "L2").groupby("coefficient")["gap"].agg(["mean", "sem"])
    # Differences of float32 numbers near 1 here, of float64 there: 1e-7.
    np.testing.assert_allclose(line(ax, "L2")[1], by_hand["mean"], atol=1e-7)
    bars = ax.collections[-1].get_segments()
    for segment, mean, error in zip(bars, by_hand["mean"], by_hand["sem"], strict=True):
        np.testing.assert_allclose(segment[:, 1], (mean - error, mean + error), atol=1e-7)
    assert ax.get_ylabel().replace("\n", " ") == (
        "generalization gap (training minus validation accuracy), fraction of examples"
    )
    check_looks(ax)
    check_looks(rates.plot_gap())


def test_plot_gap_of_a_regression_is_one_of_losses():
    result = made(wd.Grid(decay=decays(wd.L2, num=3), learning_rate=[1e-2]), accuracy=False, loss="squared_error")
    ax = result.plot_gap()
    last = result.dataset.isel(step=-1)
    expected = (last["validation_loss"] - last["train_loss"]).values[1:]
    np.testing.assert_allclose(line(ax, "L2")[1], expected, rtol=1e-6)  # float32
    assert "validation minus training loss), target²" in ax.get_ylabel().replace("\n", " ")
    check_looks(ax)


def cells(ax):
    return ax.collections[0].get_array()


def test_plot_heatmap_draws_the_mean_of_each_cell(rates):
    ax = rates.plot_heatmap(decay="Decoupled")
    means = of_rule(rates, "Decoupled").groupby(["learning_rate", "coefficient"])["validation_loss"].mean().unstack()
    np.testing.assert_allclose(cells(ax), means.to_numpy(), rtol=1e-12)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    corners = ax.collections[0].get_coordinates()
    np.testing.assert_allclose(np.sqrt(corners[0, :-1, 0] * corners[0, 1:, 0]), means.columns, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(corners[:-1, 0, 1] * corners[1:, 0, 1]), means.index, rtol=1e-12)
    assert ax.figure.axes[1].get_ylabel() == "validation loss, nats"
    assert ax.get_xlabel() == "coefficient c of Decoupled, 1 / (step · learning rate)"
    check_looks(ax)


def test_plot_heatmap_writes_numbers_that_can_be_read(rates):
    ax = rates.plot_heatmap(decay="Decoupled")
    means = of_rule(rates, "Decoupled").groupby(["coefficient", "learning_rate"])["validation_loss"].mean()
    written = {text.get_position(): text for text in ax.texts if text.get_transform() == ax.transData}
    assert len(written) == len(means)
    ax.figure.canvas.draw()
    for place, mean in means.items():
        text = written[place]
        assert text.get_text() == f"{mean:.3g}"
        background = text.get_bbox_patch().get_facecolor()[:3]
        shades = sorted(luminance(colour) for colour in (background, colors.to_rgb(text.get_color())))
        assert (shades[1] + 0.05) / (shades[0] + 0.05) > 4.5  # WCAG 2.1, level AA
    assert not overlapping([text.get_window_extent() for text in written.values()])


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_plot_heatmap_leaves_numbers_out_that_do_not_fit():
    result = made(wd.Grid(decay=wd.logspace(wd.L2, 1e-8, 1e0, 25), learning_rate=[1e-3, 1e-2]))
    ax = result.plot_heatmap()
    assert not ax.texts
    check_looks(ax)


@pytest.mark.slow
def test_plot_heatmap_rings_the_chosen_cell(rates):
    chosen = rates.best()
    ax = rates.plot_heatmap()
    (ring,) = [one for one in ax.patches if one.get_label() == f"chosen: {chosen.decay}"]
    (left, bottom), (right, top) = ring.get_bbox().get_points()
    coefficient, rate = chosen.decay.coefficient, chosen.hyperparameters["learning_rate"]
    assert coefficient / 10 < left < coefficient < right < 10 * coefficient
    assert rate / 10 < bottom < rate < top < 10 * rate
    other = "Decoupled" if chosen.decay.name == "L2" else "L2"
    assert not [one for one in rates.plot_heatmap(decay=other).patches if str(one.get_label()).startswith("chosen")]


def test_plot_heatmap_hatches_what_diverged(rates):
    ax = rates.plot_heatmap(decay="L2")
    (hatched,) = [one for one in ax.patches if one.get_hatch()]
    (left, bottom), (right, top) = hatched.get_bbox().get_points()
    assert 0.1 < left < 1.0 < right < 10
    assert 0.01 < bottom < 0.1 < top < 1
    assert "diverged, or not finite" in [one.get_text() for one in ax.get_legend().get_texts()]
    assert np.ma.getmaskarray(cells(ax)).sum() == 1


def scales(ax):
    return {float(one.get_gid().split()[-1]): one.get_xydata() for one in ax.get_lines() if one.get_gid()}


@pytest.mark.slow
@pytest.mark.parametrize("rule", [wd.Decoupled, wd.Corrected, wd.Cautious])
def test_plot_heatmap_draws_lines_of_equal_time_scale(rule):
    ax = made(wd.Grid(decay=wd.logspace(rule, 1e-3, 1e1, 5), learning_rate=[1e-3, 1e-2, 1e-1])).plot_heatmap()
    found = scales(ax)
    # The map ends at 10^-3.5 and 10^1.5, 10^-3.5 and 10^-0.5: τ from 0.1 in the upper right corner, 1e4 in the left.
    assert sorted(found) == [1, 10, 100, 1e3]
    for scale, points in found.items():
        np.testing.assert_allclose(points.prod(axis=1) * scale, 1, rtol=1e-12)
    said = {text.get_text() for text in ax.texts}
    assert {"1", "10", "100", "1000", "τ, steps:"} <= said
    check_looks(ax)
    outside = [text.get_window_extent() for text in ax.texts if text.get_transform() != ax.transData]
    assert not overlapping(outside)
    assert not any(box.overlaps(ax.get_legend().get_window_extent()) for box in outside)


def test_plot_heatmap_draws_the_time_scale_of_independent_decay_upright():
    ax = made(wd.Grid(decay=wd.logspace(wd.Independent, 1e-6, 1e-2, 5), learning_rate=[1e-3, 1e-2])).plot_heatmap()
    found = scales(ax)
    assert sorted(found) == [100, 1e3, 1e4, 1e5, 1e6]
    for scale, points in found.items():
        np.testing.assert_allclose(points[:, 0] * scale, 1, rtol=1e-12)
    check_looks(ax)


def test_plot_heatmap_draws_no_time_scale_of_a_penalty(rates):
    assert not scales(rates.plot_heatmap(decay="L2"))


def test_plot_heatmap_takes_the_best_over_other_axes():
    grid = wd.Grid(decay=wd.logspace(wd.L2, 1e-3, 1e-1, 3), learning_rate=[1e-3, 1e-2], momentum=[0.0, 0.9])
    result = made(grid)
    ax = result.plot_heatmap("validation_accuracy")
    means = result.table().groupby(["learning_rate", "coefficient"])["validation_accuracy"].max().unstack()
    np.testing.assert_allclose(cells(ax), means.to_numpy(), rtol=1e-12)
    assert ax.get_legend().get_title().get_text() == "best over momentum"


def test_plot_heatmap_takes_schedules():
    schedules = [wd.schedules.Cosine(rate, 100) for rate in (1e-3, 1e-2)]
    ax = made(wd.Grid(decay=wd.logspace(wd.Decoupled, 1e-3, 1e-1, 3), learning_rate=schedules)).plot_heatmap()
    assert [one.get_text() for one in ax.get_yticklabels()] == [str(one) for one in schedules]
    assert not scales(ax)
    check_looks(ax)


@pytest.mark.slow
def test_plot_heatmap_tells_what_it_cannot_draw(result, rates):
    with pytest.raises(ValueError, match=r"one learning rate, 0\.01; a heat map needs several: add an axis"):
        result.plot_heatmap()
    with pytest.raises(
        ValueError, match="decay is 'Luck'; give the name of a rule of the grid: NoDecay, Decoupled, L2"
    ):
        rates.plot_heatmap(decay="Luck")
    with pytest.raises(ValueError, match="decay is 'NoDecay', which has no coefficient above 0"):
        rates.plot_heatmap(decay="NoDecay")
    with pytest.raises(ValueError, match="metric is 'seed'"):
        rates.plot_heatmap("seed")


def test_plot_curves_shows_the_chosen_beside_no_decay(result):
    ax = result.plot_curves()
    chosen = result.best()
    each = result.dataset["validation_loss"].values[list(chosen.members)].astype(float)
    np.testing.assert_allclose(line(ax, f"{chosen.decay}, validation loss")[1], each.mean(axis=0), rtol=1e-12)
    edges = ax.collections[0].get_paths()[0].vertices
    error = each.std(axis=0, ddof=1) / np.sqrt(len(each))
    for step, mean, one in zip(STEPS, each.mean(axis=0), error, strict=True):
        ends = edges[edges[:, 0] == step, 1]
        np.testing.assert_allclose((ends.min(), ends.max()), (mean - one, mean + one), rtol=1e-12)
    assert line(ax, "NoDecay(), training loss")[0].tolist() == STEPS.tolist()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("training step, number of updates", "data loss, nats")
    check_looks(ax)
    ax = result.plot_curves("accuracy", candidates=[2])
    each = result.dataset["train_accuracy"].values[6:9].astype(float)
    (label,) = [one.get_label() for one in ax.get_lines() if "training accuracy" in one.get_label()]
    np.testing.assert_allclose(line(ax, label)[1], each.mean(axis=0), rtol=1e-12)
    check_looks(ax)


def test_plot_curves_marks_where_members_end():
    result = made(wd.Grid(decay=[wd.L2(0.1)], learning_rate=[1e-2], seed=range(3)), died=(1,))
    result.dataset["stopped_at"][2] = 70
    ax = result.plot_curves(candidates=[0])
    values = result.dataset["validation_loss"].values
    np.testing.assert_allclose(line(ax, "a member diverged"), [[60], [values[1, 4]]], rtol=1e-6)
    np.testing.assert_allclose(line(ax, "a member stopped"), [[70], [values[2, 6]]], rtol=1e-6)
    check_looks(ax)


def test_plot_curves_tells_what_it_cannot_draw(result):
    with pytest.raises(ValueError, match="metric is 'luck'; give one of "):
        result.plot_curves("luck")
    with pytest.raises(ValueError, match="candidates is 99; give numbers from 0 to 10"):
        result.plot_curves(candidates=[99])
    regression = made(wd.Grid(decay=[wd.L2(0.1)], learning_rate=[1e-2]), accuracy=False)
    with pytest.raises(ValueError, match="metric is 'accuracy', but this loss has none"):
        regression.plot_curves("accuracy")


def test_plot_norms_draws_each_layer_against_the_coefficient(result):
    ax = result.plot_norms(decay="L2")
    last = result.dataset.isel(step=-1)
    norm = last["layer_weight_norm"].values[last["decay"].values == "L2"].reshape(5, 3, 2).mean(axis=1)
    for place, layer in enumerate(LAYERS):
        np.testing.assert_allclose(line(ax, layer), (np.geomspace(1e-4, 1, 5), norm[:, place]), rtol=1e-12)
    none = last["layer_weight_norm"].values[:3, 0].mean()
    np.testing.assert_allclose(line(ax, "no decay, in the layer's colour")[1], none, rtol=1e-12)
    check_looks(ax)
    with pytest.raises(ValueError, match="decay is 'Luck'; give the name of a rule"):
        result.plot_norms(decay="Luck")
    with pytest.raises(ValueError, match="along is 'time'; give 'coefficient' or 'step'"):
        result.plot_norms("time")


def test_plot_norms_takes_weights_where_no_norms_are_recorded(result):
    older = GridResult(result.dataset.drop_vars("layer_weight_norm"), result.members, result._weights, {})
    ax = older.plot_norms(decay="L2")
    norms = [
        [np.sqrt((result.params(3 * c + s)["Dense_1"]["kernel"] ** 2).sum()) for s in range(3)] for c in range(6, 11)
    ]
    np.testing.assert_allclose(line(ax, "Dense_1/kernel")[1], np.mean(norms, axis=1), rtol=1e-12)
    assert not any("bias" in one.get_label() for one in ax.get_lines())
    with pytest.raises(ValueError, match="dataset has no 'layer_weight_norm', which results of earlier versions lack"):
        older.plot_norms("step")


def test_plot_norms_draws_each_layer_along_training(result):
    ax = result.plot_norms("step")
    chosen = result.best()
    norms = result.dataset["layer_weight_norm"].values[list(chosen.members), :, 1].mean(axis=0)
    np.testing.assert_allclose(line(ax, "Dense_1/kernel"), (STEPS, norms), rtol=1e-12)
    check_looks(ax)


def test_plot_rotation_draws_the_angle_and_the_predicted_one(result):
    ax = result.plot_rotation(candidates=[4])
    angles = result.dataset["rotation"].values[12:15].mean(axis=0)
    for place, layer in enumerate(LAYERS):
        np.testing.assert_allclose(line(ax, layer), (STEPS, angles[:, place]), rtol=1e-12)
    label = "predicted equilibrium, in the layer's colour"
    np.testing.assert_allclose(line(ax, label)[1], 0.05, rtol=1e-12)
    (predicted,) = [one for one in ax.get_lines() if one.get_label() == label]
    assert predicted.get_linestyle() == "--"
    assert predicted.get_color() == style.COLOURS[1]
    assert len(ax.get_lines()) == 3  # the first layer has no prediction
    assert ax.get_ylabel() == "rotation of a layer, radians per step"
    check_looks(ax)
    older = GridResult(result.dataset.drop_vars("rotation"), result.members, result._weights, {})
    with pytest.raises(ValueError, match="dataset has no 'rotation', which results of earlier versions lack"):
        older.plot_rotation()


def test_plot_weights_counts_weights_and_tells_zeros_apart(result):
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(20, 10))
    kernel[:5] = 0
    ax = weights({"sparse": [{"Dense_0": {"kernel": kernel, "bias": np.ones(10)}}]})
    (steps,) = ax.patches
    heights, edges, base = steps.get_data()
    counts, _ = np.histogram(kernel[kernel != 0], edges)
    # Heights are log(1 + count), the tallest 0.85 of a row.
    np.testing.assert_allclose((heights - base) / 0.85 * np.log1p(counts.max()), np.log1p(counts), rtol=1e-9)
    assert counts.sum() == 150
    assert [one.get_text() for one in ax.get_yticklabels()] == ["Dense_0/kernel\nzeros: 0.25"]
    check_looks(ax)
    ax = result.plot_weights()
    assert {one.get_label() for one in ax.patches} >= {str(result.best().decay), "NoDecay()"}
    check_looks(ax)


def test_plot_weights_takes_deep_networks_and_odd_weights():
    deep = {f"Dense_{place}": {"kernel": np.full((2, 2), place - 3.0)} for place in range(20)}
    ax = weights({"deep": [deep]})
    assert "12 of 20 arrays" in ax.get_legend().get_title().get_text()
    check_looks(ax)
    ax = weights({"nan": [np.array([np.nan, 0.0, 0.0])]})
    assert [one.get_text() for one in ax.get_yticklabels()] == ["weights\nzeros: 1"]


@pytest.mark.slow
def test_plot_norms_takes_deep_networks():
    layers = [f"Block_{place}/kernel" for place in range(30)]
    result = made(wd.Grid(decay=decays(wd.L2, num=3), learning_rate=[1e-2]), layers=layers)
    for ax in (result.plot_norms(), result.plot_norms("step"), result.plot_rotation()):
        words = [one.get_text() for one in ax.get_legend().get_texts()]
        assert len(words) <= style.MAX_LEGEND_ENTRIES
        assert sum(word.startswith("and ") for word in words) == 1
        check_looks(ax)


def methods(result):
    yield result.plot_path
    yield result.plot_sparsity
    yield result.plot_gap
    yield result.plot_curves
    yield result.plot_norms
    yield lambda ax=None: result.plot_norms("step", ax=ax)
    yield result.plot_weights
    yield result.plot_rotation
    if heatmap.rules(result.table()):
        yield result.plot_heatmap


@pytest.mark.slow
@pytest.mark.parametrize(
    "small",
    [
        lambda: made([{"decay": wd.L2(0.1), "learning_rate": 1e-2, "seed": 0}]),
        lambda: made([{"decay": wd.NoDecay(), "learning_rate": 1e-2, "seed": 0}]),
        lambda: made(wd.Grid(decay=[wd.L2(0.0)], learning_rate=[1e-2], seed=range(2)), steps=STEPS[:1]),
        lambda: made(wd.Grid(decay=decays(wd.L2, num=3), learning_rate=[1e-2], seed=range(2)), accuracy=False),
        lambda: made(wd.Grid(decay=decays(wd.L2, num=3), learning_rate=[1e-3, 1e-2]), died=range(8)),
        lambda: made(wd.Grid(decay=decays(wd.L2, num=3), learning_rate=[1e-3, 1e-2]), died=range(8), steps=STEPS[:1]),
        lambda: made(wd.Grid(decay=decays(wd.L2, num=2), learning_rate=[1e-2], fold=range(3), seed=range(2))),
        lambda: made(wd.Grid(decay=decays(wd.L2, wd.L1, num=30), learning_rate=[1e-3, 1e-2])),
    ],
    ids=["one", "no decay", "one step, zero", "regression", "nan", "nan from the start", "folds", "122 candidates"],
)
def test_every_plot_takes_every_result(small):
    result = small()
    for method in methods(result):
        _, ax = pyplot.subplots()
        assert method(ax=ax) is ax
        check_looks(ax)


@pytest.mark.slow
def test_title_that_the_user_sets_is_above_the_legend(result, rates):
    for ax in (result.plot_path(), result.plot_weights(), rates.plot_heatmap(), rates.plot_path()):
        ax.set_title("A title")
        check_looks(ax)
        title = ax.title.get_window_extent()
        assert title.y0 > ax.get_legend().get_window_extent().y1
        assert ax.figure.bbox.padded(1).containsy(title.y1)
        ax.get_legend().remove()
        ax.figure.canvas.draw()
        assert ax.title.get_window_extent().y0 - ax.bbox.y1 < title.height


@pytest.mark.slow
def test_plots_make_new_axes(rates):
    axes = [method() for method in methods(rates)]
    assert len({ax.figure.number for ax in axes}) == len(axes) == 9


@pytest.mark.slow
@pytest.mark.parametrize("which", ["rates", "result", "dense"])
def test_plot_puts_the_telling_four_on_a_page(which, request):
    dense = made(wd.Grid(decay=decays(wd.L2), learning_rate=[1e-2]))
    result = dense if which == "dense" else request.getfixturevalue(which)
    figure = result.plot()
    panels = [ax for ax in figure.axes if ax.get_xlabel()]
    said = [ax.get_ylabel().split(",")[0].replace("\n", " ") for ax in panels]
    second = "learning rate" if which == "rates" else "generalization gap (training minus validation accuracy)"
    assert said == ["validation loss", second, "data loss", "exact zeros" if which == "result" else "norm of a layer"]
    assert str(result.best()) in figure.get_suptitle()
    for ax in panels:
        check_looks(ax)
    boxes = [ax.get_tightbbox() for ax in panels]
    assert not overlapping(boxes)


def test_looks_differ_in_more_than_colour():
    looks = [style.line_style(rule, rate) for rule in range(9) for rate in range(4)]
    assert len({(one["marker"], one["linestyle"]) for one in looks}) == len(looks)


@pytest.mark.parametrize(
    ("values", "most"), [(np.geomspace(1e-9, 1e3, 13), 7), (np.array([1.0, 1.1, 1.9]), 3), (np.array([5.0]), 1)]
)
def test_ticks_are_few(values, most):
    assert 1 <= len(style.ticks_among(values)) <= most
