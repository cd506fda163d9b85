# The public names, said once: read by the lazy loader in __init__.py and by type checkers.
from . import data, decay, models
from .apps.comparison import compare
from .apps.estimators import DecayClassifierCV, DecayRegressorCV
from .data import Data
from .decay import (
    L1,
    L2,
    SODA,
    Adaptive,
    Cautious,
    Constrained,
    Corrected,
    Decoupled,
    ElasticNet,
    Elimination,
    Huber,
    Hyperball,
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
    ProximalHuber,
    ProximalL1,
    ProximalL2,
    ProximalMCP,
    RadialBrake,
    RelativeStep,
    SelectiveProjection,
    Spectral,
    Stable,
    Touched,
    TowardAnchor,
    TowardAverage,
    masks,
    penalties,
    proximal,
    schedules,
)
from .decay.convert import convert
from .decay.optimizers import adam, lamb, lion, muon, optimizer, rmsprop, sgd
from .decay.penalties import penalized
from .engine import executors
from .engine.fit import fit, fit_grid
from .engine.forecast import plan
from .engine.initial_weights import Initial
from .engine.map_grid import map_grid
from .engine.plans import Plan
from .models.network import Model
from .results import trackers
from .results.grid_result import GridResult, load
from .results.suggestion import suggest
from .search import strategies
from .search.distributions import Choice, IntUniform, LogUniform, Uniform
from .search.grid import Grid, logspace
from .storage.weights import load_params
from .training import metrics

__all__ = [
    "L1",
    "L2",
    "SODA",
    "Adaptive",
    "Cautious",
    "Choice",
    "Constrained",
    "Corrected",
    "Data",
    "DecayClassifierCV",
    "DecayRegressorCV",
    "Decoupled",
    "ElasticNet",
    "Elimination",
    "Grid",
    "GridResult",
    "Huber",
    "Hyperball",
    "Independent",
    "Initial",
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
    "ProximalHuber",
    "ProximalL1",
    "ProximalL2",
    "ProximalMCP",
    "RadialBrake",
    "RelativeStep",
    "SelectiveProjection",
    "Spectral",
    "Stable",
    "Touched",
    "TowardAnchor",
    "TowardAverage",
    "Uniform",
    "adam",
    "compare",
    "convert",
    "data",
    "decay",
    "executors",
    "fit",
    "fit_grid",
    "lamb",
    "lion",
    "load",
    "load_params",
    "logspace",
    "map_grid",
    "masks",
    "metrics",
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
    "strategies",
    "suggest",
    "trackers",
]
