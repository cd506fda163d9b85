"""Strategies on curves whose best candidate is known."""

import itertools
import math

import numpy as np
import pytest

import weightdecay as wd
from weightdecay.engine.race import Race
from weightdecay.search.response import Response, in_model_units, layout
from weightdecay.search.strategies import Full, Halving, Optuna, Surface
from weightdecay.search.surface import spread_out

STEPS = np.arange(10, 101, 10)
GRID = wd.Grid(
    decay=[wd.NoDecay(), *wd.logspace(wd.L2, 1e-6, 1e-1, 11), *wd.logspace(wd.Decoupled, 1e-3, 1e1, 9)],
    learning_rate=[1e-3, 3e-3, 1e-2],
    seed=range(3),
)


def final(member, best, worth, noise, rng):
    """Final loss: no decay is 1, and a bowl over the logarithms around the best candidate is `worth` below that."""
    decay, rate = member["decay"], member["learning_rate"]
    kind, coefficient = best
    depth = 0.0
    if type(decay) is kind and kind is not wd.NoDecay:
        distance = math.log10(decay.coefficient) - math.log10(coefficient)
        depth = worth * math.exp(-(distance**2) / 2)
    elif kind is wd.NoDecay and type(decay) is not wd.NoDecay:
        depth = -worth * (1 + math.log10(decay.coefficient / 1e-6)) / 6
    return 1 + 0.2 * abs(math.log10(rate / 3e-3)) - depth + noise * rng.normal()


def race(strategy, budget, best, *, worth=0.3, noise=0.01, seed=0, at_once=16):
    rng = np.random.default_rng(seed)
    ends = np.array([final(member, best, worth, noise, rng) for member in GRID])
    # Curves cross: the stronger the decay, the slower the fall.
    slowness = np.array([0.2 + getattr(member["decay"], "coefficient", 0.0) for member in GRID])
    curves = ends[:, None] + np.exp(-STEPS[None, :] / 100 / np.minimum(slowness, 1)[:, None])
    curves[:, -1] = ends
    running = Race(strategy, GRID, STEPS.tolist(), int(budget * len(GRID) * 100), at_once)
    rounds = []
    while wanted := running.next_round(curves, np.full(len(GRID), -1)):
        rounds.append(wanted)
    finished = running.reached == 100
    complete = [number for number in range(63) if finished[3 * number : 3 * number + 3].all()]
    chosen = min(complete, key=lambda number: ends[3 * number : 3 * number + 3].mean())
    return running, rounds, GRID[3 * chosen], ends


@pytest.mark.slow
@pytest.mark.parametrize("best", [(wd.L2, 1e-3), (wd.Decoupled, 1.0)], ids=["L2", "Decoupled"])
def test_surface_finds_the_bowl_for_a_quarter_of_the_grid(best):
    regrets = []
    for seed in range(3):
        running, _, chosen, ends = race(Surface(seed=seed), 0.25, best, seed=seed)
        assert running.spent <= 0.25
        means = ends.reshape(-1, 3).mean(axis=1)
        regrets.append((means[list(GRID).index(chosen) // 3] - means.min()) / 0.3)
    assert np.mean(regrets) < 0.15


@pytest.mark.slow
def test_surface_says_no_decay_where_that_is_best():
    _, _, chosen, _ = race(Surface(), 0.25, (wd.NoDecay, None))
    assert isinstance(chosen["decay"], wd.NoDecay)


def test_answers_depend_on_what_is_known_alone():
    for strategy in (Surface(), Halving(), Full()):
        one, two = (race(strategy, 0.2, (wd.L2, 1e-3))[1] for _ in range(2))
        assert one == two


def test_halving_keeps_a_part_at_each_rung_and_no_decay_always():
    running, rounds, _, _ = race(Halving(eta=2, first=0.1), 0.5, (wd.L2, 1e-3))
    steps = [set(wanted.values()) for wanted in rounds]
    assert steps[:4] == [{10}, {20}, {40}, {80}]
    sizes = [len(wanted) for wanted in rounds[:4]]
    assert all(later <= math.ceil(earlier / 2) + 3 for earlier, later in itertools.pairwise(sizes))
    without = [index for index, member in enumerate(GRID) if isinstance(member["decay"], wd.NoDecay)]
    assert (running.reached[without[::3]] == 100).all()


def test_full_takes_the_members_in_their_order():
    running, _, _, _ = race(Full(), 0.1, (wd.L2, 1e-3))
    assert running.reached.tolist() == [100] * 18 + [0] * (len(GRID) - 18)


def test_layout_places_each_kind_on_the_logarithm_of_its_coefficient():
    places = layout([member for member in GRID if member["seed"] == 0])
    assert np.unique(places.kind, return_counts=True)[1].tolist() == [3, 33, 27]
    np.testing.assert_allclose(np.diff(np.unique(places.strength[places.kind == 0].round(9))), 0.1)
    np.testing.assert_allclose(np.unique(places.others.round(3)), [0, 0.477, 1], atol=1e-3)
    kinds = layout([{"decay": wd.NoDecay(), "norm": value} for value in (None, "batch", True)])
    np.testing.assert_array_equal(kinds.others, np.eye(3))
    assert (kinds.kind == -1).all()


def test_first_trainings_are_each_kind_at_every_learning_rate():
    members = [member for member in GRID if member["seed"] == 0]
    first = [members[number] for number in spread_out(layout(members), 9)]
    pairs = {(type(member["decay"]), member["learning_rate"]) for member in first}
    assert len(pairs) == 9


def test_many_candidates_are_searched_too():
    decay = wd.Decoupled(wd.LogUniform(1e-3, 1e1))
    grid = wd.Grid.sobol(1500, decay=decay, learning_rate=wd.LogUniform(1e-3, 1e-2))
    losses = np.array(
        [abs(math.log10(m["decay"].coefficient)) + abs(math.log10(m["learning_rate"] / 3e-3)) for m in grid]
    )
    running = Race(Surface(), grid, [10], 10 * 60, 16)
    curves = np.where(np.arange(1) == 0, losses[:, None], 0.0)
    while running.next_round(curves, np.full(len(grid), -1)):
        pass
    found = losses[running.reached == 10].min()
    assert running.spent == 60 / 1500
    assert found <= np.quantile(losses, 0.01)


def test_response_is_the_regression_of_scikit_learn():
    """With one set of scales and no shared noise, it is a Gaussian process like any other."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    rng = np.random.default_rng(0)
    members = [
        {"decay": wd.NoDecay(), "learning_rate": rate, "width": width} for rate, width in rng.uniform(size=(40, 2))
    ]
    places = layout(members)
    losses, trained = rng.normal(size=15), rng.permutation(40)[:15]
    response = Response(places, trained, np.arange(15), losses)
    means, variances, likelihoods = [], [], []
    for scales, _, mean in response._solved:
        kernel = ConstantKernel(scales.baseline**2) * Matern(scales.others, nu=2.5) + ConstantKernel(1.0)
        process = GaussianProcessRegressor(kernel, alpha=scales.noise**2 + 1e-6, optimizer=None)
        process.fit(places.others[trained], in_model_units(losses))
        expected, error = process.predict(places.others, return_std=True)
        np.testing.assert_allclose(mean, expected, atol=1e-6)
        means.append(expected)
        variances.append(error**2)
        likelihoods.append(process.log_marginal_likelihood_value_)
    weights = np.exp(np.array(likelihoods) - max(likelihoods))
    weights /= weights.sum()
    np.testing.assert_allclose(response.mean, weights @ np.array(means), atol=1e-6)
    total = weights @ np.array(variances) + weights @ np.square(np.array(means) - response.mean)
    np.testing.assert_allclose(response.error, np.sqrt(total), atol=1e-5)


def test_optuna_asks_its_sampler_and_goes_through_the_same_rounds_again():
    optuna = pytest.importorskip("optuna")
    for sampler in (optuna.samplers.TPESampler(seed=1), optuna.samplers.RandomSampler(seed=1)):
        running, rounds, chosen, ends = race(Optuna(sampler), 0.25, (wd.L2, 1e-3))
        again = race(Optuna(sampler), 0.25, (wd.L2, 1e-3))[1]
        assert rounds == again
        assert running.spent <= 0.25
        without = [index for index, member in enumerate(GRID) if isinstance(member["decay"], wd.NoDecay)]
        assert (running.reached[without] == 100).reshape(3, 3).all(axis=1).any()
    means = ends.reshape(-1, 3).mean(axis=1)
    assert means[list(GRID).index(chosen) // 3] < np.median(means)


def test_optuna_trains_what_the_sampler_suggests():
    """A sampler of our own that always suggests the same point is led to the nearest candidates of the grid."""
    optuna = pytest.importorskip("optuna")

    class Same(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, search_space):
            return {}

        def sample_independent(self, study, trial, name, distribution):
            return "L2 0" if name == "decay" else {"strength of L2 0": 0.6, "learning_rate": 0.0}[name]

    _, rounds, _, _ = race(Optuna(Same()), 0.1, (wd.L2, 1e-3))
    first = [GRID[index] for index in rounds[0]]
    assert isinstance(first[0]["decay"], wd.NoDecay)
    assert [(m["decay"], m["learning_rate"], m["seed"]) for m in first[1:3]] == [
        (wd.L2(pytest.approx(1e-3)), 1e-3, 0),
        (wd.L2(pytest.approx(1e-3)), 1e-3, 1),
    ]
    with pytest.raises(TypeError, match="sampler is 3"):
        Optuna(3)
