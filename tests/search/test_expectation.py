"""What the turn of the runs without decay leads a search to expect."""

import numpy as np
import optax
import pytest

import weightdecay as wd
from weightdecay.engine.race import Race
from weightdecay.search import calibration
from weightdecay.search.expectation import expectations
from weightdecay.search.response import MIDDLE, Response, bowl, layout
from weightdecay.search.strategy import Known

STEPS = np.arange(20, 1001, 20)
RULES = [wd.NoDecay(), *wd.logspace(wd.Decoupled, 1e-3, 1e1, 17), *wd.logspace(wd.L2, 1e-6, 1e-1, 17)]


def known(members, curves):
    """Members without replicates, of which those with a curve are finished."""
    values = np.full((len(members), len(STEPS)), np.nan)
    for index, curve in curves.items():
        values[index] = curve
    reached = np.where(np.isfinite(values[:, -1]), 1000, 0)
    return Known(members, np.arange(len(members)), STEPS, values, reached, 10**6, 16)


def expected(members, curves):
    what = known(members, curves)
    places = layout(members)
    return expectations(what, what.candidates(), places), places


def turned(step):
    return np.log(STEPS / step) ** 2


@pytest.mark.parametrize(
    ("rate", "schedule"),
    [
        (1e-3, optax.constant_schedule(1e-3)),
        (wd.schedules.WarmupCosine(3e-3, 0.1), optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, 1000)),
    ],
    ids=["constant", "cosine"],
)
def test_best_expected_coefficient_makes_up_for_what_stopping_at_the_turn_removes(rate, schedule):
    members = list(wd.Grid(decay=[wd.NoDecay(), *wd.logspace(wd.Decoupled, 1e-3, 1e1, 201)], learning_rate=rate))
    rows, _ = expected(members, {0: turned(200)})
    best = members[int(np.argmin(rows[-1]))]["decay"].coefficient
    rates = [float(schedule(step)) for step in range(1000)]
    factor = calibration.RECORDED["time scale", "Decoupled"].factor
    np.testing.assert_allclose(best, factor * (1 / sum(rates[:200]) - 1 / sum(rates)), rtol=0.05)


def test_turn_at_one_learning_rate_says_what_to_expect_at_another():
    members = list(wd.Grid(decay=RULES, learning_rate=[1e-3, 1e-2]))
    first = next(i for i, m in enumerate(members) if m["decay"] == wd.NoDecay() and m["learning_rate"] == 1e-3)
    rows, _ = expected(members, {first: turned(500)})
    factor = calibration.RECORDED["time scale", "Decoupled"].factor
    for rate, missing in ((1e-3, 1 / 0.5 - 1 / 1.0), (1e-2, 1 / 0.5 - 1 / 10.0)):
        decoupled = [
            i for i, m in enumerate(members) if isinstance(m["decay"], wd.Decoupled) and m["learning_rate"] == rate
        ]
        best = members[min(decoupled, key=lambda i: rows[-1][i])]["decay"].coefficient
        assert abs(np.log(best / (factor * missing))) <= np.log(1e4) / 16  # the distance of neighbours


def test_without_a_turn_less_is_expected_and_without_a_run_nothing_new():
    members = list(wd.Grid(decay=RULES, learning_rate=1e-3))
    rows, places = expected(members, {})
    np.testing.assert_array_equal(rows, bowl(places)[None])
    rows, _ = expected(members, {0: 1 / STEPS})
    assert rows.shape == (2, len(members))
    assert -rows[1].min() < -rows[0].min()
    assert abs(places.strength[np.argmin(rows[1])] - MIDDLE) < 0.1
    # A run that diverged has no turn, and is no reason to expect less.
    rows, _ = expected(members, {0: np.where(STEPS < 500, turned(200), np.inf)})
    np.testing.assert_array_equal(rows, bowl(places)[None])


def test_rules_within_others_and_rules_without_time_scale():
    masked = [wd.Masked(rule, True) for rule in wd.logspace(wd.Decoupled, 1e-3, 1e1, 17)]
    bounds = wd.logspace(wd.MaxNorm, 0.1, 10, 5)
    both = [(wd.L1(1e-5), wd.L2(value)) for value in (1e-4, 1e-3)]
    members = list(wd.Grid(decay=[wd.NoDecay(), *masked, *bounds, *both], learning_rate=1e-3))
    rows, _ = expected(members, {0: turned(200)})
    plain, _ = expected(list(wd.Grid(decay=RULES[:18], learning_rate=1e-3)), {0: turned(200)})
    np.testing.assert_allclose(rows[1][:18], plain[1])
    assert rows[1][18:].min() < 0
    assert np.isfinite(rows).all()


def test_trainings_tell_which_expectation_holds():
    members = list(wd.Grid(decay=RULES[:18], learning_rate=1e-3))
    places = layout(members)
    right, wrong = bowl(places, center=0.3, width=0.1, depth=2.0), bowl(places, center=0.9, width=0.1, depth=2.0)
    trained = np.array([0, 2, 4, 5, 6, 8, 16])
    losses = 10.0 ** right[trained]
    found = Response(places, trained, np.zeros(7, int), losses, np.stack([wrong, right]))
    alone = Response(places, trained, np.zeros(7, int), losses, right[None])
    np.testing.assert_allclose(found.mean, alone.mean, atol=0.05)
    assert len(found._weights) == 2 * len(alone._weights)


def test_search_trains_nearer_to_what_a_turn_suggests():
    grid = wd.Grid(decay=RULES, learning_rate=[1e-3, 3e-3], seed=range(3))
    best = np.log(0.518 * (1 / 0.2 - 1))
    noise = 0.01 * np.random.default_rng(0).normal(size=(len(grid), 1))
    shapes = {"turned": turned(200) / turned(200)[-1], "falling": STEPS[-1] / STEPS}
    apart = {}
    for name, shape in shapes.items():
        apart[name] = []
        for seed in range(6):
            race = Race(wd.strategies.Surface(seed=seed), grid, STEPS.tolist(), 18 * 1000, 8)
            race.next_round(shape + noise, np.full(len(grid), -1))
            for index in race.next_round(shape + noise, np.full(len(grid), -1)):
                if isinstance(grid[index]["decay"], wd.Decoupled):
                    apart[name].append(abs(np.log(grid[index]["decay"].coefficient) - best))
    assert np.mean(apart["turned"]) < 0.8 * np.mean(apart["falling"])
