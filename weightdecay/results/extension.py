"""Train more members like those of a result, join two results, and take some members of one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typing_extensions import override

from weightdecay.core import checks, text
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Integer
from weightdecay.results import dataset
from weightdecay.search import grid as grids
from weightdecay.search.grid import Grid

_RUN_DEPENDENT = ("plan", "backend", "compiled_programs", "interrupted", "seconds", "extensions")
"""Settings in which two results that are joined may differ."""


def extend(result: Any, grid: Grid | None, *, num_steps: Integer | None, seeds: Any) -> Any:
    """Train more of the same and join it to a result; see ``result.extend``.

    Args:
      result: A `weightdecay.GridResult`.
      grid: Members to add.
      num_steps: Number of steps of every member.
      seeds: Further seeds for every candidate.

    Returns:
      A new result.

    Raises:
      ArgumentTypeError: ``grid`` is not a grid.
      ValueError: Nothing to train, fewer steps than before, or a result that was read from disk.
    """
    if result._extend is None:
        raise ValueError(
            "this result cannot train: it was read from disk. Call wd.fit_grid with both grids added, and with the "
            "directory of the first run, if there is one."
        )
    if grid is not None and not isinstance(grid, Grid):
        raise ArgumentTypeError(
            "grid", f"grid is of type {type(grid).__name__}; give wd.Grid(decay=[...], learning_rate=[...])."
        )
    longer_steps = _longer_steps(result, num_steps)
    if grid is None and seeds is None and num_steps is None:
        selected = result.best()
        if selected.extension is None:
            raise ArgumentError(
                "grid",
                f"grid is None, but the best candidate, {selected}, is not at an edge of its grid; give the grid to "
                "train, seeds=range(...), or num_steps=...",
            )
        grid = selected.extension
    all_members = grids.of_members(result.members)
    if grid is not None:
        all_members = all_members + grid
    if seeds is not None:
        further = Grid(seed=seeds).axes["seed"]
        all_members = all_members + grids.of_members(
            [{**member, "seed": seed} for member in all_members for seed in further]
        )
    added = list(all_members)[len(result) :]
    if longer_steps is not None:
        longer = result._extend(all_members, longer_steps)
        longer._test = result._test
        return longer
    if not added:
        raise ArgumentError(
            "grid", "grid has only members that are trained already; give other members, more seeds, or more steps."
        )
    return join(result, result._extend(grids.of_members(added), None))


def join(first: Any, second: Any) -> Any:
    """Join two results that were trained with the same settings.

    Args:
      first: A `weightdecay.GridResult`. Its members come first, in their order, and its candidates keep their numbers.
      second: Another one, whose members follow.

    Returns:
      The result of all members. Settings are those of the first; ``seconds`` and ``compiled_programs`` are summed, and
      ``extensions`` lists how many members were added each time. A test set that the first was scored on counts as
      scored.

    Raises:
      ValueError: Both have the same member, or they differ in evaluation steps or settings.
    """
    members = [*first.members, *second.members]
    if len(grids.of_members(first.members) + grids.of_members(second.members)) < len(members):
        raise ArgumentError("second", "second has members that first has as well; join results of different members.")
    return type(first)(
        dataset.concatenate(first.dataset, second.dataset, members),
        members,
        ConcatenatedWeights(first._weights, second._weights),
        join_settings(first.settings, second.settings, len(second)),
        model=first.model,
        test=first._test,
        score_test=_by_member(first._score_test, second._score_test, len(first)),
        predict=_by_member(first._predict, second._predict, len(first)),
        network=_by_member(first._network, second._network, len(first)),
        extend=first._extend,
        versions=first.versions,
        averages=_concatenated_averages(first, second),
    )


def part(result: Any, indices: Sequence[int]) -> Any:
    """Take some members of a result; see ``result.part``.

    Args:
      result: A `weightdecay.GridResult`.
      indices: Indices of the members.

    Returns:
      A new result.
    """
    members = [result.members[index] for index in indices]
    return type(result)(
        dataset.subset(result.dataset, indices, members),
        members,
        SelectedWeights(result._weights, indices),
        result.settings,
        model=result.model,
        score_test=_renumbered(result._score_test, indices),
        predict=_renumbered(result._predict, indices),
        network=_renumbered(result._network, indices),
        extend=result._extend,
        versions=result.versions,
        averages=None if result._averages is None else SelectedWeights(result._averages, indices),
    )


def join_settings(first: Mapping[str, Any], second: Mapping[str, Any], num_added: int) -> dict[str, Any]:
    """Join the settings of two results.

    Args:
      first: Settings of the first result.
      second: Settings of the second result.
      num_added: Number of members of the second result.

    Returns:
      The settings of the first, with summed costs and ``extensions``.

    Raises:
      ArgumentError: They differ in a setting that the numbers of a member depend on.
    """
    for name, value in first.items():
        if name not in _RUN_DEPENDENT and name in second and second[name] != value:
            raise ArgumentError(
                "second",
                f"second has {name} {text.shortened(second[name])}, first has {text.shortened(value)}; join results of "
                "the same settings.",
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


class ConcatenatedWeights(Sequence[Any]):
    """Weights of the members of two results; each is read from its own result when it is asked for."""

    def __init__(self, first: Sequence[Any], second: Sequence[Any]) -> None:
        """Take the weights of the first and of the second result."""
        self._first, self._second = first, second

    @override
    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @override
    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        return self._first[index] if index < len(self._first) else self._second[index - len(self._first)]


class SelectedWeights(Sequence[Any]):
    """Weights of some members of a result; each is read when it is asked for."""

    def __init__(self, weights: Sequence[Any], indices: Sequence[int]) -> None:
        """Take the weights of all members, and the indices of those that are kept."""
        self._weights, self._indices = weights, indices

    @override
    def __len__(self) -> int:
        return len(self._indices)

    @override
    def __getitem__(self, index: Any) -> Any:
        return self._weights[self._indices[index]]


def _concatenated_averages(first: Any, second: Any) -> Sequence[Any] | None:
    """Concatenate the averaged weights of two results; None if neither has any."""
    if first._averages is None and second._averages is None:
        return None
    return ConcatenatedWeights(
        *([None] * len(result) if result._averages is None else result._averages for result in (first, second))
    )


def _by_member(first: Callable[..., Any] | None, second: Callable[..., Any] | None, num_first: int) -> Any:
    """Make a function of a member's number among all from the functions of two results, if both have one."""
    if first is None or second is None:
        return None

    def of_any(member: int, *arguments: Any) -> Any:
        return first(member, *arguments) if member < num_first else second(member - num_first, *arguments)

    return of_any


def _renumbered(function: Callable[..., Any] | None, indices: Sequence[int]) -> Callable[..., Any] | None:
    """Make a function of a member's number among some from a function of its number among all, if there is one."""
    return None if function is None else lambda member, *arguments: function(indices[member], *arguments)


def _longer_steps(result: Any, num_steps: Any) -> int | None:
    """Return the number of steps if it is larger than before; None if it is not."""
    before = int(result.dataset["step"].values[-1])
    if num_steps is None:
        return None
    allowed = f"an integer of at least {before}, the number of steps of the result, or None for the same"
    num_steps = checks.integer(num_steps, "num_steps", at_least=before, allowed=allowed)
    return num_steps if num_steps > before else None
