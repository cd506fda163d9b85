"""What the main job promises: on noisy digits, decay beats no decay, and not by luck."""

import numpy as np
import pytest

import weightdecay as wd


@pytest.fixture(scope="module")
def result():
    decay = [
        wd.NoDecay(),
        *wd.logspace(wd.L2, 1e-6, 1e-1, 11),
        *wd.logspace(wd.L1, 1e-7, 1e-2, 11),
        *wd.logspace(wd.ProximalL1, 1e-7, 1e-2, 11),
        *wd.logspace(wd.Decoupled, 1e-3, 1e1, 11),
    ]
    return wd.fit_grid(
        wd.models.MLP((64, 64)),
        wd.data.digits(num_train=300, label_noise=0.4),
        wd.Grid(decay=decay, learning_rate=[1e-3], seed=range(3)),
        num_steps=1000,
        batch_size=64,
        progress=False,
    )


@pytest.mark.slow
def test_sweep_of_noisy_digits_finds_a_decay_that_beats_none(result):
    best, none = result.best(), result.no_decay()
    error = np.hypot(best.standard_error, none.standard_error)
    assert none.mean - best.mean > 2 * error
    assert best.edge is None
    scores = result.test()
    assert scores.loc["chosen", "test_loss"] < scores.loc["no decay", "test_loss"]


@pytest.mark.slow
def test_every_kind_of_decay_beats_none_on_noisy_digits(result):
    none = result.no_decay()
    table = result.table()
    for kind in ("L2", "L1", "ProximalL1", "Decoupled"):
        best = table[table["decay"] == kind].sort_values("validation_loss").iloc[0]
        error = np.hypot(best["validation_loss_standard_error"], none.standard_error)
        assert none.mean - best["validation_loss"] > 2 * error, kind


@pytest.mark.slow
def test_only_the_proximal_rule_makes_exact_zeros(result):
    zeros = result.table().groupby("decay")["zero_fraction"].max()
    assert zeros["ProximalL1"] == 1
    assert zeros.drop("ProximalL1").max() < 1e-3  # a weight may start at exactly zero


@pytest.mark.slow
def test_one_compiled_program_trains_them_all(result):
    assert result.settings["compiled_programs"] == 1
