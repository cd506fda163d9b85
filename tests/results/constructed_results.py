"""Results whose losses are a formula, so that their best coefficients are known."""

import math

import numpy as np
import xarray

import weightdecay as wd
from weightdecay.decay import families
from weightdecay.search import member


def constructed(
    rules, loss, *, num_steps=1000, batch_size=50, num_examples=1000, rates=(0.01,), seeds=3, optimizer="adam", steps=50
):
    """A result of which ``loss(member, step, seed)`` is the validation loss."""
    grid = wd.Grid(decay=[wd.NoDecay(), *rules], learning_rate=list(rates), seed=range(seeds))
    members = list(grid)
    evaluated = np.arange(1, steps + 1) * num_steps // steps
    values = np.array([[loss(one, int(step), one["seed"]) for step in evaluated] for one in members])
    of_members = ("member",)
    dataset = xarray.Dataset(
        {
            "validation_loss": (("member", "step"), values),
            "weight_norm": (("member", "step"), np.ones_like(values)),
            "diverged_at": (of_members, np.full(len(members), -1)),
            "stopped_at": (of_members, np.full(len(members), -1)),
        },
        coords={
            "member": np.arange(len(members)),
            "step": evaluated,
            "candidate": (of_members, np.array(member.candidates(members))),
        },
    )
    settings = {
        "optimizer": optimizer,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "examples": {"train": num_examples, "validation": 10},
    }
    return wd.GridResult(dataset, members, [None] * len(members), settings)


def valley(best, *, width=1.0, noise=0.0):
    """A loss that is smallest at a coefficient, ``(log(c / best) / width)²``; 9 without decay."""

    def loss(one, step, seed):
        value = families.coefficient(one["decay"])
        distance = 3.0 if value is None else math.log(value / best) / width
        return distance**2 + noise * math.sin(7.0 * seed)

    return loss


def path_without_decay(turn):
    """A loss that turns at a step, with a different offset for each seed."""
    return lambda one, step, seed: math.log(step / turn) ** 2 + 0.1 * seed
