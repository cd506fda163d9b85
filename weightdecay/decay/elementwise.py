"""The normal form that the plain elementwise rules share, so that any mix of them is one compiled program."""

import functools

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree, Scalar
from weightdecay.decay import penalties
from weightdecay.decay.base import Rule, Step, keep


@tree.dataclass
class Terms(Rule):
    """Normal form of the plain elementwise rules; None = the rule has no such term.

    ::

        g <- g + l1 sign(w) + l2 w
        w <- (1 - η decoupled - η s corrected - s independent) w - η u
        w <- S(w, η proximal_l1 / D) / (1 + η proximal_l2 / D)

    Rules of one normal form differ in numbers alone, so any mix of them trains in one compiled program. A term of 0 is
    the identity, bit for bit, so a rule and the same rule with zeros in its empty places agree. Only where a compiler
    fuses a product with the sum behind it, and so rounds once in place of twice, are they a rounding apart.
    """

    l1: Coefficient = None
    l2: Coefficient = None
    decoupled: Coefficient = None
    corrected: Coefficient = None
    independent: Coefficient = None
    proximal_l1: Coefficient = None
    proximal_l2: Coefficient = None

    def terms(self) -> "Terms":
        """Return itself."""
        return self

    @property
    def present(self) -> frozenset[str]:
        """Names of the terms that the rule has."""
        return frozenset(name for name, value in self.coefficients().items() if value is not None)

    def filled(self, names: frozenset[str]) -> "Terms":
        """Return the same rule with 0 in those of the named places that are empty."""
        return Terms(
            **{name: 0.0 if value is None and name in names else value for name, value in self.coefficients().items()}
        )

    @property
    @override
    def needs(self) -> frozenset[str]:
        metric = {"metric"} if self.present & {"proximal_l1", "proximal_l2"} else set()
        peak = {"peak_learning_rate"} if self.present & {"independent", "corrected"} else set()
        return frozenset(metric | peak)

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        pulls = [] if self.l1 is None else [self.l1 * jnp.sign(weight)]
        pulls += [] if self.l2 is None else [self.l2 * weight]
        return (functools.reduce(jnp.add, pulls) if pulls else None), state

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        shares = [] if self.decoupled is None else [step.learning_rate * self.decoupled]
        shares += [] if self.corrected is None else [step.learning_rate * step.scale * self.corrected]
        shares += [] if self.independent is None else [step.scale * self.independent]
        return (sum(shares) * step.weight if shares else None), state

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        if self.proximal_l1 is None and self.proximal_l2 is None:
            return stepped, state
        # S(z, η c1 / D) / (1 + η c2 / D) with D above and below the fraction: one division a weight.
        metric = 1.0 if step.metric is None else step.metric
        threshold = 0.0 if self.proximal_l1 is None else step.learning_rate * self.proximal_l1
        shrinkage = 0.0 if self.proximal_l2 is None else step.learning_rate * self.proximal_l2
        scaled, below = metric * stepped, metric + shrinkage
        moved = jnp.sign(scaled) * jnp.maximum(jnp.abs(scaled) - threshold, 0) / jnp.where(below == 0, 1, below)
        # Without a coefficient not even a rounding is left of the detour by D.
        moved = keep((threshold == 0) & (shrinkage == 0), stepped, moved)
        return moved.astype(stepped.dtype), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        pairs = [
            (penalties.l1, self.l1),
            (penalties.l2, self.l2),
            (penalties.l1, self.proximal_l1),
            (penalties.l2, self.proximal_l2),
        ]
        return sum((c * penalty(weight) for penalty, c in pairs if c is not None), start=jnp.zeros(()))


class Plain(Rule):
    """A rule that is its normal form and nothing else."""

    def terms(self) -> Terms:
        """Return the normal form."""
        raise NotImplementedError(f"{type(self).__name__} has no normal form.")

    @property
    @override
    def needs(self) -> frozenset[str]:
        return self.terms().needs

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        return self.terms().couple(weight, state)

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        return self.terms().shrink(step, state)

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        return self.terms().move(stepped, step, state)

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.terms().penalty(weight, state)
