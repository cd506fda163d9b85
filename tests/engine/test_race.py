"""A budget: a strategy chooses which members are trained; their numbers are, bit for bit, those of the whole grid."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.search.strategies import Full, Halving, Strategy
from weightdecay.search.surface import Surface

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(60, 5)).astype(np.float32)
LABELS = (INPUTS[:, 0] + RNG.normal(size=60) > 0).astype(np.int32)
DATA = wd.Data(train=(INPUTS[:40], LABELS[:40]), validation=(INPUTS[40:], LABELS[40:]), test=(INPUTS[40:], LABELS[40:]))
GRID = wd.Grid(
    decay=[wd.NoDecay(), *wd.logspace(wd.L2, 1e-4, 1.0, 5), wd.MaxNorm(1.0), wd.MaxNorm(2.0)],
    learning_rate=[1e-3, 1e-2],
    seed=range(3),
)
SETTINGS = {"num_steps": 20, "batch_size": 8, "eval_every": 2, "progress": False}
MODEL = wd.models.MLP((8,))
STRATEGIES = [Surface(), Halving(eta=2, first=0.1), Full()]


def fit(grid=GRID, **changed):
    return wd.fit_grid(MODEL, DATA, grid, **{**SETTINGS, **changed})


@pytest.fixture(scope="module")
def whole():
    return fit()


def check_members(result, whole):
    """Every number of a member, as far as it was trained, is that of the whole grid; the others are nan."""
    dropped, steps = result.dataset["dropped_at"].values, result.dataset["step"].values
    for name, values in result.dataset.data_vars.items():
        if "step" not in values.dims or "predicted" in name or name == "time_scale_epochs":
            continue
        for member in range(len(result)):
            seen = steps <= (steps[-1] if dropped[member] == -1 else dropped[member])
            np.testing.assert_array_equal(values[member].values[seen], whole.dataset[name][member].values[seen])
            assert np.isnan(values[member].values[~seen]).all()
    for member in np.flatnonzero(dropped == -1):
        same_bits(result.params(int(member)), whole.params(int(member)))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_members_have_the_bits_of_the_whole_grid(strategy, whole):
    result = fit(budget=0.4, strategy=strategy)
    check_members(result, whole)
    dropped = result.dataset["dropped_at"].values
    steps = np.where(dropped == -1, 20, dropped).sum()
    assert result.spent == steps / (20 * len(GRID)) <= 0.4
    complete = {c.number for c in result.candidates() if (dropped[list(c.members)] == -1).all()}
    assert result.best().number in complete
    assert {c.number for c in result.candidates() if c.is_without_decay} & complete
    assert f"{len(complete)} of 16 candidates" in repr(result)


@pytest.mark.slow
def test_directory_holds_what_was_trained_for_a_larger_budget_and_for_the_whole_grid(whole, tmp_path):
    alone = fit(budget=0.4)
    for budget in (0.2, 0.4):
        result = fit(budget=budget, directory=tmp_path)
        check_members(result, whole)
    # The race of a larger budget is the same whether a smaller one went before it or not.
    np.testing.assert_array_equal(result.dataset["dropped_at"], alone.dataset["dropped_at"])
    complete = fit(directory=tmp_path)
    assert "dropped_at" not in complete.dataset
    np.testing.assert_array_equal(complete.dataset["validation_loss"], whole.dataset["validation_loss"])


@pytest.mark.slow
def test_result_of_a_search_is_saved_and_reported(tmp_path):
    result = fit(budget=0.4)
    result.save(tmp_path / "result")
    loaded = wd.load(tmp_path / "result")
    assert (loaded.spent, loaded.best().number, repr(loaded)) == (result.spent, result.best().number, repr(result))
    never = int(np.flatnonzero(result.dataset["dropped_at"].values == 0)[0])
    for one in (result, loaded):
        with pytest.raises(ValueError, match=f"member {never} has no weights"):
            one.params(never)
    trained = result.best().members[0]
    same_bits(loaded.params(trained), result.params(trained))
    page = (result.report(tmp_path / "report.html")).read_text()
    assert result.searched() in page


SCRIPT = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from engine import test_race
halving = test_race.Halving(eta=2, first=0.1)
result = test_race.fit(budget=0.5, strategy=halving, directory={directory!r}, save_every=1e-3)
print(result.dataset["dropped_at"].values.tolist())
"""


@pytest.mark.slow
def test_a_killed_race_is_the_same_race(tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    script = SCRIPT.format(tests=tests, directory=str(tmp_path / "run"))
    expected = fit(budget=0.5, strategy=Halving(eta=2, first=0.1))
    for wait in (0.3, 0.6, 0.9):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
        while process.poll() is None and not any((tmp_path / "run").glob("checkpoints/*")):
            time.sleep(0.05)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert finished.stdout.strip() == str(expected.dataset["dropped_at"].values.tolist())
    resumed = fit(budget=0.5, strategy=Halving(eta=2, first=0.1), directory=tmp_path / "run")
    check_members(resumed, expected)


@dataclass(frozen=True)
class Asks:
    """A strategy that asks once for what it was made with."""

    wanted: tuple[tuple[int, int], ...]

    def next(self, known):
        return {} if known.reached.any() else dict(self.wanted)


def test_what_is_wrong_is_told():
    assert isinstance(Asks(()), Strategy)
    with pytest.raises(ValueError, match="strategy wants member 99 at step 20"):
        fit(budget=0.5, strategy=Asks(((99, 20),)))
    with pytest.raises(ValueError, match="strategy wants member 0 at step 3"):
        fit(budget=0.5, strategy=Asks(((0, 3),)))
    with pytest.raises(ValueError, match="strategy wants 960 member-steps, and 480 of the budget"):
        fit(budget=0.5, strategy=Asks(tuple((member, 20) for member in range(48))))
    with pytest.raises(ValueError, match=r"budget is 0.05, which is 2 of 48 trainings.*at least 0.125"):
        fit(budget=0.05)
    for budget in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"budget is .*; give the fraction"):
            fit(budget=budget)
    with pytest.raises(ValueError, match="eta is 1"):
        Halving(eta=1)
    with pytest.raises(ValueError, match="first is 2"):
        Halving(first=2)
