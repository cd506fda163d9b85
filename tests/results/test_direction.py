"""Which direction of a metric is better: choices, tables, plots and reports follow the name or the user's statement."""

import jax.numpy as jnp
import numpy as np
import pytest

import weightdecay as wd
from weightdecay.results import selection
from weightdecay.results.candidates import gather

LOWER = ["rmse", "mse", "mae", "nll", "perplexity", "bits_per_token", "brier", "ece"]
HIGHER = ["accuracy", "auc", "roc_auc", "average_precision", "f1", "precision", "recall", "r2", "score"]
MEMBERS = [{"decay": wd.L2(c), "learning_rate": 0.1, "seed": 0} for c in (0.1, 0.2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOWER, *HIGHER])
def test_choose_follows_a_well_known_name(name):
    candidates = gather(MEMBERS, np.array([0.1, 0.9]), np.ones(2))
    assert selection.choose(candidates, metric=f"validation_{name}").mean == (0.1 if name in LOWER else 0.9)


def train(hyperparameters):
    value = hyperparameters["learning_rate"]
    return {"rmse": value, "roc_auc": value, "number": value}


def test_best_of_mapped_members_follows_the_name_or_the_statement():
    grid = wd.Grid(learning_rate=[0.1, 0.9])
    result = wd.map_grid(train, grid, progress=False)
    np.testing.assert_allclose(result.best("rmse").mean, 0.1, rtol=1e-6)
    np.testing.assert_allclose(result.best("roc_auc").mean, 0.9, rtol=1e-6)
    for lower in (True, False):
        chosen = result.best("number", lower_is_better=lower)
        np.testing.assert_allclose(chosen.mean, 0.1 if lower else 0.9, rtol=1e-6)
    with pytest.raises(ValueError, match=r"metric 'number' has a name from which it does not follow .*lower_is_better"):
        result.best("number")


@pytest.fixture(scope="module")
def result():
    """Two candidates; the one with decay has the smaller outputs."""
    size = lambda outputs, targets: jnp.abs(outputs).mean(axis=-1)  # noqa: E731
    return wd.fit_grid(
        wd.models.MLP((4,)),
        wd.data.wine(),
        wd.Grid(decay=[wd.NoDecay(), wd.L2(0.5)], learning_rate=[0.1], seed=range(2)),
        num_steps=40,
        batch_size=16,
        optimizer=wd.sgd,
        metrics={"size": size, "opposite": size, "mae": size},
        lower_is_better={"size": False, "opposite": True},
        progress=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [False, True])
def test_a_statement_travels_with_the_result(result, tmp_path, loaded):
    if loaded:
        result.save(tmp_path / "run")
        result = wd.load(tmp_path / "run")
    table = result.table()
    assert table["validation_size"][0] > table["validation_size"][1]
    assert isinstance(result.best(metric="validation_size").decay, wd.NoDecay)
    assert result.best(metric="validation_opposite").decay == wd.L2(0.5)
    assert result.best(metric="validation_mae").decay == wd.L2(0.5)
    assert result.lower_is_better("validation_size") is False
    assert result.part([2, 3]).lower_is_better("validation_opposite") is True
    assert result.optimism(metric="validation_size").mean >= -1
    page = result.report(tmp_path / "report.html", metric="validation_size").read_text(encoding="utf-8")
    assert "validation size" in page
    result.plot_path("validation_size")
    result.plot_path("validation_opposite")
