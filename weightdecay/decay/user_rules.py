"""The decorator with which users define rules of their own, in their own scripts."""

import inspect
from dataclasses import field
from typing import TypeVar

from typing_extensions import dataclass_transform

from weightdecay.core import tree
from weightdecay.decay import registry
from weightdecay.decay.base import Rule, with_unit
from weightdecay.decay.elementwise import ElementwiseRule

_HOOKS = ("couple", "shrink", "move")
_METHODS = (*_HOOKS, "initial", "penalty", "check", "removed_fraction")
# Names that axes of a grid, the table of members, or the stored form of a rule use for something else.
_RESERVED = {"candidate", "decay", "fold", "layer", "learning_rate", "list", "masked", "member", "rule", "seed", "step"}
_RESERVED |= {"stopped_at", "diverged_at", "tree"}

_Kind = TypeVar("_Kind", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field, with_unit))
def rule(cls: _Kind) -> _Kind:
    """Make a class a rule of weight decay of your own.

    The class becomes a frozen dataclass and a pytree whose leaves are its coefficients, and it is known by its name
    from then on: it can be passed wherever a rule of the library can, to `weightdecay.adam` and the other optimizers,
    `weightdecay.logspace`, `weightdecay.Grid`, `weightdecay.Masked` and in a tuple with other rules, and it appears in
    tables, plots and reports by its name. A saved result stores the name and the coefficients, never the code:
    define the class before `weightdecay.load`. A class of the same name that is defined again, as in a notebook cell
    that is run twice, replaces the earlier one.

    Args:
      cls: A subclass of `Rule` with annotated coefficients and at least one of the hooks `Rule.couple`, `Rule.shrink`
        and `Rule.move`. A coefficient without a unit is ``coefficient: float``; one with a unit is ``coefficient: float
        = wd.decay.with_unit("1 / step")``. An option that is a Python value is a field with the metadata
        ``{"static": True}``.

    Returns:
      The class.

    Raises:
      TypeError: Not a subclass of `Rule`, a hook with other parameters, or a class that defines none of the hooks.
      ValueError: The name is that of a class of the library, or a field has the name of something else.

    Examples:
      Weights are pulled toward the nearest multiple of a step size:

      >>> import jax.numpy as jnp
      >>> import weightdecay as wd
      >>> @wd.decay.rule
      ... class ToGrid(wd.decay.Rule):
      ...     coefficient: float
      ...     spacing: float = 1.0
      ...
      ...     def shrink(self, step, state):
      ...         distance = step.weight - self.spacing * jnp.round(step.weight / self.spacing)
      ...         return step.learning_rate * self.coefficient * distance, state
      >>> optimizer = wd.adam(1e-3, ToGrid(0.1))
      >>> print(ToGrid(0.1), ToGrid(0.1, 0.5))
      ToGrid(0.1) ToGrid(0.1, 0.5)
    """
    if not isinstance(cls, type):
        raise TypeError(f"wd.decay.rule decorates a class, and this is {cls!r}, of type {type(cls).__name__}.")
    name = cls.__name__
    if not issubclass(cls, Rule):
        raise TypeError(f"{name} is not a subclass of wd.decay.Rule; write class {name}(wd.decay.Rule):")
    if name in registry.KINDS or name in registry.OTHERS:
        raise ValueError(f"{name} is the name of a class of weightdecay; give your rule another name.")
    _check_hooks(cls)
    _check_annotations(cls)
    cls = tree.dataclass(cls)
    registry.enter_facts(cls)
    registry.USER_KINDS[name] = cls
    return cls


def _check_hooks(cls: type[Rule]) -> None:
    name = cls.__name__
    own = {hook: getattr(cls, hook) for hook in _METHODS if getattr(cls, hook) is not getattr(Rule, hook)}
    if not own.keys() & set(_HOOKS):
        raise TypeError(f"{name} does nothing to the weights; define at least one of the hooks {', '.join(_HOOKS)}.")
    for hook, function in own.items():
        expected = list(inspect.signature(getattr(Rule, hook)).parameters)
        try:
            inspect.signature(function).bind(*expected)
        except TypeError as error:
            raise TypeError(
                f"{name}.{hook} must take ({', '.join(expected)}); write def {hook}({', '.join(expected)}):"
            ) from error
    overridden = [hook for hook in _HOOKS if hook in own and own[hook] is not getattr(ElementwiseRule, hook)]
    if issubclass(cls, ElementwiseRule) and overridden:
        raise TypeError(
            f"{name} overrides {overridden[0]} of an elementwise rule, which trains by its terms alone; derive your "
            "rule from wd.decay.Rule."
        )


def _check_annotations(cls: type[Rule]) -> None:
    """Refuse fields whose names mean something else, before the dataclass takes an inherited method for a default."""
    for name, annotation in inspect.get_annotations(cls).items():
        if "ClassVar" in str(annotation):
            continue
        if hasattr(Rule, name) or name in _RESERVED:
            what = "is an attribute of every rule" if hasattr(Rule, name) else "means something else in a grid"
            raise ValueError(f"{cls.__name__} has a field {name!r}, which {what}; give the field another name.")
