"""`Optuna`: any sampler of Optuna decides which members of a grid are trained next.

Optuna is not needed for anything else; ``pip install 'weightdecay[optuna]'`` installs it.
"""

import contextlib
import copy
import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightdecay.core.checks import ArgumentTypeError
from weightdecay.search.response import axes, decays
from weightdecay.search.strategy import Known, finals, shares

_WITHOUT = "without decay"


@dataclass(frozen=True)
class Optuna:
    """A sampler of Optuna, by ask and tell, as many trials at a time as train side by side.

    A trial is a candidate with one replicate, trained to its end: the sampler suggests the kind of decay, the position
    between the weakest and the strongest coefficient of that kind, and each other hyperparameter; the nearest candidate
    of the grid is trained. The first trial has no decay. With what is left the best candidates and no decay get all
    their replicates, as with `weightdecay.search.surface.Surface`.

    The sampler is copied, and its suggestions are asked for again in each round. Give it a seed, so that a run that was
    cut off goes through the same rounds in another process.

    Args:
      sampler: Such as ``optuna.samplers.TPESampler(seed=0)``.

    Raises:
      ArgumentTypeError: It is not a sampler of Optuna.

    References:
      Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, 2019, arXiv 1907.10902.
    """

    sampler: Any

    def __post_init__(self) -> None:
        """Check the sampler."""
        if isinstance(self.sampler, type) or not callable(getattr(self.sampler, "sample_relative", None)):
            raise ArgumentTypeError(
                "sampler",
                f"sampler is {self.sampler!r}; give a sampler of Optuna, such as optuna.samplers.TPESampler(seed=0).",
            )

    def next(self, known: Known) -> dict[int, int]:
        """See `weightdecay.search.strategy.Strategy.next`."""
        candidates, parts = known.candidates(), shares(known)
        space = _Space(known, candidates)
        seen: dict[int, list[float]] = {}
        with _silent() as library:
            study = library.create_study(sampler=copy.deepcopy(self.sampler))
            if space.has_no_decay:
                study.enqueue_trial({"decay": _WITHOUT})
            taken: list[int] = []
            while len(taken) < parts.exploring:
                trials = [study.ask() for _ in range(min(parts.per_round, parts.exploring - len(taken)))]
                members = []
                for trial in trials:
                    members.append(space.free_member(trial, [*taken, *members]))
                if None in members:
                    break
                if not all(known.finished[index] for index in members):
                    return known.affordable(dict.fromkeys(members, known.num_steps))
                for trial, index in zip(trials, members, strict=True):
                    loss = float(known.values[index, -1])
                    is_finite = bool(np.isfinite(loss))
                    state = library.trial.TrialState
                    study.tell(trial, loss if is_finite else None, state=state.COMPLETE if is_finite else state.FAIL)
                    seen.setdefault(int(known.candidate[index]), []).append(loss)
                taken += members
        return finals(known, candidates, sorted(seen, key=lambda number: float(np.mean(seen[number]))))


class _Space:
    """What a sampler suggests, and the candidates that are nearest to it."""

    def __init__(self, known: Known, candidates: list[list[int]]) -> None:
        firsts = [known.members[members[0]] for members in candidates]
        self._candidates = candidates
        self._kind, self._strength = decays([member["decay"] for member in firsts])
        self._axes = axes(firsts)
        names = {int(kind): str(kind) for kind in np.unique(self._kind)}
        for number, kind in enumerate(self._kind):
            names[int(kind)] = _WITHOUT if kind < 0 else f"{firsts[number]['decay'].name} {kind}"
        self._names = names

    @property
    def has_no_decay(self) -> bool:
        return -1 in self._names and len(self._names) > 1

    def free_member(self, trial: Any, taken: list[int]) -> int | None:
        """Member of the candidate that is nearest to a trial among those with a member that is not taken."""
        kinds = list(self._names)
        kind = kinds[0]
        if len(kinds) > 1:
            name = trial.suggest_categorical("decay", list(self._names.values()))
            kind = kinds[list(self._names.values()).index(name)]
        distance = np.where(self._kind == kind, 0.0, 1e6)
        strengths = self._strength[self._kind == kind]
        if np.ptp(strengths) > 0:
            wanted = trial.suggest_float(f"strength of {self._names[kind]}", 0.0, 1.0)
            distance += np.square(self._strength - wanted)
        for name, columns in self._axes.items():
            if columns.shape[1] == 1:
                distance += np.square(columns[:, 0] - trial.suggest_float(name, 0.0, 1.0))
            else:
                choice = trial.suggest_categorical(name, list(range(columns.shape[1])))
                distance += 1e3 * (1 - columns[:, choice])
        for number in np.argsort(distance, kind="stable"):
            free = [index for index in self._candidates[number] if index not in taken]
            if free:
                return free[0]
        return None


@contextlib.contextmanager
def _silent() -> Iterator[Any]:
    """Optuna, without its log and its warnings of experimental features."""
    try:
        library: Any = importlib.import_module("optuna")
    except ImportError as error:
        raise ImportError("this strategy needs Optuna: pip install 'weightdecay[optuna]'.") from error
    verbosity = library.logging.get_verbosity()
    library.logging.set_verbosity(library.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield library
    finally:
        library.logging.set_verbosity(verbosity)
