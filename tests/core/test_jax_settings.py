"""Settings of JAX with which members cannot be trained are refused before training, with the reason."""

import jax
import jax.numpy as jnp
import pytest

import weightdecay as wd
from weightdecay.core import jax_settings

SETTINGS = {"num_steps": 2, "batch_size": 8, "progress": False}
GRID = wd.Grid(decay=[wd.NoDecay()], learning_rate=[0.1])


def fit():
    wd.fit_grid(wd.models.MLP((2,)), wd.data.diabetes(), GRID, **SETTINGS)


def map_members():
    wd.map_grid(lambda hyperparameters: jnp.log(hyperparameters["learning_rate"]), GRID, progress=False)


@pytest.mark.parametrize("call", [fit, map_members])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (jax.debug_nans, "jax_debug_nans is on, .* on purpose .*jax_debug_nans', False"),
        (jax.debug_infs, "jax_debug_infs is on, .* on purpose"),
        (lambda on: jax.disable_jit(disable=on), "jax_disable_jit is on, but members are trained by programs"),
    ],
    ids=["debug_nans", "debug_infs", "disable_jit"],
)
def test_settings_that_prevent_training_are_refused(call, setting, message):
    with setting(True), pytest.raises(RuntimeError, match=message):
        call()
    jax_settings.check_supported()
