# The public names, said once: read by the lazy loader in __init__.py and by type checkers.
from . import data, decay, masks, models, penalties, proximal
from .data import Data
from .decay import (
    L1,
    L2,
    Decoupled,
    ElasticNet,
    Independent,
    NoDecay,
    ProximalElasticNet,
    ProximalL1,
    ProximalL2,
)
from .grid import Grid, logspace
from .models import Model
from .optimizers import adam, optimizer, sgd
from .penalties import penalized
from .results import GridResult, load
from .running import fit, fit_grid

__all__ = [
    "L1",
    "L2",
    "Data",
    "Decoupled",
    "ElasticNet",
    "Grid",
    "GridResult",
    "Independent",
    "Model",
    "NoDecay",
    "ProximalElasticNet",
    "ProximalL1",
    "ProximalL2",
    "adam",
    "data",
    "decay",
    "fit",
    "fit_grid",
    "load",
    "logspace",
    "masks",
    "models",
    "optimizer",
    "penalized",
    "penalties",
    "proximal",
    "sgd",
]
