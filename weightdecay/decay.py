"""The rules of weight decay, and where in a step each one acts.

Notation of the formulas: w weights, g gradient of the mean data loss, η learning rate at this step, s = η / its peak, u
the preconditioned direction (the base optimizer's step is w - η u), D the diagonal of its preconditioner, u = g / D
under a steady gradient (1 - momentum for SGD, √v̂ + ε for Adam), S(z, t) = sign(z) max(|z| - t, 0).

Every rule here is elementwise and has one normal form, `Terms`: what it adds to the gradient, what it shrinks beside
the step, and the proximal map it takes after the step. Rules of one normal form differ in numbers alone, so any mix of
them trains in one compiled program. A rule's coefficient may be a Python number, a (traced) array of shape ``()``, a
pytree prefix of the weights with a number a layer, or a schedule ``step -> number``; constructors do not look at it.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from typing_extensions import dataclass_transform, override

from weightdecay import penalties, proximal, tree
from weightdecay.types import Coefficient, Params, Scalar


@dataclass_transform(frozen_default=True)
def _rule(cls: Any) -> Any:
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


class Rule:
    """A kind of weight decay with its coefficients: a frozen dataclass and a pytree."""

    def terms(self) -> "Terms":
        """Return the rule in its normal form."""
        raise NotImplementedError(f"{type(self).__name__} has no normal form.")

    def coefficients(self) -> dict[str, Coefficient]:
        """Return the coefficients by name, in the order of the constructor."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        """Return the rule as one writes it: ``L2(0.01)``."""
        values = self.coefficients().values()
        return (
            f"{type(self).__name__}({', '.join(f'{v:.4g}' if isinstance(v, int | float) else str(v) for v in values)})"
        )


@_rule
class Terms(Rule):
    """Normal form of the elementwise rules; None = the rule has no such term.

    ::

        g <- g + l1 sign(w) + l2 w
        w <- (1 - η decoupled - s independent) w - η u
        w <- S(w, η proximal_l1 / D) / (1 + η proximal_l2 / D)

    A term of 0 is the identity, bit for bit, so a rule and the same rule with zeros in its empty places agree. Only
    where a compiler fuses a product with the sum behind it, and so rounds once in place of twice, are they a rounding
    apart.
    """

    l1: Coefficient = None
    l2: Coefficient = None
    decoupled: Coefficient = None
    independent: Coefficient = None
    proximal_l1: Coefficient = None
    proximal_l2: Coefficient = None

    @override
    def terms(self) -> "Terms":
        return self

    def filled(self) -> "Terms":
        """Return the same rule with 0 in its empty places: the one structure that all elementwise rules share."""
        return Terms(**{name: 0.0 if value is None else value for name, value in self.coefficients().items()})

    @property
    def is_empty(self) -> bool:
        """Whether the rule has no term at all."""
        return all(value is None for value in self.coefficients().values())

    @property
    def is_proximal(self) -> bool:
        """Whether the rule takes a proximal step."""
        return self.proximal_l1 is not None or self.proximal_l2 is not None

    def regularize(self, gradient: Array, weight: Array) -> Array:
        """Add the penalty's gradient to one array's gradient, before momentum and preconditioner."""
        regularized = gradient
        if self.l1 is not None:
            regularized = regularized + self.l1 * jnp.sign(weight)
        if self.l2 is not None:
            regularized = regularized + self.l2 * weight
        return regularized.astype(gradient.dtype)

    def step(
        self, update: Array, weight: Array, learning_rate: Scalar, scale: Scalar, metric: Array | Scalar | None
    ) -> Array:
        """Turn the base optimizer's update of one array, -η u, into the rule's update, to be added to the weight.

        Args:
          update: -η u.
          weight: Before the step, same shape.
          learning_rate: η, shape ``()``.
          scale: s, shape ``()``.
          metric: D, a shape that broadcasts against the weight; None = 1.

        Returns:
          The update, in the weight's dtype. Where the proximal map makes a zero it is exactly ``-weight``.
        """
        if self.decoupled is not None or self.independent is not None:
            share = (0 if self.decoupled is None else learning_rate * self.decoupled) + (
                0 if self.independent is None else scale * self.independent
            )
            update = update - share * weight
        if self.is_proximal:
            stepped = weight + update
            step_size = learning_rate if metric is None else learning_rate / metric
            moved = stepped
            if self.proximal_l1 is not None:
                moved = proximal.l1(moved, self.proximal_l1, step_size)
            if self.proximal_l2 is not None:
                moved = proximal.l2(moved, self.proximal_l2, step_size)
            # What the map leaves in place keeps the base update's own bits.
            update = jnp.where(moved == stepped, update, moved - weight)
        return update.astype(weight.dtype)

    def penalty(self, weight: Array) -> Scalar:
        """Penalty of one array, in the unit of the loss: what is minimized beside the data loss."""
        pairs = [
            (penalties.l1, self.l1),
            (penalties.l2, self.l2),
            (penalties.l1, self.proximal_l1),
            (penalties.l2, self.proximal_l2),
        ]
        return sum((c * penalty(weight) for penalty, c in pairs if c is not None), start=jnp.zeros(()))


@_rule
class NoDecay(Rule):
    """No decay: the base optimizer, bit for bit.

    ``w <- w - η u``
    """

    @override
    def terms(self) -> Terms:
        return Terms()


@_rule
class L2(Rule):
    """Coupled L2: the penalty's gradient joins the data gradient, before momentum and preconditioner.

    ``g <- g + c w``, the gradient of ``c |w|²/2``. Under Adam this is another method than `Decoupled`.

    Args:
      coefficient: c >= 0, loss / weight². Equals torch's ``weight_decay`` in SGD and Adam; Keras ``L2`` is c / 2.

    References:
      Krogh & Hertz, A Simple Weight Decay Can Improve Generalization, 1992.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(l2=self.coefficient)


@_rule
class L1(Rule):
    """Coupled L1: a pull of constant size toward zero, by the penalty's subgradient.

    ``g <- g + c sign(w)``, sign(0) = 0. It makes weights small and never exactly zero: for zeros take `ProximalL1`.

    Args:
      coefficient: c >= 0, loss / weight. Equals Keras ``L1``.

    References:
      Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(l1=self.coefficient)


@_rule
class ElasticNet(Rule):
    """Coupled elastic net: L1 and L2 together.

    ``g <- g + c1 sign(w) + c2 w``

    Args:
      l1_coefficient: c1 >= 0, loss / weight.
      l2_coefficient: c2 >= 0, loss / weight².

    References:
      Zou & Hastie, Regularization and Variable Selection via the Elastic Net, 2005.
    """

    l1_coefficient: Coefficient
    l2_coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(l1=self.l1_coefficient, l2=self.l2_coefficient)


@_rule
class Decoupled(Rule):
    """Decoupled decay: the weights shrink beside the step, by a share that scales with the learning rate.

    ``w <- (1 - η c) w - η u``. With Adam this is AdamW as torch and optax have it.

    Args:
      coefficient: c >= 0, 1 / (step · learning rate). Equals torch's and optax's ``weight_decay`` in AdamW.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(decoupled=self.coefficient)


@_rule
class Independent(Rule):
    """Independent decay: the share a step does not know the peak learning rate, only the schedule.

    ``w <- (1 - s c) w - η u`` with s = η / peak η, which is 1 at a constant rate.

    Args:
      coefficient: c >= 0, 1 / step. Equals the peak learning rate times the coefficient of `Decoupled`.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101 (as in the authors' code).
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(independent=self.coefficient)


@_rule
class ProximalL1(Rule):
    """L1 by its proximal map, which gives exact zeros.

    ``w <- S(w - η u, η c / D)``: the map is taken in the base optimizer's own metric, so that SGD and Adam have the
    same minimizer, the one of ``loss + c |w|₁``.

    Args:
      coefficient: c >= 0, loss / weight.

    References:
      Yun, Lozano & Yang, A General Family of Stochastic Proximal Gradient Methods for Deep Learning, 2020,
      arXiv 2007.07484.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l1=self.coefficient)


@_rule
class ProximalL2(Rule):
    """L2 by its proximal map, the implicit step: stable for any coefficient.

    ``w <- (w - η u) / (1 + η c / D)``: in the base optimizer's own metric, so that SGD and Adam have the same
    minimizer, the one of ``loss + c |w|²/2``. Zhuang et al. take the map under Adam without D; that is an implicit
    `Decoupled`, with another minimizer.

    Args:
      coefficient: c >= 0, loss / weight².

    References:
      Parikh & Boyd, Proximal Algorithms, 2014; Zhuang et al., Understanding AdamW through Proximal Methods and
      Scale-Freeness, 2022, arXiv 2202.00089.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l2=self.coefficient)


@_rule
class ProximalElasticNet(Rule):
    """Elastic net by its proximal map: exact zeros, and shrinkage of the rest.

    ``w <- S(w - η u, η c1 / D) / (1 + η c2 / D)``

    Args:
      l1_coefficient: c1 >= 0, loss / weight.
      l2_coefficient: c2 >= 0, loss / weight².

    References:
      Zou & Hastie, Regularization and Variable Selection via the Elastic Net, 2005.
    """

    l1_coefficient: Coefficient
    l2_coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l1=self.l1_coefficient, proximal_l2=self.l2_coefficient)


KINDS: dict[str, type[Rule]] = {
    kind.__name__: kind
    for kind in (NoDecay, L2, L1, ElasticNet, Decoupled, Independent, ProximalL1, ProximalL2, ProximalElasticNet)
}
"""Every rule by its name."""


def leafwise(rule: Rule, params: Params, decays: list[bool]) -> list[Terms]:
    """Normal form of a rule for each array of the weights, with a number in each place.

    Args:
      rule: Coefficients are scalars or pytree prefixes of ``params``, possibly traced.
      params: Weights.
      decays: One bool a leaf of ``params``; where it is False the terms are empty, so the base step stands as it is.

    Returns:
      One `Terms` a leaf, in the order of `jax.tree.leaves`. The numbers have at least float32's precision, whatever the
      weights have.

    Raises:
      ValueError: A coefficient is a tree that does not fit the weights.
    """
    leaves = jax.tree.leaves(params)
    columns = [
        [None] * len(leaves) if value is None else tree.spread(value, params, argument=f"coefficient of {rule}")
        for value in rule.terms().coefficients().values()
    ]

    def number(value: Any, weight: Any) -> Any:
        return None if value is None else jnp.asarray(value, jnp.promote_types(jnp.float32, jnp.result_type(weight)))

    return [
        Terms(*(number(column[index], leaf) for column in columns)) if decayed else Terms()
        for index, (leaf, decayed) in enumerate(zip(leaves, decays, strict=True))
    ]


def at_step(rule: Rule, count: Any) -> Rule:
    """Rule with its schedules evaluated.

    Args:
      rule: Coefficients may be schedules ``count -> number``.
      count: Steps taken so far, shape ``()``; may be traced.

    Returns:
      The rule with numbers alone.
    """
    return jax.tree.map(lambda value: value(count) if callable(value) else value, rule)


def penalty(rule: Rule, params: Params, decays: list[bool]) -> Any:
    """What a rule adds to the data loss: the penalty with its coefficient.

    Args:
      rule: Coefficients may be traced.
      params: Weights.
      decays: One bool a leaf of ``params``.

    Returns:
      The penalty, shape ``()``, unit of the loss; 0 for the rules that shrink beside the loss (`Decoupled`,
      `Independent`).
    """
    terms = leafwise(rule, params, decays)
    return sum((t.penalty(w) for t, w in zip(terms, jax.tree.leaves(params), strict=True)), start=jnp.zeros(()))


def check(rule: Any, *, argument: str) -> None:
    """Refuse what is no rule, and coefficients that no rule allows; a traced coefficient passes unseen.

    Args:
      rule: What a user gave.
      argument: Where it was given, for the message.

    Raises:
      TypeError: Not a rule, or a coefficient that is no number.
      ValueError: A coefficient that is negative, infinite or nan.
    """
    if isinstance(rule, type) and issubclass(rule, Rule) and rule is not Rule:
        example = rule(*(0.01 for _ in fields(rule)))  # pyright: ignore[reportArgumentType]
        raise TypeError(f"{argument} is the kind {rule.__name__} without its coefficient; write wd.{example}.")
    if not isinstance(rule, Rule) or type(rule) is Rule:
        raise TypeError(
            f"{argument} is {rule!r}, of type {type(rule).__name__}, which is no decay rule; give one of: "
            f"{', '.join(KINDS)}, for example wd.L2(0.01)."
        )
    for name, value in rule.coefficients().items():
        where = f"{argument} = {rule}: {name}"
        leaves = tree.named_leaves(value)
        if not leaves and not isinstance(rule, Terms):
            raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; give a number >= 0.")
        for leaf_name, leaf in leaves:
            _check_number(leaf, where + (f"[{leaf_name}]" if leaf_name else ""))


def _check_number(value: Any, where: str) -> None:
    if callable(value) or isinstance(value, Tracer):
        return
    kind = np.asarray(value).dtype
    if isinstance(value, bool) or not (np.issubdtype(kind, np.floating) or np.issubdtype(kind, np.integer)):
        raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; give a number >= 0.")
    if np.ndim(value) > 0:
        raise ValueError(
            f"{where} is an array of shape {np.shape(value)}; give one number, or a tree with a number a layer. For "
            "many candidates give many rules, as wd.logspace makes them."
        )
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{where} is {value}; a coefficient is a finite number >= 0.")
