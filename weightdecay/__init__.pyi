# The public names, said once: read by the lazy loader in __init__.py and by type checkers.
from . import data, decay, masks, models, penalties, proximal, schedules
from .comparing import compare
from .conventions import convert
from .data import Data
from .decay import (
    L1,
    L2,
    Adaptive,
    Cautious,
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
)
from .distributions import Choice, IntUniform, LogUniform, Uniform
from .forecasting import plan
from .grid import Grid, logspace
from .mapping import map_grid
from .networks import Model
from .optimizers import adam, lamb, lion, muon, optimizer, rmsprop, sgd
from .penalties import penalized
from .planning import Plan
from .results import GridResult, load
from .running import fit, fit_grid
from .weight_files import load_params

__all__ = [
    "L1",
    "L2",
    "Adaptive",
    "Cautious",
    "Choice",
    "Constrained",
    "Corrected",
    "Data",
    "Decoupled",
    "ElasticNet",
    "Elimination",
    "Grid",
    "GridResult",
    "Huber",
    "Independent",
    "IntUniform",
    "LogUniform",
    "Lp",
    "Masked",
    "MaxNorm",
    "Model",
    "NoDecay",
    "NormControl",
    "Orthogonal",
    "PerLayer",
    "Plan",
    "ProximalElasticNet",
    "ProximalGroupLasso",
    "ProximalL1",
    "ProximalL2",
    "SelectiveProjection",
    "Spectral",
    "Stable",
    "TowardAnchor",
    "Uniform",
    "adam",
    "compare",
    "convert",
    "data",
    "decay",
    "fit",
    "fit_grid",
    "lamb",
    "lion",
    "load",
    "load_params",
    "logspace",
    "map_grid",
    "masks",
    "models",
    "muon",
    "optimizer",
    "penalized",
    "penalties",
    "plan",
    "proximal",
    "rmsprop",
    "schedules",
    "sgd",
]
