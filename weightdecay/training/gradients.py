"""Arrays that decay although the loss has no gradient in them, and arrays that an optimizer never changes.

Decay alone moves an array without a gradient (a table of constants, weights that nothing uses), toward zero. Both are
read from a traced step: what depends on nothing but constants is the same at every step.
"""

from collections.abc import Sequence

import jax

from weightdecay.core import jaxprs, tree
from weightdecay.core.types import Batch, Params, PyTree
from weightdecay.core.warn import warn
from weightdecay.decay import masks
from weightdecay.decay.elementwise import NoDecay
from weightdecay.decay.placement import parts
from weightdecay.training.step import train_step
from weightdecay.training.task import Hyperparameters, State, Task


def without_gradient(task: Task, hyperparameters: Hyperparameters, state: State, batch: Batch) -> list[str]:
    """Names of the arrays that decay and in which the loss has no gradient.

    Args:
      task: What is trained.
      hyperparameters: Hyperparameters of a member, as shapes.
      state: State of a member, as shapes.
      batch: Examples of a step, as shapes.

    Returns:
      The names, in the order of the weights.
    """

    def gradients(hyperparameters: Hyperparameters, state: State, batch: Batch) -> list[jax.Array]:
        _, (_, gradients) = train_step(task, hyperparameters, state, batch)
        return jax.tree.leaves(gradients)

    traced = jax.make_jaxpr(gradients)(hyperparameters, state, batch)
    decays = [False] * len(traced.out_avals)
    for rule, mask in parts(hyperparameters.decay):
        if not isinstance(rule, NoDecay):
            of_rule = masks.resolve(task.mask if mask is None else mask, state.params)
            decays = [decayed or by_rule for decayed, by_rule in zip(decays, of_rule, strict=True)]
    names = [name for name, _ in tree.named_leaves(state.params)]
    depends = jaxprs.depend_on_inputs(traced.jaxpr)
    return [name for name, decayed, has in zip(names, decays, depends, strict=True) if decayed and not has]


def without_update(task: Task, hyperparameters: Hyperparameters, state: State) -> list[str]:
    """Names of the arrays that an optimizer leaves as they are, as `optax.partition` does with `optax.set_to_zero`.

    Args:
      task: What is trained.
      hyperparameters: Hyperparameters of a member.
      state: State of a member, as shapes.

    Returns:
      The names, in the order of the weights; empty where every array is left as it is.
    """

    def updates(gradients: Params, optimizer_state: PyTree, params: Params) -> list[jax.Array]:
        made, _ = task.transformation(hyperparameters).update(gradients, optimizer_state, params)
        return jax.tree.leaves(made)

    traced = jax.make_jaxpr(updates)(state.params, state.optimizer_state, state.params)
    depends = jaxprs.depend_on_inputs(traced.jaxpr)
    names = [name for name, _ in tree.named_leaves(state.params)]
    if len(depends) != len(names) or not any(depends):
        return []
    return [name for name, changes in zip(names, depends, strict=True) if not changes]


def warn_of_decay_without_gradient(names: Sequence[str]) -> None:
    """Warn once of the arrays that decay alone changes.

    Args:
      names: As `without_gradient` returns them; without names there is no warning.
    """
    if names:
        shown = ", ".join(name or "(a bare array)" for name in dict.fromkeys(names))
        warn(
            f"{shown}: the loss has no gradient here, so decay alone changes it, toward zero. If it is a constant or a "
            "buffer, leave it out of the mask, such as mask=lambda params: ..., or out of the weights; "
            "wd.masks.describe shows what decays."
        )
