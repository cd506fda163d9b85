"""`map_grid` with a budget: a strategy decides which members are run, and their numbers are those of the whole grid."""

import jax.numpy as jnp
import numpy as np
import pytest

import weightdecay as wd

GRID = wd.Grid(decay=[wd.NoDecay(), *wd.logspace(wd.L2, 1e-4, 1.0, 9)], learning_rate=[0.01, 0.1, 1.0], seed=range(3))


def train(hyperparameters):
    """A curve whose end has a closed form, lowest at L2(0.01) and the learning rate 0.1."""
    rule, rate = hyperparameters["decay"], hyperparameters["learning_rate"]
    coefficient = getattr(rule, "coefficient", 1e-6)
    end = jnp.square(jnp.log10(coefficient) + 2) + jnp.square(jnp.log10(rate) + 1)
    end = end + 0.01 * hyperparameters["seed"]
    return {"validation_loss": end + jnp.arange(4.0)[::-1], "score": {"accuracy": -end}, "count": jnp.int32(3)}


@pytest.fixture(scope="module")
def whole():
    return wd.map_grid(train, GRID, progress=False)


@pytest.mark.parametrize(
    ("metric", "sign"), [("validation_loss", 1), ("score.accuracy", -1)], ids=["lower", "higher is better"]
)
def test_a_part_of_the_members_is_run(whole, metric, sign):
    settings = {"lower_is_better": sign > 0} if sign < 0 else {}
    result = wd.map_grid(train, GRID, budget=0.4, metric=metric, progress=False, **settings)
    assert 0.2 < result.spent == result.trained.mean() <= 0.4
    loss = result["validation_loss"]
    np.testing.assert_array_equal(loss[result.trained], whole["validation_loss"][result.trained])
    assert np.isnan(loss[~result.trained]).all()
    assert (result["count"] == np.where(result.trained, 3, 0)).all()
    np.testing.assert_array_equal(result.dataset["trained"], result.trained)
    best = result.best("score.accuracy", lower_is_better=False)
    assert result.trained[list(best.members)].all()
    assert best.decay == whole.best("score.accuracy", lower_is_better=False).decay
    table = result.table()
    complete = result.trained.reshape(-1, 3).all(axis=1)
    assert np.isfinite(table["score.accuracy"][complete]).all()
    assert np.isnan(table["count"][~complete]).all()
    assert repr(result) == f"MapResult of {len(GRID)} members, {result.trained.sum()} of them run"


def test_a_directory_holds_what_was_run_for_the_whole_grid(whole, tmp_path):
    alone = wd.map_grid(train, GRID, budget=0.4, metric="validation_loss", progress=False)
    for budget in (0.2, 0.4):
        result = wd.map_grid(train, GRID, budget=budget, metric="validation_loss", directory=tmp_path, progress=False)
    np.testing.assert_array_equal(result.trained, alone.trained)
    complete = wd.map_grid(train, GRID, directory=tmp_path, progress=False)
    assert complete.spent == 1
    assert "trained" not in complete.dataset
    np.testing.assert_array_equal(complete["validation_loss"], whole["validation_loss"])


def test_a_member_that_is_not_finite_is_never_chosen():
    def with_nan(hyperparameters):
        outputs = train(hyperparameters)
        is_bad = hyperparameters["learning_rate"] > 0.5
        return {"validation_loss": jnp.where(is_bad, jnp.nan, outputs["validation_loss"][-1])}

    result = wd.map_grid(with_nan, GRID, budget=0.4, metric="validation_loss", progress=False)
    assert result.best("validation_loss").others["learning_rate"] < 0.5


def test_errors_say_what_to_give():
    with pytest.raises(ValueError, match="a search needs metric"):
        wd.map_grid(train, GRID, budget=0.4, progress=False)
    with pytest.raises(ValueError, match=r"metric is 'validation_los'.*a curve: .*Did you mean 'validation_loss'"):
        wd.map_grid(train, GRID, budget=0.4, metric="validation_los", lower_is_better=True, progress=False)
    with pytest.raises(ValueError, match="give lower_is_better"):
        wd.map_grid(train, GRID, budget=0.4, metric="count", progress=False)
    with pytest.raises(ValueError, match="budget is 2"):
        wd.map_grid(train, GRID, budget=2, metric="validation_loss", progress=False)
