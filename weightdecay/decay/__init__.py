"""All that a training script imports: rules, masks, penalties, proximal maps, schedules, conventions, optimizers.

A rule of weight decay is a class with a formula and a unit. The rules are in `coupled` (what is added to the gradient),
`decoupled` (what shrinks the weights in addition to the step) and `projected` (what is done to the weights after the
step); `base` says what a rule is, and `registry` lists them. `optimizers` joins a rule to any optax transformation.

.. include:: choosing.md
.. include:: rules.md
.. include:: masks.md
.. include:: training_scripts.md
.. include:: coefficients.md
"""

from weightdecay.decay import masks, penalties, proximal, schedules
from weightdecay.decay.base import Rule, at_step, is_schedule
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
)

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
    "schedules",
]
