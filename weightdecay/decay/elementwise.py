"""Elementwise rules and the normal form that they share, so that any mix of them trains in one compiled program."""

import functools
from typing import Any

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree, Scalar
from weightdecay.decay import penalties
from weightdecay.decay.base import Rule, Step, preserve_bits, written

PROXIMAL_TERMS = frozenset({"proximal_l1", "proximal_l2"})
"""Terms that need the diagonal of the preconditioner."""
SCHEDULE_TERMS = frozenset({"independent", "corrected"})
"""Terms that need the peak of a learning-rate schedule."""


@tree.dataclass
class Terms(Rule):
    """Normal form of the elementwise rules; None = the rule does not have the term.

    ::

        g <- g + l1 sign(w) + l2 w
        w <- (1 - η decoupled - η s corrected - s independent) w - η u
        w <- S(w, η proximal_l1 / D) / (1 + η proximal_l2 / D)

    Rules in this form differ in numbers alone, so any mix of them trains in one compiled program. A term of 0 is the
    identity, bit for bit, so a rule is equal to the same rule with zeros for the missing terms. Only where a compiler
    fuses a product with the following sum, and so rounds once instead of twice, do they differ by a rounding.
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

    @override
    def __str__(self) -> str:
        """Return the rules that the terms belong to: ``L2(0.1) + ProximalL1(0.01)``."""
        rule = {"l1": "L1", "l2": "L2", "proximal_l1": "ProximalL1", "proximal_l2": "ProximalL2"}
        names = {field: rule.get(field, field.capitalize()) for field in self.coefficients() if field in self.present}
        return " + ".join(f"{name}({written(getattr(self, field))})" for field, name in names.items()) or "NoDecay()"

    @property
    def present(self) -> frozenset[str]:
        """Names of the terms that the rule has."""
        return frozenset(name for name, value in self.coefficients().items() if value is not None)

    def filled(self, names: frozenset[str]) -> "Terms":
        """Return the same rule with 0 for those of the named terms that it does not have."""
        return Terms(
            **{name: 0.0 if value is None and name in names else value for name, value in self.coefficients().items()}
        )

    @property
    @override
    def needs(self) -> frozenset[str]:
        diagonal = {"preconditioner_diagonal"} if self.present & PROXIMAL_TERMS else set()
        peak = {"peak_learning_rate"} if self.present & SCHEDULE_TERMS else set()
        return frozenset(diagonal | peak)

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        pulls = [] if self.l1 is None else [self.l1 * jnp.sign(weight)]
        pulls += [] if self.l2 is None else [self.l2 * weight]
        return (functools.reduce(jnp.add, pulls) if pulls else None), state

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        fractions = [] if self.decoupled is None else [step.learning_rate * self.decoupled]
        fractions += [] if self.corrected is None else [step.learning_rate * step.scale * self.corrected]
        fractions += [] if self.independent is None else [step.scale * self.independent]
        return (sum(fractions) * step.weight if fractions else None), state

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        if self.proximal_l1 is None and self.proximal_l2 is None:
            return stepped, state
        # S(z, η c1 / D) / (1 + η c2 / D), with numerator and denominator multiplied by D: one division per weight.
        diagonal = 1.0 if step.preconditioner_diagonal is None else step.preconditioner_diagonal
        threshold = 0.0 if self.proximal_l1 is None else step.learning_rate * self.proximal_l1
        shrinkage = 0.0 if self.proximal_l2 is None else step.learning_rate * self.proximal_l2
        scaled, denominator = diagonal * stepped, diagonal + shrinkage
        moved = jnp.sign(scaled) * jnp.maximum(jnp.abs(scaled) - threshold, 0)
        moved = moved / jnp.where(denominator == 0, 1, denominator)
        # Where the product by D overflows, the threshold is negligible next to it.
        overflows = jnp.isfinite(stepped) & ~jnp.isfinite(scaled)
        beyond = 1 if self.proximal_l2 is None else 1 + shrinkage / jnp.where(overflows, diagonal, 1)
        moved = jnp.where(overflows, stepped / beyond, moved)
        # Where both coefficients are 0, the multiplication by D must not leave a rounding behind.
        moved = preserve_bits((threshold == 0) & (shrinkage == 0), stepped, moved)
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

    @override
    def removed_fraction(self, learning_rate: Any, scale: Any, momentum: Any) -> Any:
        if len(self.present) != 1:
            return None
        if self.l2 is not None:
            return None if momentum is None else learning_rate * self.l2 / (1 - momentum)
        if self.decoupled is not None:
            return learning_rate * self.decoupled
        if self.corrected is not None:
            return learning_rate * scale * self.corrected
        return None if self.independent is None else scale * self.independent


class ElementwiseRule(Rule):
    """A rule that is nothing but its normal form, and therefore shares a compiled program with all others like it.

    A subclass defines `terms`; every hook follows from it.
    """

    def terms(self) -> Terms:
        """Return the normal form."""
        raise NotImplementedError(f"{type(self).__name__} does not define terms().")

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

    @override
    def removed_fraction(self, learning_rate: Any, scale: Any, momentum: Any) -> Any:
        return self.terms().removed_fraction(learning_rate, scale, momentum)


@tree.dataclass
class NoDecay(ElementwiseRule):
    """No decay: the base optimizer, bit for bit.

    ``w <- w - η u``
    """

    equals = "the base optimizer, bit for bit"

    @override
    def terms(self) -> Terms:
        return Terms()
