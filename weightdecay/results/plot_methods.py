"""The plots of a result, as methods of `weightdecay.GridResult`: each finds what is to be drawn, `plots` draws it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray

from weightdecay.plots import layers, paths
from weightdecay.results.selection import Choice


class Plots:
    """Methods that plot; every one but `plot` takes matplotlib axes, or makes them, and returns them."""

    def plot_path(
        self: Any, metric: str = "validation_loss", *, split: str | None = "learning_rate", ax: Any = None
    ) -> Any:
        """Plot a metric against the coefficient, a line a rule; see `weightdecay.plots.paths.path`."""
        chosen = _chosen(self, metric if metric in self.validation_metrics() else "validation_loss")
        return paths.path(self.table(), metric, split=split, chosen=chosen, loss=self.settings.get("loss"), ax=ax)

    def plot_heatmap(self: Any, metric: str = "validation_loss", *, decay: str | None = None, ax: Any = None) -> Any:
        """Plot a metric over coefficient and learning rate of a rule; see `weightdecay.plots.paths.heatmap`."""
        chosen = _chosen(self, metric if metric in self.validation_metrics() else "validation_loss")
        return paths.heatmap(self.table(), metric, decay=decay, chosen=chosen, loss=self.settings.get("loss"), ax=ax)

    def plot_curves(self: Any, metric: str = "loss", *, candidates: Sequence[int] | None = None, ax: Any = None) -> Any:
        """Plot curves along training; see `weightdecay.plots.paths.curves`.

        Args:
          metric: ``"loss"``, ``"accuracy"`` or a metric of your own.
          candidates: Numbers of candidates; None: the chosen one beside no decay.
          ax: Matplotlib axes; None makes new ones.

        Returns:
          The axes.
        """
        shown = _shown(self, candidates)
        return paths.curves(self.dataset, shown, metric=metric, loss=self.settings.get("loss"), ax=ax)

    def plot_sparsity(self: Any, *, split: str | None = "learning_rate", ax: Any = None) -> Any:
        """Plot the share of exact zeros against the coefficient, see `weightdecay.plots.paths.sparsity`."""
        return paths.sparsity(self.table(), split=split, ax=ax)

    def plot_gap(self: Any, *, split: str | None = "learning_rate", ax: Any = None) -> Any:
        """Plot the generalization gap against the coefficient, a line a rule; see `weightdecay.plots.paths.gap`."""
        table, chosen = self.table(), _chosen(self)
        return paths.gap(table, self.dataset, split=split, chosen=chosen, loss=self.settings.get("loss"), ax=ax)

    def plot_norms(
        self: Any,
        along: str = "coefficient",
        *,
        decay: str | None = None,
        candidates: Sequence[int] | None = None,
        ax: Any = None,
    ) -> Any:
        """Plot the norm of each layer; see `weightdecay.plots.paths.norms` and `weightdecay.plots.paths.norm_curves`.

        Args:
          along: ``"coefficient"``: at the last step, of one rule; ``"step"``: along training, of candidates.
          decay: Name of the rule; None: that of the chosen candidate, or the first that has a coefficient.
          candidates: Numbers of the candidates along training; None: the chosen one beside no decay.
          ax: Matplotlib axes; None makes new ones.

        Returns:
          The axes.

        Raises:
          ValueError: Another word, no such rule, or norms along training in a result of an earlier version.
        """
        if along not in ("coefficient", "step"):
            raise ValueError(f"along is {along!r}; give 'coefficient' or 'step'.")
        if along == "step":
            return paths.norm_curves(self.dataset, _shown(self, candidates), ax=ax)
        chosen = _chosen(self)
        if decay is None and chosen is not None and not chosen.is_without_decay:
            decay = chosen.decay.name
        return paths.norms(self.table(), _layer_norm(self), decay=decay, ax=ax)

    def plot_weights(self: Any, *, candidates: Sequence[int] | None = None, ax: Any = None) -> Any:
        """Plot a histogram of the weights of each layer; see `weightdecay.plots.paths.weights`.

        Args:
          candidates: Numbers of candidates; None: the chosen one beside no decay.
          ax: Matplotlib axes; None makes new ones.

        Returns:
          The axes.
        """
        shown = _shown(self, candidates)
        return paths.weights({label: [self.params(m) for m in members] for label, members in shown.items()}, ax=ax)

    def plot_rotation(self: Any, *, candidates: Sequence[int] | None = None, ax: Any = None) -> Any:
        """Plot the angle that each layer turns in a step; see `weightdecay.plots.paths.rotation`.

        Args:
          candidates: Numbers of candidates; None: the chosen one.
          ax: Matplotlib axes; None makes new ones.

        Returns:
          The axes.

        Raises:
          ValueError: A result of an earlier version, which lacks it.
        """
        shown = _shown(self, candidates)
        shown = shown if candidates is not None else dict(list(shown.items())[:1])
        return paths.rotation(self.dataset, shown, ax=ax)

    def plot(self: Any) -> Any:
        """Put the four telling plots on one page.

        The validation path; the heat map where there are several learning rates, else the generalization gap; the
        curves; the exact zeros where there are any, else the norms of the layers.

        Returns:
          The matplotlib figure.
        """
        table = self.table()
        mapped = bool(paths.mapped_rules(table))
        sparse = bool((table["zero_fraction"] > 0).any())
        panels = [
            lambda ax: self.plot_path(ax=ax),
            lambda ax: self.plot_heatmap(ax=ax) if mapped else self.plot_gap(ax=ax),
            lambda ax: self.plot_curves(ax=ax),
            lambda ax: self.plot_sparsity(ax=ax) if sparse else self.plot_norms(ax=ax),
        ]
        chosen = _chosen(self)
        words = "no choice: no candidate has a finite validation loss for every seed"
        return paths.page(panels, words if chosen is None else f"chosen on validation data: {chosen}")


def _chosen(result: Any, metric: str = "validation_loss") -> Choice | None:
    """The choice; None where there is none to be made."""
    if not any(np.isfinite(candidate.mean) for candidate in result.candidates(metric)):
        return None
    return result.best(metric=metric)


def _shown(result: Any, numbers: Sequence[int] | None) -> dict[str, Sequence[int]]:
    """Members of candidates by label: the chosen one beside no decay, or the first where none can be chosen."""
    every = result.candidates()
    if numbers is not None:
        wrong = [number for number in numbers if not 0 <= number < len(every)]
        if wrong or not len(numbers):
            came = ", ".join(map(str, wrong)) or "empty"
            raise ValueError(f"candidates is {came}; give numbers from 0 to {len(every) - 1}, as result.table() has.")
        picked = [every[number] for number in numbers]
    else:
        first, none = _chosen(result) or every[0], result.no_decay()
        picked = [first, *([] if none is None or none.number == first.number else [none])]
    alike = [str(one.decay) for one in picked]
    return {
        name if alike.count(name) == 1 else f"{name}, candidate {one.number}": one.members
        for name, one in zip(alike, picked, strict=True)
    }


def _layer_norm(result: Any) -> xarray.DataArray:
    """Norm of each layer at the last step, dimensions ``member`` and ``layer``."""
    if "layer_weight_norm" in result.dataset:
        return result.dataset["layer_weight_norm"].isel(step=-1)
    rows = pd.DataFrame([layers.kernel_norms(result.params(member)) for member in range(len(result))])
    coordinates = {"candidate": ("member", result.dataset["candidate"].values), "layer": list(rows.columns)}
    return xarray.DataArray(rows.to_numpy(), dims=("member", "layer"), coords=coordinates)
