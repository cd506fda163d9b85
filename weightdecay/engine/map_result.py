"""What `map_grid` returns: the outputs of each member, and a choice of a candidate by them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError
from weightdecay.core.statistics import mean_and_error
from weightdecay.core.text import suggestion
from weightdecay.core.types import Integer
from weightdecay.engine.function_workload import named_outputs
from weightdecay.engine.plans import Plan
from weightdecay.results import selection
from weightdecay.results.candidates import gather
from weightdecay.results.dataset import coordinates
from weightdecay.results.selected import Selected
from weightdecay.search.member import REPLICATES
from weightdecay.training import diagnostics

_RESERVED = ("member", "finite", "candidate")  # names of the dataset's own variables


class MapResult:
    """Outputs of a training function for each member of a grid.

    Attributes:
      members: Hyperparameters of each member by name.
      finite: Whether every number of a member's outputs is finite, bool, shape ``(members,)``.
      trained: Whether each member was run, bool, shape ``(members,)``. With a budget some were not: their outputs are
        nan, or 0 where they are not real numbers, and only candidates with all their replicates are chosen from.
      plan: Lanes and devices; of several programs whose lanes were chosen, the widest lane.
    """

    def __init__(
        self, members: Sequence[dict[str, Any]], outputs: Sequence[Any], plan: Plan, *, trained: Any = None
    ) -> None:
        """Take the outputs of the members; `map_grid` calls this."""
        self.members = list(members)
        self.trained = np.ones(len(self.members), bool) if trained is None else np.asarray(trained)
        self.plan = plan
        self._outputs = list(outputs)
        self.finite = np.array([bool(diagnostics.all_finite(jax.tree.map(jnp.asarray, one))) for one in outputs])

    @property
    def spent(self) -> float:
        """Fraction of the members that were run."""
        return float(self.trained.mean())

    @property
    def outputs(self) -> Any:
        """The outputs of all members in one tree, NumPy arrays of shape ``(members, ...)``.

        Raises:
          ValueError: The outputs of the members differ in structure or shape.
        """
        layouts = {str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), one)) for one in self._outputs}
        if len(layouts) > 1:
            raise ValueError(
                f"the outputs of the {len(self)} members have {len(layouts)} different structures, which do not stack; "
                "take them one by one: result.member(0)."
            )
        return jax.tree.map(lambda *leaves: np.stack(leaves), *self._outputs)

    def member(self, number: Integer) -> Any:
        """Return the outputs of one member, as NumPy arrays."""
        if not checks.is_integer(number) or not -len(self) <= number < len(self):
            raise IndexError(f"member is {number}; give 0 to {len(self) - 1}.")
        return self._outputs[number]

    def __getitem__(self, name: Any) -> Any:
        """Return a part of the stacked outputs: ``result["loss"]``, shape ``(members, ...)``."""
        return self.outputs[name]

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.members)

    @property
    def dataset(self) -> xarray.Dataset:
        """The outputs by name along ``member``, with the hyperparameters as coordinates, as ``GridResult.dataset``."""
        along = {name: ("member", values) for name, values in coordinates(self.members).items()}
        variables = {}
        for variable, leaf in named_outputs(self.outputs).items():
            if variable in (*_RESERVED, *self._marks) or variable in along:
                raise ValueError(
                    f"train_fn returns an output {variable!r}, a name that the dataset uses for something else; "
                    "give the output another name, or take the arrays from result.outputs."
                )
            dims = (f"{variable}_{axis}" for axis in range(leaf.ndim - 1))
            variables[variable] = (("member", *dims), leaf)
        marks = {name: ("member", values) for name, values in self._marks.items()}
        return xarray.Dataset(
            {**variables, **marks},
            coords={"member": np.arange(len(self), dtype=np.int32), **along},
        )

    @property
    def _marks(self) -> dict[str, np.ndarray]:
        return {"finite": self.finite} if self.trained.all() else {"finite": self.finite, "trained": self.trained}

    def table(self) -> pd.DataFrame:
        """One row a candidate: its hyperparameters, and each scalar output, averaged over seeds and folds.

        Returns:
          Index ``candidate``; means with a ``..._standard_error`` over the replicates (nan for one alone), and
          ``seeds``, how many there are.
        """
        dataset, folds = self.dataset, [member.get("fold") for member in self.members]
        scalars = [
            str(name) for name, values in dataset.data_vars.items() if values.ndim == 1 and name not in self._marks
        ]
        along = [name for name in dataset.coords if name not in ("member", "candidate", *REPLICATES)]
        rows = []
        for number in np.unique(dataset["candidate"].values):
            members = np.flatnonzero(dataset["candidate"].values == number)
            candidate = dataset.isel(member=members)
            row: dict[Any, Any] = {name: candidate[name].values[0] for name in along}
            for name in scalars:
                row[name], row[f"{name}_standard_error"] = mean_and_error(
                    np.where(self.trained[members], candidate[name].values, np.nan),
                    [folds[member] for member in members],
                )
            rows.append({**row, "seeds": len(candidate["member"])})
        return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="candidate"))

    def best(
        self,
        metric: str,
        criterion: str = "best_mean",
        *,
        margin: float | None = None,
        lower_is_better: bool | None = None,
    ) -> Selected:
        """Choose a candidate by a scalar output; let it be of validation data.

        Args:
          metric: Its name.
          criterion: As in ``GridResult.best``.
          margin: As in ``GridResult.best``.
          lower_is_better: Whether lower values of the metric are better; None = by its name, which must be well known,
            such as ``validation_loss`` or ``accuracy``; see `weightdecay.core.metrics.direction`.

        Returns:
          The chosen candidate.

        Raises:
          ValueError: No such output, or none that is finite; a name whose direction is not known.
        """
        dataset = self.dataset
        if metric not in dataset or dataset[metric].ndim != 1:
            known = [
                str(name) for name, values in dataset.data_vars.items() if values.ndim == 1 and name not in self._marks
            ]
            raise ArgumentError(
                "metric",
                f"metric is {metric!r}; give the name of a scalar output: {', '.join(known) or 'none'}."
                f"{suggestion(str(metric), known)}",
            )
        values = np.where(self.trained, dataset[metric].values, np.nan)
        candidates = gather(self.members, values, np.full(len(self), np.nan))
        stated = None if lower_is_better is None else {metric: lower_is_better}
        return selection.choose(candidates, metric=metric, criterion=criterion, margin=margin, lower_is_better=stated)

    def __repr__(self) -> str:
        """Return how many members there are, and how many gave numbers that are not finite."""
        bad = int((~self.finite & self.trained).sum())
        run = "" if self.trained.all() else f", {int(self.trained.sum())} of them run"
        return f"MapResult of {len(self)} members{run}" + (f", {bad} of them not finite" if bad else "")
