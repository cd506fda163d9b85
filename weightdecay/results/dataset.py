"""Two results put together, and some members of one: metrics, weights, settings, and what scores and predicts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from typing_extensions import override

from weightdecay.results.labels import coordinates

ScoreTest = Callable[[int, Any, Any], dict[str, float | None]]
"""``score_test(member, params, model_state) -> {"loss": ..., "accuracy": ...}``."""

_OF_A_RUN = ("plan", "backend", "compiled_programs", "interrupted", "seconds", "extensions")
"""Settings in which two results may differ."""


def datasets(first: xarray.Dataset, second: xarray.Dataset, members: Sequence[dict[str, Any]]) -> xarray.Dataset:
    """Metrics of two results along all members.

    Args:
      first: Of the first.
      second: Of the second.
      members: Hyperparameters of all, the first's before the second's.

    Returns:
      The dataset; layers that only one of them has are nan in the other.

    Raises:
      ValueError: They were evaluated at other steps.
    """
    steps, others = first["step"].values, second["step"].values
    if not np.array_equal(steps, others):
        raise ValueError(
            f"second was evaluated at {len(others)} steps up to {others[-1]}, first at {len(steps)} up to {steps[-1]}; "
            "train both with the same num_steps and eval_every."
        )
    bare = [
        one.drop_vars([name for name, values in one.coords.items() if values.dims == ("member",)])
        for one in (first, second)
    ]
    joined = xarray.concat(bare, dim="member", data_vars="minimal", coords="minimal", compat="override", join="outer")
    return joined.assign_coords(
        {"member": np.arange(len(members), dtype=np.int32)}
        | {name: ("member", values) for name, values in coordinates(members).items()}
    )


def settings(first: Mapping[str, Any], second: Mapping[str, Any], num_added: int) -> dict[str, Any]:
    """Settings of two results.

    Args:
      first: Of the first.
      second: Of the second.
      num_added: Members of the second.

    Returns:
      Those of the first, with the sums of what was spent, and ``extensions``.

    Raises:
      ValueError: They differ in what a member's numbers depend on.
    """
    for name, value in first.items():
        if name not in _OF_A_RUN and name in second and second[name] != value:
            raise ValueError(
                f"second has {name} {second[name]!r}, first has {value!r}; join results that were trained alike."
            )
    joined = {
        **first,
        "extensions": [*first.get("extensions", []), num_added],
        "interrupted": bool(first.get("interrupted") or second.get("interrupted")),
    }
    return joined | {
        name: first[name] + second[name]
        for name in ("seconds", "compiled_programs")
        if name in first and name in second
    }


class Weights(Sequence[Any]):
    """Weights of the members of two results, each read where it lies when it is asked for."""

    def __init__(self, first: Sequence[Any], second: Sequence[Any]) -> None:
        """Take those of the first and of the second."""
        self._first, self._second = first, second

    @override
    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @override
    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        return self._first[place] if place < len(self._first) else self._second[place - len(self._first)]


class Some(Sequence[Any]):
    """Some of a sequence, each read where it lies when it is asked for."""

    def __init__(self, whole: Sequence[Any], places: Sequence[int]) -> None:
        """Take the whole, and which of it."""
        self._whole, self._places = whole, places

    @override
    def __len__(self) -> int:
        return len(self._places)

    @override
    def __getitem__(self, index: Any) -> Any:
        return self._whole[self._places[index]]


def by_member(first: Callable[..., Any] | None, second: Callable[..., Any] | None, num_first: int) -> Any:
    """Function of a member's number, from those of two results.

    Args:
      first: ``first(member, ...)``; None = there is none.
      second: Of the second result.
      num_first: Members of the first.

    Returns:
      A function of the member's number among all; None where one of them has none.
    """
    if first is None or second is None:
        return None

    def of_any(member: int, *arguments: Any) -> Any:
        return first(member, *arguments) if member < num_first else second(member - num_first, *arguments)

    return of_any


def renumbered(function: Callable[..., Any] | None, places: Sequence[int]) -> Callable[..., Any] | None:
    """Function of a member's number among some, from one of its number among all.

    Args:
      function: ``function(member, ...)``; None = there is none.
      places: Of each of them among all.

    Returns:
      The function, if there is one.
    """
    return None if function is None else lambda member, *arguments: function(places[member], *arguments)
