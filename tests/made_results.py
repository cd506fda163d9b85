"""Results whose numbers are random, for tests of plots and pages."""

import numpy as np
import xarray

from weightdecay.results.dataset import coordinates
from weightdecay.results.grid_result import GridResult

STEPS = np.arange(10, 110, 10)
LAYERS = ["Dense_0/kernel", "Dense_1/kernel"]


def made(grid, *, steps=STEPS, accuracy=True, died=(), layers=LAYERS, loss="softmax_cross_entropy", predicted=True):
    """A result whose numbers are random, so that each of them is told apart, and sane as far as plots look at them."""
    members, rng = list(grid), np.random.default_rng(0)
    shape = (len(members), len(steps))
    names = ("train_loss", "validation_loss", "penalty", "weight_norm", "zero_fraction")
    metrics = {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name in names}
    for name in ("train_accuracy", "validation_accuracy"):
        metrics[name] = rng.uniform(0.5, 0.9, shape).astype(np.float32) if accuracy else np.full(shape, np.nan)
    for index, member in enumerate(members):
        if member["decay"].name not in ("ProximalL1", "ProximalGroupLasso"):
            metrics["zero_fraction"][index] = 0
    diverged_at = np.full(len(members), -1)
    for index in died:
        diverged_at[index] = steps[len(steps) // 2]
        for values in metrics.values():
            values[index, len(steps) // 2 :] = np.nan
    by_layer = {"layer_weight_norm": rng.uniform(1, 9, (*shape, len(layers)))}
    by_layer["rotation"] = rng.uniform(0.01, 0.1, (*shape, len(layers)))
    if predicted:
        by_layer["predicted_rotation"] = np.full((*shape, len(layers)), 0.05)
        by_layer["predicted_rotation"][..., 0] = np.nan
    dataset = xarray.Dataset(
        {name: (("member", "step"), values) for name, values in metrics.items()}
        | {name: (("member", "step", "layer"), values) for name, values in by_layer.items()}
        | {"diverged_at": ("member", diverged_at), "stopped_at": ("member", np.full(len(members), -1))},
        coords={"member": np.arange(len(members)), "step": steps, "layer": layers}
        | {name: ("member", values) for name, values in coordinates(members).items()},
    )
    weights = [
        ({name.split("/")[0]: {"kernel": rng.normal(size=(6, 5)), "bias": np.zeros(5)} for name in layers}, {})
        for _ in members
    ]
    return GridResult(dataset, members, weights, {"loss": loss})
