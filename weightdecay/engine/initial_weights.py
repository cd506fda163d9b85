"""Weights to start from: a tree or a safetensors file, whose arrays are matched with those of a model by name.

`Initial` is what a user gives, with names that are changed where those of the file differ from the model's. `match`
finds the array for each weight of a model; `Initial.describe` shows the result as a table.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import ModelState, Params, PyTree
from weightdecay.decay import masks
from weightdecay.decay.masks import Description
from weightdecay.storage import weights

_PARAMS = "params"  # collection of the weights among the variables of a flax linen module


class Initial:
    """Weights to start from, for ``fit_grid(..., initial=...)``.

    The arrays are matched with those of the model by name, ``"Dense_0/kernel"``. A weight of the model for which there
    is no array of its name and shape is new: it is drawn from the member's seed. Arrays that no weight of the model
    takes are left over. `describe` shows which is which.

    Args:
      source: A tree of arrays as the model holds it (``result.params()``); the variables of a flax linen module,
        ``{"params": ..., "batch_stats": ...}``; a flax nnx module; or the path of a safetensors file. Dots in the names
        of a file separate keys as slashes do.
      rename: New names by patterns, applied to every name in this order. A pattern is a regular expression for one or
        more complete parts of a name, which are replaced: ``{"backbone": "encoder"}`` makes ``encoder/Dense_0/kernel``
        of ``backbone/Dense_0/kernel``, and ``{"model": ""}`` takes ``model/`` away.

    Raises:
      TypeError: ``source`` holds something that is not an array of numbers; ``rename`` is not a dictionary of strings.
      ValueError: A pattern matches no name, or two arrays would have one name; the file is damaged.
      FileNotFoundError: There is no such file.

    Examples:
      >>> pretrained = {"backbone": {"kernel": np.ones((3, 2))}, "head": {"kernel": np.ones((2, 9))}}
      >>> model = {"encoder": {"kernel": np.zeros((3, 2))}, "head": {"kernel": np.zeros((2, 5))}}
      >>> print(Initial(pretrained, rename={"backbone": "encoder"}).describe(model))
      name            shape   weights  starts from
      encoder/kernel  (3, 2)        6  encoder/kernel, was backbone/kernel
      head/kernel     (2, 5)       10  the seed; head/kernel has shape (2, 9)
      6 of 16 weights are given; left over: head/kernel
    """

    def __init__(self, source: Any, rename: Mapping[str, str] | None = None) -> None:
        """Read the arrays, and change their names."""
        named = _named(source)
        for name, array in named.items():
            if not tree.is_real(array):
                raise ArgumentTypeError(
                    "initial", f"initial has {name or 'a leaf'} of type {type(array).__name__}; give arrays of numbers."
                )
        if not named:
            raise ArgumentError("initial", "initial holds no arrays; give a tree of weights or a safetensors file.")
        self.arrays, self._before = _renamed(named, {} if rename is None else rename)

    def match(self, params: Params, model_state: ModelState = None) -> "Match":
        """Find the array for each weight of a model.

        Args:
          params: Weights of the model, arrays or shapes.
          model_state: State of the model, collections by name, arrays or shapes; None = none.

        Returns:
          The arrays in these structures, in the dtypes of the model.

        Raises:
          ArgumentError: No weight is given, or a given one is nan or infinite.
        """
        of_params = self._collection(params)
        given, taken = self._matched(params, of_params)
        collections = model_state if isinstance(model_state, Mapping) else {}
        states = {name: self._matched(collection, f"{name}/") for name, collection in collections.items()}
        for _, of_collection in states.values():
            taken |= of_collection
        if not jax.tree.leaves(given):
            names = ", ".join(name or "(a bare array)" for name, _ in tree.named_leaves(params))
            raise ArgumentError(
                "initial",
                f"initial gives none of the weights of the model. It has {_some(self.arrays)}; the model has {names}. "
                "Give other names, as in wd.Initial(source, rename={'backbone': 'encoder'}).",
            )
        state = {name: values for name, (values, _) in states.items()} if states else None
        left_over = [name for name in self.arrays if name not in taken]
        return Match(given, state if jax.tree.leaves(state) else None, left_over)

    def describe(self, params: Params) -> Description:
        """Table of every weight of a model: where it starts from; and the arrays that are left over.

        Args:
          params: Weights of the model, any pytree of arrays or shapes.

        Returns:
          A string, which a notebook shows as a table.
        """
        prefix = self._collection(params)
        rows, num_given, total = [("name", "shape", "weights", "starts from")], 0, 0
        _, taken = self._matched(params, prefix)
        for name, leaf in tree.named_leaves(params):
            source, size = prefix + name, int(np.prod(np.shape(leaf)))
            total += size
            if source in taken:
                num_given += size
                was = self._before[source]
                start = source if was == source else f"{source}, was {was}"
            elif source in self.arrays:
                start = f"the seed; {source} has shape {np.shape(self.arrays[source])}"
            else:
                start = "the seed"
            rows.append((name or "(array)", str(np.shape(leaf)), str(size), start))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {size:>{widths[2]}}  {start}"
            for name, shape, size, start in rows
        ]
        left_over = _some([name for name in self.arrays if name not in taken]) or "nothing"
        last = f"{num_given:,} of {total:,} weights are given; left over: {left_over}"
        described = Description("\n".join([*lines, last]))
        described.rows, described.total = rows, last
        return described

    def _collection(self, params: Params) -> str:
        """Prefix of the names of weights: that of their collection, where the arrays are the variables of a module."""
        is_inside = all(name.startswith(f"{_PARAMS}/") for name, _ in tree.named_leaves(params))
        return f"{_PARAMS}/" if not is_inside and any(name.startswith(f"{_PARAMS}/") for name in self.arrays) else ""

    def _matched(self, wanted: PyTree, prefix: str) -> tuple[PyTree, set[str]]:
        """Arrays in the structure of a tree, None where there is none of the name and shape; and their names."""
        leaves, taken = [], set()
        for name, leaf in tree.named_leaves(wanted):
            array = self.arrays.get(prefix + name)
            if array is None or np.shape(array) != np.shape(leaf):
                leaves.append(None)
                continue
            taken.add(prefix + name)
            converted = np.array(array, jnp.result_type(leaf))  # a copy, which members may share
            converted.flags.writeable = False
            if not np.isfinite(np.asarray(converted, np.float64)).all():
                raise ArgumentError("initial", f"initial has numbers in {prefix + name} that are nan or infinite.")
            leaves.append(converted)
        return jax.tree.structure(wanted).unflatten(leaves), taken


class Match(NamedTuple):
    """Arrays that were found for a model.

    Attributes:
      params: In the structure of the weights; None where a weight is new.
      model_state: In the structure of the model's state; None where an array is new, or for all.
      left_over: Names of the arrays that nothing takes.
    """

    params: Params
    model_state: ModelState
    left_over: list[str]


def _named(source: Any) -> dict[str, Any]:
    if isinstance(source, str | os.PathLike):
        loaded = tree.named_leaves(weights.load_params(Path(source)))
        return {name.replace(".", "/"): array for name, array in loaded}
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(source, nnx.Module):  # with what it holds in addition to its weights
        source = nnx.filter_state(nnx.state(source), nnx.Not(nnx.RngState))
    return dict(tree.named_leaves(masks.weights_of(source)))


def _renamed(named: Mapping[str, Any], rename: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays by their new names, and the name that each had before."""
    if not isinstance(rename, Mapping) or not all(isinstance(part, str) for pair in rename.items() for part in pair):
        raise ArgumentTypeError(
            "rename", f"rename is {rename!r}; give new names by patterns, such as {{'backbone': 'encoder'}}."
        )
    now = {name: name for name in named}
    for pattern, replacement in rename.items():
        tree.matches([pattern], list(now.values()), argument="rename", what="array of initial")
        expression = re.compile(rf"(?<![^/])(?:{pattern})(?![^/])")
        replaced = {name: expression.sub(replacement, current) for name, current in now.items()}
        now = {name: "/".join(part for part in current.split("/") if part) for name, current in replaced.items()}
    before: dict[str, str] = {}
    for name, current in now.items():
        if current in before:
            raise ArgumentError(
                "rename",
                f"rename makes {current!r} of both {before[current]!r} and {name!r}; make the patterns narrower.",
            )
        before[current] = name
    return {current: named[name] for name, current in now.items()}, before


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
