"""The plots of a result, as methods of `weightdecay.GridResult`.

Each method collects what is drawn; the functions of `weightdecay.plots` draw it. A new plot is one more method here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray

from weightdecay.core.checks import ArgumentError
from weightdecay.plots import layers
from weightdecay.plots.along_coefficient import check_metric
from weightdecay.plots.curves import curves
from weightdecay.plots.facets import path_facets
from weightdecay.plots.gap import gap
from weightdecay.plots.heatmap import heatmap
from weightdecay.plots.heatmap import rules as rules_with_heatmap
from weightdecay.plots.importance import importance as importance_plot
from weightdecay.plots.norms import norm_curves, norms
from weightdecay.plots.overview import overview
from weightdecay.plots.parallel import parallel
from weightdecay.plots.path import path
from weightdecay.plots.rotation import rotation
from weightdecay.plots.slices import slices
from weightdecay.plots.sparsity import sparsity
from weightdecay.plots.weights import weights
from weightdecay.results.importance import importance
from weightdecay.results.selected import Selected


class PlotMethods:
    """Methods that plot. All but `plot` draw into matplotlib axes, given or new, and return them."""

    def plot_path(
        self: Any,
        metric: str = "validation_loss",
        *,
        split: str | None = "learning_rate",
        facets: str | None = None,
        ax: Any = None,
    ) -> Any:
        """Plot a metric against the coefficient, one line per rule; see `weightdecay.plots.path.path`.

        Args:
          metric: A column of the table that is not a hyperparameter.
          split: Axis of the grid with one line per value.
          facets: Axis of the grid, such as ``"learning_rate"``, with a panel for each value; see
            `weightdecay.plots.facets.path_facets`. None = one panel.
          ax: Matplotlib axes; None makes new axes. Panels take their place.

        Returns:
          The axes; with ``facets`` a list of them.
        """
        chosen = _chosen(self, metric if metric in self.validation_metrics() else "validation_loss")
        loss = self.settings.get("loss")
        if facets is not None:
            return path_facets(self.table(), metric, facets, chosen=chosen, loss=loss, ax=ax)
        return path(self.table(), metric, split=split, chosen=chosen, loss=loss, ax=ax)

    def plot_slices(self: Any, metric: str = "validation_loss", *, ax: Any = None) -> Any:
        """Plot a metric against each hyperparameter, a panel each; see `weightdecay.plots.slices.slices`."""
        chosen = _chosen(self, metric if metric in self.validation_metrics() else "validation_loss")
        return slices(self.table(), metric, chosen=chosen, loss=self.settings.get("loss"), ax=ax)

    def plot_parallel(self: Any, metric: str = "validation_loss", *, ax: Any = None) -> Any:
        """Plot each candidate as a line through all its values; see `weightdecay.plots.parallel.parallel`."""
        chosen = _chosen(self, metric if metric in self.validation_metrics() else "validation_loss")
        return parallel(self.table(), metric, chosen=chosen, loss=self.settings.get("loss"), ax=ax)

    def plot_importance(self: Any, metric: str = "validation_loss", *, ax: Any = None) -> Any:
        """Plot how much each hyperparameter matters, with its uncertainty; see `importance`."""
        return importance_plot(self.importance(metric), metric, ax=ax)

    def importance(self: Any, metric: str = "validation_loss") -> pd.DataFrame:
        """Estimate how much each hyperparameter matters; see `weightdecay.results.importance.importance`."""
        check_metric(self.table(), metric)
        return importance(self.table(), metric)

    def plot_heatmap(
        self: Any,
        metric: str = "validation_loss",
        *,
        x: str | None = None,
        y: str | None = None,
        decay: str | None = None,
        ax: Any = None,
    ) -> Any:
        """Plot a metric over two hyperparameters, by default coefficient and learning rate of a rule.

        See `weightdecay.plots.heatmap.heatmap`.
        """
        chosen = _chosen(self, metric if metric in self.validation_metrics() else "validation_loss")
        loss = self.settings.get("loss")
        return heatmap(self.table(), metric, x=x, y=y, decay=decay, chosen=chosen, loss=loss, ax=ax)

    def plot_curves(self: Any, metric: str = "loss", *, candidates: Sequence[int] | None = None, ax: Any = None) -> Any:
        """Plot training and validation curves; see `weightdecay.plots.curves.curves`.

        Args:
          metric: ``"loss"``, ``"accuracy"`` or a metric of the user's own.
          candidates: Numbers of candidates; None: the chosen candidate and the best without decay.
          ax: Matplotlib axes; None makes new axes.

        Returns:
          The axes.
        """
        members = _members_by_label(self, candidates)
        return curves(self.dataset, members, metric=metric, loss=self.settings.get("loss"), ax=ax)

    def plot_sparsity(self: Any, *, split: str | None = "learning_rate", ax: Any = None) -> Any:
        """Plot the fraction of exact zeros against the coefficient; see `weightdecay.plots.sparsity.sparsity`."""
        return sparsity(self.table(), split=split, ax=ax)

    def plot_gap(self: Any, *, split: str | None = "learning_rate", ax: Any = None) -> Any:
        """Plot the generalization gap against the coefficient, one line per rule; see `weightdecay.plots.gap.gap`."""
        chosen, loss = _chosen(self), self.settings.get("loss")
        return gap(self.table(), self.dataset, split=split, chosen=chosen, loss=loss, ax=ax)

    def plot_norms(
        self: Any,
        along: str = "coefficient",
        *,
        decay: str | None = None,
        candidates: Sequence[int] | None = None,
        ax: Any = None,
    ) -> Any:
        """Plot the norm of each layer; see `weightdecay.plots.norms.norms` and `weightdecay.plots.norms.norm_curves`.

        Args:
          along: ``"coefficient"``: at the last step, of one rule; ``"step"``: along training, of some candidates.
          decay: Name of the rule; None: that of the chosen candidate, or the first rule that has a coefficient.
          candidates: Numbers of the candidates along training; None: the chosen candidate and the best without decay.
          ax: Matplotlib axes; None makes new axes.

        Returns:
          The axes.

        Raises:
          ArgumentError: An unknown name, no such rule, or norms along training in a result of an earlier version.
        """
        if along not in ("coefficient", "step"):
            raise ArgumentError("along", f"along is {along!r}; give 'coefficient' or 'step'.")
        if along == "step":
            return norm_curves(self.dataset, _members_by_label(self, candidates), ax=ax)
        chosen = _chosen(self)
        if decay is None and chosen is not None and not chosen.is_without_decay:
            decay = chosen.decay.name
        return norms(self.table(), _layer_norm(self), decay=decay, ax=ax)

    def plot_weights(self: Any, *, candidates: Sequence[int] | None = None, ax: Any = None) -> Any:
        """Plot a histogram of the weights of each layer; see `weightdecay.plots.weights.weights`.

        Args:
          candidates: Numbers of candidates; None: the chosen candidate and the best without decay.
          ax: Matplotlib axes; None makes new axes.

        Returns:
          The axes.
        """
        members = _members_by_label(self, candidates)
        return weights({label: [self.params(index) for index in indices] for label, indices in members.items()}, ax=ax)

    def plot_rotation(self: Any, *, candidates: Sequence[int] | None = None, ax: Any = None) -> Any:
        """Plot the angle by which each layer turns in a step; see `weightdecay.plots.rotation.rotation`.

        Args:
          candidates: Numbers of candidates; None: the chosen candidate.
          ax: Matplotlib axes; None makes new axes.

        Returns:
          The axes.

        Raises:
          ArgumentError: A result of an earlier version, which has no rotation.
        """
        members = _members_by_label(self, candidates)
        members = members if candidates is not None else dict(list(members.items())[:1])
        return rotation(self.dataset, members, ax=ax)

    def plot(self: Any) -> Any:
        """Draw the four most informative plots on one page.

        They are: the validation path; the heat map if there are several learning rates, otherwise the generalization
        gap; the curves; and the exact zeros if there are any, otherwise the norms of the layers.

        Returns:
          The matplotlib figure.
        """
        table = self.table()
        has_heatmap = bool(rules_with_heatmap(table))
        has_zeros = bool((table["zero_fraction"] > 0).any())
        panels = [
            lambda ax: self.plot_path(ax=ax),
            lambda ax: self.plot_heatmap(ax=ax) if has_heatmap else self.plot_gap(ax=ax),
            lambda ax: self.plot_curves(ax=ax),
            lambda ax: self.plot_sparsity(ax=ax) if has_zeros else self.plot_norms(ax=ax),
        ]
        chosen = _chosen(self)
        no_choice = "no choice: no candidate has a finite validation loss for every seed"
        return overview(panels, no_choice if chosen is None else f"chosen on validation data: {chosen}")


def _chosen(result: Any, metric: str = "validation_loss") -> Selected | None:
    """Return the chosen candidate; None if no candidate can be chosen."""
    if not any(np.isfinite(candidate.mean) for candidate in result.candidates(metric)):
        return None
    return result.best(metric=metric)


def _members_by_label(result: Any, numbers: Sequence[int] | None) -> dict[str, Sequence[int]]:
    """Return the members of some candidates by label.

    Without numbers: the chosen candidate (the first if none can be chosen) and the best without decay.
    """
    candidates = result.candidates()
    if numbers is not None:
        wrong = [number for number in numbers if not 0 <= number < len(candidates)]
        if wrong or not len(numbers):
            given = ", ".join(map(str, wrong)) or "empty"
            raise ArgumentError(
                "candidates",
                f"candidates is {given}; give numbers from 0 to {len(candidates) - 1}, as result.table() has.",
            )
        picked = [candidates[number] for number in numbers]
    else:
        first, without_decay = _chosen(result) or candidates[0], result.no_decay()
        picked = [first]
        if without_decay is not None and without_decay.number != first.number:
            picked.append(without_decay)
    names = [str(candidate.decay) for candidate in picked]
    return {
        name if names.count(name) == 1 else f"{name}, candidate {candidate.number}": candidate.members
        for name, candidate in zip(names, picked, strict=True)
    }


def _layer_norm(result: Any) -> xarray.DataArray:
    """Return the norm of each layer at the last step, dimensions ``member`` and ``layer``."""
    if "layer_weight_norm" in result.dataset:
        return result.dataset["layer_weight_norm"].isel(step=-1)
    rows = pd.DataFrame([layers.kernel_norms(result.params(member)) for member in range(len(result))])
    coordinates = {"candidate": ("member", result.dataset["candidate"].values), "layer": list(rows.columns)}
    return xarray.DataArray(rows.to_numpy(), dims=("member", "layer"), coords=coordinates)
