"""Plots show what the table holds."""

import numpy as np
import pytest
from matplotlib import pyplot

import weightdecay as wd


@pytest.fixture(scope="module")
def result():
    decay = [wd.NoDecay(), *wd.logspace(wd.ProximalL1, 1e-4, 1e-2, 3), *wd.logspace(wd.L2, 1e-3, 1e1, 3)]
    return wd.fit_grid(
        wd.models.MLP((8,)),
        wd.data.digits(num_train=120),
        wd.Grid(decay=decay, learning_rate=[1e-2], seed=range(2)),
        num_steps=60,
        batch_size=20,
        progress=False,
    )


def line(ax, label):
    (found,) = [one for one in ax.get_lines() if one.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def test_plot_path_draws_the_means_by_coefficient(result):
    ax, table = result.plot_path(), result.table()
    for kind in ("ProximalL1", "L2"):
        rows = table[table["decay"] == kind]
        np.testing.assert_allclose(line(ax, kind), rows[["coefficient", "validation_loss"]].to_numpy().T)
    assert line(ax, "no decay")[1][0] == table["validation_loss"][0]
    chosen = result.best()
    assert line(ax, f"chosen: {chosen.decay}")[1] == [chosen.mean]
    assert ax.get_xscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("coefficient, in the unit of its rule", "validation loss")


def test_plot_path_marks_the_choice_by_its_own_metric(result):
    chosen = result.best(metric="validation_accuracy")
    ax = result.plot_path("validation_accuracy")
    assert line(ax, f"chosen: {chosen.decay}")[1] == [chosen.mean]


def test_plot_path_keeps_the_basin_readable(result):
    best = result.table()["validation_loss"].min()
    assert result.plot_path().get_ylim()[1] <= 2.6 * best


def test_plot_path_draws_into_given_axes(result):
    _, ax = pyplot.subplots()
    assert result.plot_path("weight_norm", ax=ax) is ax
    with pytest.raises(ValueError, match="metric is 'luck'; give one of validation_loss"):
        result.plot_path("luck")


def test_plot_sparsity_tells_who_makes_zeros(result):
    ax, table = result.plot_sparsity(), result.table()
    zeros = table[table["decay"] == "ProximalL1"]["zero_fraction"]
    assert zeros.iloc[-1] > 0.1
    np.testing.assert_allclose(line(ax, "ProximalL1")[1], zeros)
    assert line(ax, "none: L2, no decay")[1][0] == 0


def test_plot_curves_shows_the_chosen_beside_no_decay(result):
    ax = result.plot_curves()
    chosen = result.best()
    expected = result.dataset["validation_loss"].values[list(chosen.members)].mean(axis=0)
    np.testing.assert_allclose(line(ax, f"{chosen.decay}, validation loss")[1], expected, rtol=1e-6)  # float32 means
    assert line(ax, "NoDecay(), training loss")[0].tolist() == result.dataset["step"].values.tolist()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("training step", "data loss")


def test_plots_tell_learning_rates_apart():
    result = wd.fit_grid(
        wd.models.MLP((8,)),
        wd.data.digits(num_train=120),
        wd.Grid(decay=[wd.NoDecay(), *wd.logspace(wd.L2, 1e-3, 1e-1, 2)], learning_rate=[1e-3, 1e-2]),
        num_steps=4,
        batch_size=20,
        progress=False,
    )
    labels = {one.get_label() for one in result.plot_path().get_lines()}
    assert {"L2, learning rate 0.001", "L2, learning rate 0.01", "no decay, learning rate 0.01"} < labels
