"""A mesh that the user has set does not reach the programs of a lane, which one device computes."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import weightdecay as wd

DATA = wd.data.digits(num_train=200)
GRID = wd.Grid(decay=[wd.NoDecay(), wd.L2(1e-2)], learning_rate=1e-3)
SETTINGS = {"num_steps": 10, "batch_size": 16, "progress": False}


class Annotated(nn.Module):
    """A dense network whose kernel names the axis of a mesh."""

    @nn.compact
    def __call__(self, inputs):
        kernel_init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "data"))
        return nn.Dense(10)(nn.relu(nn.Dense(8, kernel_init=kernel_init)(inputs)))


def mesh():
    return jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])


@pytest.mark.slow
@pytest.mark.parametrize("model", [wd.models.MLP((8,)), Annotated()], ids=["plain", "annotated"])
def test_fit_grid_inside_a_mesh_gives_the_numbers_of_outside(model):
    with jax.set_mesh(mesh()):
        inside = wd.fit_grid(model, DATA, GRID, **SETTINGS)
        predicted = inside.predict(DATA.test[0][:3], member=1)
        assert jax.sharding.get_abstract_mesh().axis_names == ("data",)  # the user's mesh is set again
    outside = wd.fit_grid(model, DATA, GRID, **SETTINGS)
    assert inside.dataset.identical(outside.dataset)
    np.testing.assert_array_equal(predicted, outside.predict(DATA.test[0][:3], member=1))


@pytest.mark.slow
def test_map_grid_and_plan_run_inside_a_mesh():
    def train(hyperparameters):
        return {"validation_loss": (hyperparameters["learning_rate"] - 0.01) ** 2}

    grid = wd.Grid(learning_rate=[0.25, 0.5])
    with jax.set_mesh(mesh()):
        losses = wd.map_grid(train, grid, progress=False)["validation_loss"]
        plan = wd.plan(wd.models.MLP((8,)), DATA, GRID, calibrate=False, **SETTINGS)
    np.testing.assert_allclose(losses, [(0.25 - 0.01) ** 2, (0.5 - 0.01) ** 2], rtol=1e-6)
    assert plan.lane_width >= 1
