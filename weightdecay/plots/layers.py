"""Pictures of the layers of a network: their norms, their weights, how far they turn in a step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core import tree
from weightdecay.core.statistics import mean_and_error
from weightdecay.plots import axis_labels, style, table_lines

_NORM = "norm of a layer, in units of weight"
_BANDS = "bands: one standard error over seeds"
_MOST_RIDGES = 12  # arrays of a histogram


def norms(table: Any, layer_norm: Any, *, decay: str | None = None, ax: Any = None) -> Any:
    """Plot the norm of each layer at the last step against the coefficient of one rule, bands of one standard error.

    Over every other axis of the grid the candidate with the best validation loss is shown, and the legend says so.
    Dotted lines are the norms without decay.

    Args:
      table: As ``result.table()`` makes it.
      layer_norm: An `xarray.DataArray` with the dimensions ``member`` and ``layer`` and their coordinates ``candidate``
        and ``layer`` (names of weights); members that are not shown may be nan.
      decay: Name of a rule; None: the first that has a coefficient.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.

    Raises:
      ValueError: No such rule.
    """
    known = list(dict.fromkeys(table["decay"]))
    if decay is not None and decay not in known:
        raise ValueError(f"decay is {decay!r}; give the name of a rule of the grid: {', '.join(known)}.")
    found = table_lines.through(table, "validation_loss", split=None)
    line = next((one for one in found.lines if one.column and decay in (None, one.rule)), None)
    none = next((one for one in found.lines if one.rule == "NoDecay"), None)
    if line is not None:
        found = table_lines.through(table[table["decay"] == line.rule], "validation_loss", split=None)
    ax = style.axes(ax)
    style.coefficient_axis(ax, np.zeros(0) if line is None else line.coefficients)
    of, drawn, shaded = layer_norm["candidate"].values, [], False
    names = [str(name) for name in layer_norm["layer"].values]
    for place, (name, looks) in enumerate(zip(names, _looks(len(names)), strict=True)):
        each = layer_norm.values[:, place].astype(float)
        if line is not None:
            told = [_estimated(layer_norm, each, of == number) for number in line.candidates]
            mean, error = np.array(told).T
            ax.plot(line.coefficients, mean, label=name, **looks)
            shaded |= style.band(ax, line.coefficients, mean, error, looks["color"])
            drawn += list(mean)
        if none is not None:
            mean, error = _estimated(layer_norm, each, of == none.candidates[0])
            label = name if line is None else "" if place else "no decay, in the layer's colour"
            ax.axhline(mean, color=looks["color"], linestyle=":", linewidth=1.2, label=label)
            drawn.append(mean)
    style.say_nothing_there(ax, drawn)
    style.logarithmic_y(ax, drawn)
    notes = [f"best over {', '.join(name.replace('_', ' ') for name in found.best_over)}"] if found.best_over else []
    axis = axis_labels.axis_of_coefficients([] if line is None else [(line.rule, line.column or "")])
    return style.finish(ax, axis, _NORM, [*notes, *([_BANDS] if shaded else [])])


def norm_curves(dataset: Any, shown: Mapping[str, Sequence[int]], *, ax: Any = None) -> Any:
    """Plot the norm of each layer along training, averaged over seeds, bands of one standard error.

    Args:
      dataset: As ``result.dataset``, with ``layer_weight_norm``.
      shown: Members to average by the label of their lines; each label has its own dashes, each layer its own colour.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.

    Raises:
      ValueError: A dataset without ``layer_weight_norm``.
    """
    check_variable(dataset, "layer_weight_norm")
    ax = style.axes(ax)
    drawn = _along_training(ax, dataset, "layer_weight_norm", shown)
    style.logarithmic_y(ax, drawn)
    return style.finish(ax, "training step, number of updates", _NORM)


def rotation(dataset: Any, shown: Mapping[str, Sequence[int]], *, ax: Any = None) -> Any:
    """Plot the angle that each layer turns in a step, averaged over seeds, beside the angle of its equilibrium.

    Thin dashed lines are the equilibrium that the rule, the optimizer, the learning rate and the coefficient foretell
    for a layer whose scale does not matter; there is none where the rule has none.

    Args:
      dataset: As ``result.dataset``, with ``rotation`` and, where it is foretold, ``predicted_rotation``: radians a
        step.
      shown: Members to average by the label of their lines; each label has its own dashes, each layer its own colour.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.

    Raises:
      ValueError: A dataset without ``rotation``.

    References:
      Kosson et al., Rotational equilibrium, 2023.
    """
    check_variable(dataset, "rotation")
    ax = style.axes(ax)
    drawn = _along_training(ax, dataset, "rotation", shown)
    if "predicted_rotation" in dataset:
        label = "equilibrium foretold, in the layer's colour"
        for members in shown.values():
            for place, looks in enumerate(_looks(dataset.sizes["layer"])):
                each = dataset["predicted_rotation"].values[list(members), :, place].astype(float)
                if np.isfinite(each).any():
                    ax.plot(dataset["step"].values, each.mean(axis=0), "--", color=looks["color"], lw=0.9, label=label)
                    drawn, label = np.concatenate([drawn, each.mean(axis=0)]), ""
    style.logarithmic_y(ax, drawn)
    return style.finish(ax, "training step, number of updates", "rotation of a layer, radians a step")


def weights(shown: Mapping[str, Sequence[Any]], *, ax: Any = None) -> Any:
    """Plot a histogram of the weights of each layer, a row a layer, logarithmic in the number of weights.

    Exact zeros are left out of the histograms, where they would hide the rest; their share stands beside each row.

    Args:
      shown: Trees of weights, one a seed, by the label of their histograms; the first is filled.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.
    """
    ax = style.axes(ax)
    arrays = {label: _kernels(trees) for label, trees in shown.items()}
    names = list(dict.fromkeys(name for kernels in arrays.values() for name in kernels))
    notes = [f"{_MOST_RIDGES} of {len(names)} arrays"] if len(names) > _MOST_RIDGES else []
    names = names[:_MOST_RIDGES]
    ends = [abs(kernels[name]).max() for kernels in arrays.values() for name in names if _has(kernels, name)]
    end = float(max(ends, default=1.0)) or 1.0
    edges = np.linspace(-end, end, 82)
    counted: dict[tuple[str, str], np.ndarray] = {
        (label, name): np.log1p(np.histogram(kernels[name][kernels[name] != 0], edges)[0] / len(shown[label]))
        for label, kernels in arrays.items()
        for name in names
        if name in kernels
    }
    tallest = max((float(counts.max()) for counts in counted.values()), default=0.0) or 1.0
    for place, name in enumerate(names):
        base = len(names) - 1 - place
        ax.axhline(base, color=style.GREY, linewidth=0.6, zorder=1)
        for order, (label, kernels) in enumerate(arrays.items()):
            if name not in kernels:
                continue
            colour, heights = (
                style.COLOURS[order % len(style.COLOURS)],
                base + 0.85 * counted[label, name] / tallest,
            )
            looks = {"baseline": base, "label": "" if place else label, "zorder": 2 + order}
            if order == 0:
                ax.stairs(heights, edges, fill=True, color=colour, alpha=0.45, **looks)
            else:
                ax.stairs(heights, edges, color=colour, linewidth=1.3, **looks)
    shares = [
        " / ".join(f"{np.mean(kernels[name] == 0):.3g}" if _has(kernels, name) else "-" for kernels in arrays.values())
        for name in names
    ]
    ax.set_yticks(
        range(len(names) - 1, -1, -1),
        [f"{name}\nzeros: {share}" for name, share in zip(names, shares, strict=True)],
        fontsize="small" if len(names) < 8 else "x-small",
    )
    ax.set_ylim(-0.08, max(1, len(names)))
    ax.set_xlim(-1.04 * end, 1.04 * end)
    top = np.expm1(tallest)
    notes.append(f"height: log(1 + weights a bin), full height {top:.0f} weights")
    return style.finish(
        ax, "value of a weight, in units of weight", "layer, and the share of exact zeros in the legend's order", notes
    )


def check_variable(dataset: Any, name: str) -> None:
    """Refuse a dataset that lacks what is recorded by layer.

    Args:
      dataset: As ``result.dataset``.
      name: Of the variable.

    Raises:
      ValueError: It has no such variable.
    """
    if name not in dataset:
        raise ValueError(
            f"dataset has no {name!r}, which results of earlier versions lack: run the grid again with this version."
        )


def kernel_norms(params: Any) -> dict[str, float]:
    """Euclidean norm of every array of two or more dimensions; of all arrays where there is none.

    Args:
      params: Weights of one member.

    Returns:
      Norms by name.
    """
    return {name: float(np.linalg.norm(w)) for name, w in _kernels([params], finite=False).items()}


def _kernels(trees: Sequence[Any], *, finite: bool = True) -> dict[str, np.ndarray]:
    """Weights of all trees by name, flat, without what is not finite."""
    found: dict[str, list[np.ndarray]] = {}
    for one in trees:
        leaves = [(name or "weights", np.asarray(leaf, np.float64)) for name, leaf in tree.named_leaves(one)]
        kernels = [(name, leaf) for name, leaf in leaves if leaf.ndim >= 2]
        for name, leaf in kernels or leaves:
            found.setdefault(name, []).append(leaf[np.isfinite(leaf)] if finite else leaf.ravel())
    return {name: np.concatenate(arrays) for name, arrays in found.items()}


def _estimated(layer_norm: Any, values: np.ndarray, here: np.ndarray) -> tuple[float, float]:
    """Mean and standard error over the members of a candidate."""
    members = np.flatnonzero(here)
    return mean_and_error(values[members], table_lines.folds(layer_norm, members))


def _has(kernels: Mapping[str, np.ndarray], name: str) -> bool:
    return name in kernels and kernels[name].size > 0


def _looks(count: int) -> list[dict[str, Any]]:
    """Looks of each layer: the palette, or by depth from dark to bright where there are more."""
    if count <= len(style.COLOURS):
        return [style.style(place) for place in range(count)]
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, 0.9, count))
    return [style.style(place) | {"color": tuple(map(float, shade))} for place, shade in enumerate(shades)]


def _along_training(ax: Any, dataset: Any, name: str, shown: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Draw a variable of each layer along training, and return what was drawn."""
    steps, layers = dataset["step"].values, [str(layer) for layer in dataset["layer"].values]
    looks, drawn = _looks(len(layers)), []
    for dash, members in enumerate(shown.values()):
        for place, layer in enumerate(layers):
            each = dataset[name].values[list(members), :, place].astype(float)
            mean, error = np.array([mean_and_error(values, table_lines.folds(dataset, members)) for values in each.T]).T
            own = looks[place] | {"linestyle": style.DASHES[dash % len(style.DASHES)]}
            ax.plot(steps, mean, label="" if dash else layer, markevery=max(1, len(steps) // 8), **own)
            style.band(ax, steps, mean, error, own["color"])
            drawn.append(mean)
    if len(shown) > 1:
        for dash, label in enumerate(shown):
            ax.plot([], [], color=style.GREY, linestyle=style.DASHES[dash % len(style.DASHES)], label=label)
    values = np.concatenate(drawn or [np.zeros(0)])
    style.say_nothing_there(ax, values)
    return values
