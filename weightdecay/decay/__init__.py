"""All that a training script imports: rules, masks, penalties, proximal maps, schedules, conventions, optimizers.

- A rule is one class with a formula, a unit and a range, in `coupled` (added to the gradient), `decoupled` (shrinks the
  weights in addition to the step) or `projected` (moves the weights after the step), and one entry in `registry.KINDS`.
  `base.Rule` documents the hooks; tables, plots and the command line derive from the class.
- A user's own rule is a subclass of `Rule` under the decorator `rule`, in the user's own script.
- `optimizers` joins any rule to any optax preconditioner; `transformation` is the update itself.
- Everything is written for one member. Coefficients and other numbers may be traced: no ``if coefficient == 0``. Zero
  is a value like any other, and gives the bits of the base optimizer.
- Constructors contain no logic, because JAX calls them with tracers; `registry.check` validates where an optimizer or a
  grid is made.

.. include:: choosing.md
.. include:: rules.md
.. include:: masks.md
.. include:: training_scripts.md
.. include:: coefficients.md
"""

from weightdecay.decay import masks, penalties, proximal, schedules
from weightdecay.decay.base import Rule, Step, at_step, is_schedule, with_unit
from weightdecay.decay.elementwise import Terms
from weightdecay.decay.registry import (
    KINDS,
    L1,
    L2,
    Adaptive,
    Cautious,
    Combined,
    Constrained,
    Corrected,
    Decoupled,
    ElasticNet,
    Elimination,
    Huber,
    Independent,
    Lp,
    Masked,
    MaxNorm,
    NoDecay,
    NormControl,
    Orthogonal,
    PerLayer,
    ProximalElasticNet,
    ProximalGroupLasso,
    ProximalL1,
    ProximalL2,
    SelectiveProjection,
    Spectral,
    Stable,
    TowardAnchor,
    check,
    combined,
    parts,
    penalty,
    table,
)
from weightdecay.decay.user_rules import rule

__all__ = [
    "KINDS",
    "L1",
    "L2",
    "Adaptive",
    "Cautious",
    "Combined",
    "Constrained",
    "Corrected",
    "Decoupled",
    "ElasticNet",
    "Elimination",
    "Huber",
    "Independent",
    "Lp",
    "Masked",
    "MaxNorm",
    "NoDecay",
    "NormControl",
    "Orthogonal",
    "PerLayer",
    "ProximalElasticNet",
    "ProximalGroupLasso",
    "ProximalL1",
    "ProximalL2",
    "Rule",
    "SelectiveProjection",
    "Spectral",
    "Stable",
    "Step",
    "Terms",
    "TowardAnchor",
    "at_step",
    "check",
    "combined",
    "is_schedule",
    "masks",
    "parts",
    "penalties",
    "penalty",
    "proximal",
    "rule",
    "schedules",
    "table",
    "with_unit",
]
