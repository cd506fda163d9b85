"""Other ways to search a grid, for `searching.py`: each sees trainings only through `Trainings`, which counts the cost.

A rival returns the candidate that it chooses by what it saw; it needs no complete set of seeds. Optuna (with its TPE
and GP samplers, its Hyperband and Wilcoxon pruners) and SMAC3 (its multi-fidelity facade) search with their own
defaults over the kind of decay, the coefficient of that kind and the learning rate.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weightdecay.decay.families import coefficient, is_without_decay, rule_family


class Exhausted(Exception):
    """The budget does not allow what was asked for."""


class Trainings:
    """Recorded trainings that are paid for by the step.

    Attributes:
      curves: Validation losses, shape ``(candidates, seeds, evaluations)``; infinite from a divergence on.
      steps: Steps of the evaluations, ascending, shape ``(evaluations,)``.
      members: Hyperparameters of each candidate.
      left: Member-steps that may still be spent.
    """

    def __init__(self, curves: np.ndarray, steps: np.ndarray, members: Sequence[Any], budget: int) -> None:
        """Take the recording, of the seeds that may be used."""
        self.curves, self.steps, self.members, self.left = curves, steps, members, budget
        self._paid = np.zeros(curves.shape[:2], np.int64)

    @property
    def seeds(self) -> int:
        """Number of seeds of a candidate."""
        return self.curves.shape[1]

    def loss(self, candidate: int, seed: int, evaluation: int = -1) -> float:
        """Train a member up to an evaluation, from where it stopped.

        Raises:
          Exhausted: The budget does not allow it; nothing is spent.
        """
        step = int(self.steps[evaluation])
        cost = max(step - int(self._paid[candidate, seed]), 0)
        if cost > self.left:
            raise Exhausted
        self.left -= cost
        self._paid[candidate, seed] = max(step, self._paid[candidate, seed])
        return float(self.curves[candidate, seed, evaluation])

    def rungs(self, first: float, eta: float = 3.0) -> list[int]:
        """Positions of the evaluations at ``first`` of the steps, and at each ``eta`` times as many."""
        fractions = [first]
        while fractions[-1] * eta < 1 - 1e-9:
            fractions.append(fractions[-1] * eta)
        wanted = [*fractions, 1.0]
        return sorted({int(np.searchsorted(self.steps, math.ceil(self.steps[-1] * part))) for part in wanted})


class Best:
    """The candidate with the lowest mean over the seeds seen so far."""

    def __init__(self) -> None:
        """Begin without any."""
        self.seen: dict[int, list[float]] = {}

    def add(self, candidate: int, loss: float) -> None:
        """Take a loss at the end of a training."""
        self.seen.setdefault(candidate, []).append(loss)

    @property
    def chosen(self) -> int | None:
        """The best one; None = nothing was seen."""
        means = {candidate: float(np.mean(losses)) for candidate, losses in self.seen.items()}
        return min(means, key=lambda candidate: means[candidate]) if means else None


def random(trainings: Trainings, rng: np.random.Generator) -> int | None:
    """Random candidates, one seed each."""
    best = Best()
    try:
        for candidate in rng.permutation(len(trainings.members)):
            best.add(int(candidate), trainings.loss(int(candidate), int(rng.integers(trainings.seeds))))
    except Exhausted:
        pass
    return best.chosen


def coarse(trainings: Trainings, rng: np.random.Generator) -> int | None:
    """Grid of every few rules at all learning rates, one seed; no decay is one of the rules."""
    best, rates = Best(), sorted({member["learning_rate"] for member in trainings.members})
    kinds = _kinds(trainings.members)
    affordable = int(trainings.left // int(trainings.steps[-1]) // len(rates)) - 1
    wanted = [_without(trainings.members)]
    for number, rules in enumerate(kinds.values()):
        ladder = sorted({coefficient(trainings.members[index]["decay"]) or 0.0 for index in rules})
        num = affordable // len(kinds) + (number < affordable % len(kinds))
        picked = {ladder[round((place + 0.5) * len(ladder) / num - 0.5)] for place in range(num)}
        wanted.append([index for index in rules if coefficient(trainings.members[index]["decay"]) in picked])
    seed = int(rng.integers(trainings.seeds))
    try:
        for indices in wanted:
            for index in indices:
                best.add(index, trainings.loss(index, seed))
    except Exhausted:
        pass
    return best.chosen


def equal_steps(trainings: Trainings, rng: np.random.Generator) -> int | None:
    """All candidates, each for the same few steps (arXiv 2404.04111), one seed."""
    each = trainings.left // len(trainings.members)
    last = int(np.searchsorted(trainings.steps, each, side="right")) - 1
    if last < 0:
        return random(trainings, rng)
    best, seed = Best(), int(rng.integers(trainings.seeds))
    for candidate in range(len(trainings.members)):
        best.add(candidate, trainings.loss(candidate, seed, last))
    return best.chosen


def halving(first: float) -> Callable[[Trainings, np.random.Generator], int | None]:
    """Successive halving with factor 3 from as many candidates as the budget allows, one seed."""

    def search(trainings: Trainings, rng: np.random.Generator) -> int | None:
        rungs = trainings.rungs(first)
        for number in range(len(trainings.members), 0, -1):
            if _bracket_cost(trainings, rungs, number) <= trainings.left:
                return _bracket(trainings, rungs, rng.permutation(len(trainings.members))[:number], rng)[0]
        return None

    return search


def hyperband(trainings: Trainings, rng: np.random.Generator) -> int | None:
    """Hyperband with factor 3 (Li et al. 2018): brackets from 1/27 of the steps up, again while the budget lasts."""
    best, num_brackets = Best(), 4
    while True:
        for bracket in range(num_brackets - 1, -1, -1):
            rungs = trainings.rungs(3.0**-bracket)
            number = min(math.ceil(num_brackets * 3**bracket / (bracket + 1)), len(trainings.members))
            while number and _bracket_cost(trainings, rungs, number) > trainings.left:
                number -= 1
            if not number:
                return best.chosen
            winner, loss = _bracket(trainings, rungs, rng.permutation(len(trainings.members))[:number], rng)
            best.add(winner, loss)


def one_run(trainings: Trainings, rng: np.random.Generator) -> int | None:
    """Rule of a single run: Decoupled with ``1 / (η t)``, t the step at which the loss without decay is lowest.

    First for the middle learning rate, then for the others while the budget lasts; then with further seeds.
    """
    best = Best()
    without = sorted(_without(trainings.members), key=lambda index: trainings.members[index]["learning_rate"])
    middle = len(without) // 2
    try:
        for seed in rng.permutation(trainings.seeds):
            for index in [without[middle], *without[:middle], *without[middle + 1 :]]:
                rate = trainings.members[index]["learning_rate"]
                best.add(index, trainings.loss(index, int(seed)))
                turn = float(trainings.steps[int(np.argmin(trainings.curves[index, seed]))])
                same = [
                    other
                    for other, member in enumerate(trainings.members)
                    if type(member["decay"]).__name__ == "Decoupled" and member["learning_rate"] == rate
                ]
                target = math.log(1 / (rate * turn))
                nearest = min(
                    same,
                    key=lambda other: abs(math.log(coefficient(trainings.members[other]["decay"]) or 1e-9) - target),
                )
                best.add(nearest, trainings.loss(nearest, int(seed)))
    except Exhausted:
        pass
    return best.chosen


def optuna(sampler: str, pruner: str | None = None) -> Callable[[Trainings, np.random.Generator], int | None]:
    """Search of Optuna; a trial is a candidate with one seed, or with all seeds in turn under the Wilcoxon pruner."""

    def search(trainings: Trainings, rng: np.random.Generator) -> int | None:
        import optuna as library

        library.logging.set_verbosity(library.logging.ERROR)
        seed = int(rng.integers(2**31))
        best, by = Best(), pruner
        samplers = {"TPE": library.samplers.TPESampler, "GP": library.samplers.GPSampler}
        evaluations = len(trainings.steps)
        pruners: dict[str | None, Any] = {
            None: library.pruners.NopPruner(),
            "Hyperband": library.pruners.HyperbandPruner(max(1, evaluations // 27), evaluations, 3),
            "Wilcoxon": library.pruners.WilcoxonPruner(p_threshold=0.1),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = library.create_study(sampler=samplers[sampler](seed=seed), pruner=pruners[by])
            try:
                while True:
                    trial = study.ask()
                    candidate = _asked(trainings.members, trial)
                    pruned, losses = False, []
                    for replicate in rng.permutation(trainings.seeds) if by == "Wilcoxon" else [0]:
                        replicate = int(replicate) if by == "Wilcoxon" else int(rng.integers(trainings.seeds))
                        if by == "Hyperband":
                            for evaluation in range(evaluations):
                                loss = _finite(trainings.loss(candidate, replicate, evaluation))
                                trial.report(loss, evaluation + 1)
                                if evaluation + 1 < evaluations and trial.should_prune():
                                    pruned = True
                                    break
                        else:
                            loss = _finite(trainings.loss(candidate, replicate))
                            if by == "Wilcoxon":
                                trial.report(loss, replicate)
                        losses.append(loss)
                        if not pruned:
                            best.add(candidate, loss)
                        if by == "Wilcoxon" and trial.should_prune():
                            break
                    # What was pruned counts with what was seen of it, as Optuna recommends for its pruners.
                    state = library.trial.TrialState.PRUNED if pruned else library.trial.TrialState.COMPLETE
                    study.tell(trial, None if pruned else float(np.mean(losses)), state=state)
                    if len(study.trials) > 10 * len(trainings.members):  # what costs nothing is asked for again
                        raise Exhausted
            except Exhausted:
                pass
        return best.chosen

    return search


def smac(trainings: Trainings, rng: np.random.Generator) -> int | None:
    """SMAC3's multi-fidelity facade: Hyperband over steps, with random forests for new candidates."""
    import tempfile
    from pathlib import Path

    from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float
    from smac import MultiFidelityFacade, Scenario

    kinds = _kinds(trainings.members)
    rates = sorted({member["learning_rate"] for member in trainings.members})
    space = ConfigurationSpace(seed=int(rng.integers(2**31)))
    kind = Categorical("kind", ["none", *map(str, range(len(kinds)))])
    space.add(kind, Float("learning_rate", (rates[0], rates[-1]), log=True))
    for number, rules in enumerate(kinds.values()):
        ladder = [coefficient(trainings.members[index]["decay"]) or 0.0 for index in rules]
        strength = Float(f"coefficient_{number}", (min(ladder), max(ladder)), log=True)
        space.add(strength, EqualsCondition(strength, kind, str(number)))
    best, evaluations = Best(), len(trainings.steps)

    def target(config: Any, seed: int = 0, budget: float = 1.0) -> float:
        chosen = None if config["kind"] == "none" else int(config["kind"])
        strength = None if chosen is None else config[f"coefficient_{chosen}"]
        candidate = _nearest(trainings.members, kinds, chosen, strength, config["learning_rate"])
        evaluation = min(max(round(budget) - 1, 0), evaluations - 1)
        try:
            loss = _finite(trainings.loss(candidate, int(seed) % trainings.seeds, evaluation))
        except Exhausted:
            spent.append(True)
            return 1e6
        if evaluation == evaluations - 1:
            best.add(candidate, loss)
        return loss

    spent: list[bool] = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scenario = Scenario(
            space,
            deterministic=False,
            n_trials=2000,
            min_budget=max(1, evaluations // 27),
            max_budget=evaluations,
            seed=int(rng.integers(2**31)),
            output_directory=Path(folder),
        )
        facade = MultiFidelityFacade(scenario, target, logging_level=False, overwrite=True)
        while not spent:
            info = facade.ask()
            facade.tell(info, _outcome(target(info.config, info.seed or 0, info.budget or evaluations)))
    return best.chosen


def _outcome(cost: float) -> Any:
    from smac.runhistory.dataclasses import TrialValue

    return TrialValue(cost=cost)


def _bracket_cost(trainings: Trainings, rungs: Sequence[int], number: int) -> int:
    cost, before = 0, 0
    for rung in rungs:
        cost += number * int(trainings.steps[rung] - before)
        number, before = max(1, number // 3), int(trainings.steps[rung])
    return cost


def _bracket(
    trainings: Trainings, rungs: Sequence[int], candidates: np.ndarray, rng: np.random.Generator
) -> tuple[int, float]:
    seeds = {int(candidate): int(rng.integers(trainings.seeds)) for candidate in candidates}
    racing = list(seeds)
    losses: dict[int, float] = {}
    for rung in rungs:
        losses = {candidate: trainings.loss(candidate, seeds[candidate], rung) for candidate in racing}
        racing = sorted(racing, key=lambda candidate: losses[candidate])[: max(1, len(racing) // 3)]
    return racing[0], losses[racing[0]]


def _kinds(members: Sequence[Any]) -> dict[Any, list[int]]:
    kinds: dict[Any, list[int]] = {}
    for index, member in enumerate(members):
        if not is_without_decay(member["decay"]):
            kinds.setdefault(rule_family(member["decay"]), []).append(index)
    return kinds


def _without(members: Sequence[Any]) -> list[int]:
    return [index for index, member in enumerate(members) if is_without_decay(member["decay"])]


def _asked(members: Sequence[Any], trial: Any) -> int:
    kinds = _kinds(members)
    rates = sorted({member["learning_rate"] for member in members})
    kind = trial.suggest_categorical("kind", ["none", *map(str, range(len(kinds)))])
    rate = trial.suggest_float("learning_rate", rates[0], rates[-1], log=True)
    if kind == "none":
        return _nearest(members, kinds, None, None, rate)
    ladder = [coefficient(members[index]["decay"]) or 0.0 for index in list(kinds.values())[int(kind)]]
    strength = trial.suggest_float(f"coefficient_{kind}", min(ladder), max(ladder), log=True)
    return _nearest(members, kinds, int(kind), strength, rate)


def _nearest(members: Sequence[Any], kinds: Any, kind: int | None, strength: float | None, rate: float) -> int:
    def distance(index: int) -> float:
        rates = abs(math.log(members[index]["learning_rate"]) - math.log(rate))
        if strength is None:
            return rates
        return 1e3 * rates + abs(math.log(coefficient(members[index]["decay"]) or 1e-12) - math.log(strength))

    # The nearest learning rate, and with it the nearest coefficient.
    return min(_without(members) if kind is None else list(kinds.values())[kind], key=distance)


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else 1e6


RIVALS: dict[str, Callable[[Trainings, np.random.Generator], int | None]] = {
    "random candidates": random,
    "coarse grid": coarse,
    "all, for equal steps": equal_steps,
    "one run, c = 1 / (η t)": one_run,
    "halving, first rung 1/27": halving(1 / 27),
    "halving, first rung 1/3": halving(1 / 3),
    "Hyperband": hyperband,
    "Optuna TPE": optuna("TPE"),
    "Optuna TPE, Hyperband": optuna("TPE", "Hyperband"),
    "Optuna TPE, Wilcoxon": optuna("TPE", "Wilcoxon"),
    "Optuna GP": optuna("GP"),
    "Optuna GP, Hyperband": optuna("GP", "Hyperband"),
    "SMAC3": smac,
}
