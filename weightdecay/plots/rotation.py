"""The angle by which each layer turns in a step, along training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.plots import layers, style


def rotation(dataset: Any, shown: Mapping[str, Sequence[int]], *, ax: Any = None) -> Any:
    """Plot the angle by which each layer turns in a step, averaged over seeds, with the predicted equilibrium angle.

    Thin dashed lines are the equilibrium angle that rule, optimizer, learning rate and coefficient predict for a layer
    whose scale has no effect on the outputs. A rule without an equilibrium has no such line.

    Args:
      dataset: The dataset, as ``result.dataset``, with ``rotation`` and, where it is predicted, ``predicted_rotation``,
        in radians per step.
      shown: Members to average, by label; each label has its own dashes, each layer its own colour.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.

    Raises:
      ArgumentError: A dataset without ``rotation``.

    References:
      Kosson et al., Rotational equilibrium, 2023.
    """
    layers.check_variable(dataset, "rotation")
    ax = style.axes(ax)
    drawn = layers.draw_along_training(ax, dataset, "rotation", shown)
    if "predicted_rotation" in dataset:
        label = "predicted equilibrium, in the layer's colour"
        for members in shown.values():
            for index, looks in enumerate(layers.line_styles(dataset.sizes["layer"])):
                predicted = dataset["predicted_rotation"].values[list(members), :, index].astype(float)
                if np.isfinite(predicted).any():
                    mean = predicted.mean(axis=0)
                    ax.plot(dataset["step"].values, mean, "--", color=looks["color"], lw=0.9, label=label)
                    drawn, label = np.concatenate([drawn, mean]), ""
    style.logarithmic_y(ax, drawn)
    return style.finish(ax, style.STEP_LABEL, "rotation of a layer, radians per step")
