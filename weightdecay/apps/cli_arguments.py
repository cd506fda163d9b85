"""A job from the words of a command line: model, data, grid and optimizer by their names.

What is wrong with a word is told before anything slow is imported.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightdecay.data import Data
    from weightdecay.decay import Rule

# Coefficients from where a rule does nothing to where it takes everything, under Adam at a learning rate of 0.001.
RANGES = {
    "L2": (1e-6, 1e-1),
    "L1": (1e-7, 1e-2),
    "ElasticNet": (1e-7, 1e-2),
    "Orthogonal": (1e-5, 1e0),
    "Spectral": (1e-5, 1e0),
    "TowardAnchor": (1e-6, 1e-1),
    "Decoupled": (1e-3, 1e1),
    "Independent": (1e-6, 1e-2),
    "Corrected": (1e-3, 1e1),
    "Cautious": (1e-3, 1e1),
    "Stable": (1e-6, 1e-1),
    "Adaptive": (1e-2, 1e2),
    "ProximalL1": (1e-7, 1e-2),
    "ProximalL2": (1e-6, 1e-1),
    "ProximalElasticNet": (1e-7, 1e-2),
    "ProximalGroupLasso": (1e-7, 1e-2),
    "MaxNorm": (1e-1, 1e1),
    "SelectiveProjection": (1e-2, 1e0),
}

OPTIMIZERS = ("adam", "sgd", "lion", "rmsprop", "lamb", "muon")


def job(
    dataset: str,
    widths: str,
    rules: str,
    coefficients: tuple[float, float] | None,
    num_coefficients: int,
    learning_rates: str,
    optimizer: str,
    seeds: int,
    train_size: int | None,
    label_noise: float = 0.0,
) -> dict[str, Any]:
    """Model, data, grid and optimizer of a sweep.

    Args:
      dataset: Name of a built-in set.
      widths: Of the hidden layers, divided by commas.
      rules: Kinds of decay, likewise.
      coefficients: Smallest and largest; None = those of `RANGES`.
      num_coefficients: A rule, log-spaced.
      learning_rates: Numbers divided by commas.
      optimizer: One of `OPTIMIZERS`.
      seeds: Replicates of each candidate.
      train_size: Training examples to keep; None = all.
      label_noise: Share of the training labels to falsify.

    Returns:
      Arguments of `weightdecay.fit_grid` by name.

    Raises:
      ValueError: A word that means nothing.
    """
    layers = numbers("widths", widths, int)
    rates = numbers("learning_rates", learning_rates, float)
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; give at least 1.")

    from weightdecay import models
    from weightdecay.decay import optimizers
    from weightdecay.search.grid import Grid

    optimize = one_of("optimizer", optimizer, {name: getattr(optimizers, name) for name in OPTIMIZERS})
    grid = Grid(decay=_rules(rules, coefficients, num_coefficients), learning_rate=rates, seed=range(seeds))
    splits = data_set(dataset, train_size=train_size, label_noise=label_noise)
    return {"model": models.MLP(tuple(layers)), "data": splits, "grid": grid, "optimizer": optimize}


def data_set(name: str, *, train_size: int | None, label_noise: float = 0.0) -> "Data":
    """A built-in data set.

    Args:
      name: Its name.
      train_size: Training examples to keep; None = all.
      label_noise: Share of the training labels to falsify.

    Returns:
      The examples.

    Raises:
      ValueError: An unknown name, or label noise in a regression.
    """
    from weightdecay import data

    make = one_of("dataset", name, data.BUILT_IN)
    if not is_regression(name):
        return make(num_train=train_size, label_noise=label_noise)
    if label_noise:
        raise ValueError(f"dataset {name} is a regression: it has no labels to falsify; leave label_noise.")
    return make(num_train=train_size)


def is_regression(name: str) -> bool:
    """Return whether the targets of a built-in data set are real numbers."""
    from weightdecay import data

    return name in data.BUILT_IN and "label_noise" not in inspect.signature(data.BUILT_IN[name]).parameters


def _rules(names: str, coefficients: tuple[float, float] | None, num: int) -> list["Rule"]:
    from weightdecay import decay
    from weightdecay.search.grid import logspace

    offered = {name: decay.KINDS[name] for name in ("NoDecay", *RANGES)}
    kinds = {name.lower(): kind for name, kind in offered.items()}
    made: list[Rule] = [decay.NoDecay()]
    for name in _words("rules", names):
        kind = kinds.get(name.lower().replace("_", "")) or one_of("rules", name, offered)
        if kind is decay.NoDecay:
            continue
        low, high = coefficients or RANGES[kind.__name__]
        several = kind in (decay.ElasticNet, decay.ProximalElasticNet)
        made += logspace((lambda c, kind=kind: kind(c, c)) if several else kind, low, high, num)
    return made


def folder(dataset: str) -> Path:
    """Return the first folder of the data set's name that is not taken."""
    folder, number = Path("runs") / dataset, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{dataset}-{number}"
    return folder


def _words(argument: str, text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise ValueError(f"{argument} is empty; give words divided by commas.")
    return found


def numbers(argument: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    """Return numbers that are divided by commas, ``kind(word)`` each; ``argument`` names them in an error."""
    try:
        return [kind(word) for word in _words(argument, text)]
    except ValueError as error:
        raise ValueError(
            f"{argument} is {text!r}; give numbers divided by commas, such as 64,64 or 1e-3,3e-3."
        ) from error


def one_of(argument: str, name: str, choices: dict[str, Any]) -> Any:
    """Return what stands under a name; ``argument`` is what the name was given as."""
    if name not in choices:
        raise ValueError(f"{argument} has {name!r}, which is unknown; give one of {', '.join(choices)}.")
    return choices[name]
