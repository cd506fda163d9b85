"""Arrays that decay without a gradient in them: found in the traced step, and named in one warning."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weightdecay as wd

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype(np.float32)
DATA = wd.Data(train=(X, X[:, 0]), validation=(X, X[:, 0]), test=None)


def init(key, inputs):
    return {
        "w": jax.random.normal(key, (3, 4)),
        "fixed": jnp.ones((3, 3)),
        "unused": jnp.ones((2, 2)),
        "out": jnp.ones((4, 1)),
    }


def apply(params, inputs):
    hidden = jnp.tanh(inputs @ jax.lax.stop_gradient(params["fixed"]) @ params["w"])
    return hidden @ params["out"]


def train(decay, mask=wd.masks.kernels, model=None):
    grid = wd.Grid(decay=decay, learning_rate=[0.1], seed=[0, 1])
    model = wd.Model(init, apply) if model is None else model
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wd.fit_grid(model, DATA, grid, num_steps=2, batch_size=8, mask=mask, progress=False)
    return [str(warning.message) for warning in caught if "has no gradient" in str(warning.message)]


@pytest.mark.slow
def test_fit_grid_warns_once_of_what_decays_without_a_gradient():
    messages = train([wd.NoDecay(), wd.L2(0.1), wd.Decoupled(0.1), wd.MaxNorm(1.0)])
    assert len(messages) == 1
    assert messages[0].startswith("fixed, unused: the loss has no gradient here, so decay alone changes it")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decay", "mask"),
    [
        ([wd.NoDecay()], wd.masks.kernels),
        ([wd.L2(0.0)], wd.masks.kernels),
        ([wd.L2(0.1)], wd.masks.matching("w", "out")),
        ([wd.Masked(wd.MaxNorm(1.0), wd.masks.matching("w"))], wd.masks.kernels),
    ],
)
def test_fit_grid_does_not_warn_of_what_does_not_decay(decay, mask):
    assert train(decay, mask) == []


@pytest.mark.slow
def test_fit_grid_warns_of_a_constant_in_a_module_of_equinox():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        features: jax.Array
        linear: eqx.nn.Linear

        def __init__(self, key):
            self.features = jnp.eye(3)
            self.linear = eqx.nn.Linear(3, 1, key=key)

        def __call__(self, x):
            return self.linear(jax.lax.stop_gradient(self.features) @ x)

    assert train([wd.Decoupled(0.1)], model=lambda key: Net(key))[0].startswith("features: the loss has no gradient")
