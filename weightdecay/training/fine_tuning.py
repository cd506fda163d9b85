"""Weights that are given: members that start from them, and weights that do not train.

The weights of a member are divided into three trees of the same structure, each with None at the arrays of the others:

- *trained*: ``State.params``. Everything else sees these alone: the optimizer, decay, norms, diagnostics.
- *frozen and shared*: ``Hyperparameters.frozen``. They were given, so that all members have the same; each device holds
  one copy.
- *frozen and drawn*: in ``State.model_state``, as `WithFrozen`. They were drawn from the member's own seed.

`network` puts them together again for a forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Key, Mask, MaskFn, ModelState, Params
from weightdecay.decay import masks, placement
from weightdecay.models import adapters
from weightdecay.models import network as networks
from weightdecay.training.task import Hyperparameters, Task, WithFrozen


class Start(NamedTuple):
    """Weights that are given, the same for all members of a group.

    Attributes:
      initial: Initial values of trained weights; None at the arrays that are drawn from the seed, or for all.
      model_state: Initial state of the model, in its structure; None where the model makes it, or for all.
      frozen: Weights that do not train; None at all other arrays, or for all.
    """

    initial: Any = None
    model_state: Any = None
    frozen: Any = None


NOTHING = Start()
"""No weights are given."""


@dataclass(frozen=True)
class OfWhole:
    """A mask that is resolved on all weights of a network, and applied to those that train.

    Which layer is the first or the last does not depend on what is frozen.

    Attributes:
      mask: The mask as the user passed it.
      structure: Structure of all weights.
      shapes: Shape and dtype of each of them.
      frozen: Names of the frozen ones.
    """

    mask: Mask | MaskFn
    structure: Any
    shapes: tuple[tuple[tuple[int, ...], Any], ...]
    frozen: tuple[str, ...]

    def __call__(self, trained: Params) -> Mask:
        """Return a bool per leaf of the weights that train, in their structure."""
        whole = self.structure.unflatten(jax.ShapeDtypeStruct(*shape) for shape in self.shapes)
        decays = self.structure.unflatten(masks.resolve(self.mask, whole))
        return jax.tree.structure(trained).unflatten(jax.tree.leaves(tree.without(decays, self.frozen)))

    @override
    def __hash__(self) -> int:
        return hash((self.structure, self.shapes, self.frozen))

    @property
    def __name__(self) -> str:
        """Name of the mask, for messages."""
        return getattr(self.mask, "__name__", "given")


@dataclass(frozen=True)
class Without:
    """A mask without some arrays: those that the optimizer never changes.

    Attributes:
      mask: The mask as the user passed it.
      names: Names of the arrays that do not decay in any case.
    """

    mask: Mask | MaskFn
    names: tuple[str, ...]

    def __call__(self, params: Params) -> Mask:
        """Return a bool per leaf of the weights, in their structure."""
        leaves = zip(tree.named_leaves(params), masks.resolve(self.mask, params), strict=True)
        return jax.tree.structure(params).unflatten(name not in self.names and decays for (name, _), decays in leaves)

    @override
    def __hash__(self) -> int:
        return hash(self.names)

    @property
    def __name__(self) -> str:
        """Name of the mask, for messages."""
        return getattr(self.mask, "__name__", "given")


def of_whole(mask: Mask | MaskFn, params: Params, frozen: Sequence[str]) -> Mask | MaskFn:
    """Return a mask of the weights that train, from a mask of all weights.

    Args:
      mask: As the user passed it.
      params: All weights, as shapes.
      frozen: Names of the frozen ones.

    Returns:
      The mask; the same one where nothing is frozen.
    """
    if not frozen:
        return mask
    leaves, structure = jax.tree.flatten(params)
    return OfWhole(mask, structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), tuple(frozen))


def frozen_names(trainable: Mask | MaskFn | None, params: Params) -> tuple[str, ...]:
    """Names of the weights that do not train.

    Args:
      trainable: True = trains; a pytree prefix of ``params``, or a function that makes one. None = all weights train.
      params: All weights, or their shapes.

    Returns:
      The names.

    Raises:
      ArgumentTypeError: A leaf of the mask is not a bool.
      ArgumentError: The mask does not fit the weights, or no weight trains.
    """
    if trainable is None:
        return ()
    trains = masks.selected(trainable, params, argument="trainable")
    names = [name for name, _ in tree.named_leaves(params)]
    return tuple(name for name, trained in zip(names, trains, strict=True) if not trained)


def started(
    task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, start: Start
) -> tuple[Params, ModelState]:
    """Replace drawn weights by given ones, and divide the weights as a member carries them.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: All weights as the model draws them.
      model_state: State of the model as it makes it.
      start: Weights that are given.

    Returns:
      ``State.params`` and ``State.model_state``.
    """
    return divided(
        task,
        tree.first_given(start.initial, params),
        tree.first_given(start.model_state, model_state),
        hyperparameters.frozen,
    )


def anchored(task: Task, hyperparameters: Hyperparameters, start: Start) -> Hyperparameters:
    """Let rules toward the initial weights pull toward those that were given; arrays that were not decay toward 0.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      start: Weights that are given.

    Returns:
      The same hyperparameters, with an anchor where a rule had none; unchanged where no weights are given.
    """
    if start.initial is None:
        return hyperparameters
    # Where an optimizer is restricted to some of the weights, the rule sees these alone.
    given = tree.without(start.initial, task.mask.names if isinstance(task.mask, Without) else ())
    decay = placement.changed(hyperparameters.decay, anchor=lambda anchor: given if anchor is None else anchor)
    return hyperparameters._replace(decay=decay)


def divided(task: Task, params: Params, model_state: ModelState, shared: Params | None) -> tuple[Params, ModelState]:
    """Divide the weights of a network as a member carries them.

    Args:
      task: What is trained.
      params: All weights.
      model_state: State of the model.
      shared: The frozen weights that are shared; None = none.

    Returns:
      ``State.params`` and ``State.model_state``.
    """
    if not task.frozen:
        return params, model_state
    held = set() if shared is None else {name for name, _ in tree.named_leaves(shared)}
    drawn = [name for name in task.frozen if name not in held]
    trained = tree.without(params, task.frozen)
    return trained, WithFrozen(tree.only(params, drawn), model_state) if drawn else model_state


def network(task: Task, hyperparameters: Hyperparameters) -> networks.Network:
    """Return the network of a member as a function of the weights that train.

    Args:
      task: What is trained.
      hyperparameters: The member's.

    Returns:
      The network; its ``init`` makes all weights.
    """
    whole = task.network()
    if not task.frozen:
        return whole

    def apply(params: Params, model_state: ModelState, inputs: Any, *, key: Key, train: bool, **others: Any) -> Any:
        drawn, state = model_state if isinstance(model_state, WithFrozen) else (None, model_state)
        params = tree.first_given(params, drawn, hyperparameters.frozen)
        outputs, changed = whole.apply(params, state, inputs, key=key, train=train, **others)
        return outputs, changed if drawn is None else WithFrozen(drawn, changed)

    return networks.Network(whole.init, apply)


def sown_loss(model_state: ModelState) -> Any:
    """Return the sum of the losses that a network sowed in its last forward pass, shape ``()``; None = it sows none."""
    return adapters.sown_loss(model_state.model_state if isinstance(model_state, WithFrozen) else model_state)
