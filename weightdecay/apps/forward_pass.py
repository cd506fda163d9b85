"""The forward pass of trained networks, in blocks of rows, without their training: what a fitted estimator keeps."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from weightdecay.core import random_streams
from weightdecay.models import network as networks

_BLOCK = 128  # rows that are computed at once; the numbers of a row then do not depend on the rows around it


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network with its weights. A pickled copy holds plain arrays, and the model as the user gave it.

    Attributes:
      model: The model, completed by its number of outputs and by the fields that axes of a grid set.
      params: Weights, trees of NumPy arrays.
      model_state: State of the model, likewise.
      hyperparameters: Numbers that the network takes from axes of the grid, such as ``dropout_rate``.
      target_mean: What is added to the scaled outputs; None = outputs are not scaled.
      target_scale: What the outputs are multiplied by.
    """

    model: Any
    params: Any
    model_state: Any
    hyperparameters: Mapping[str, Any]
    target_mean: Any = None
    target_scale: Any = None

    @classmethod
    def of_member(
        cls, model: Any, num_outputs: int, result: Any, member: int, scaling: tuple[Any, Any]
    ) -> "TrainedNetwork":
        """Take a member of a result.

        Args:
          model: The model as it was given to `weightdecay.fit_grid`.
          num_outputs: Number of outputs that the data needs.
          result: The `weightdecay.GridResult`.
          member: Index of the member.
          scaling: Mean and scale of its targets; None, None = they are not standardized.
        """
        values = result.members[member]
        options = {name: value for name, value in values.items() if name in networks.static_axes(model)}
        numbers = {name: float(value) for name, value in values.items() if name in networks.traced_axes(model)}
        complete = networks.complete(networks.with_options(model, options), num_outputs)
        params, model_state = jax.tree.map(np.array, (result.params(member), result.model_state(member)))
        mean, scale = scaling
        return cls(complete, params, model_state, numbers, mean, scale)

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Compute the outputs of some rows.

        Args:
          inputs: Shape ``(rows, ...)``.

        Returns:
          Outputs in the unit of the targets, float64, shape ``(rows, ...)``.
        """
        forward = _compiled(_Identified(self.model))
        blocks = []
        for start in range(0, len(inputs), _BLOCK):
            rows = np.arange(start, start + _BLOCK).clip(max=len(inputs) - 1)
            blocks.append(forward(self.params, self.model_state, inputs[rows], dict(self.hyperparameters)))
        outputs = np.concatenate([np.asarray(block, np.float64) for block in blocks])[: len(inputs)]
        return outputs if self.target_mean is None else self._in_unit_of_targets(outputs)

    def _in_unit_of_targets(self, outputs: np.ndarray) -> np.ndarray:
        if outputs.ndim == np.ndim(self.target_mean) + 2:  # one target, and a column of outputs
            outputs = outputs[..., 0]
        return outputs * self.target_scale + self.target_mean


def log_probabilities(members: Sequence[TrainedNetwork], inputs: np.ndarray) -> np.ndarray:
    """Compute the logarithm of the mean of the probabilities of several networks.

    Args:
      members: Networks of the same classes.
      inputs: Shape ``(rows, ...)``.

    Returns:
      float64, shape ``(rows, classes)``.
    """
    from scipy.special import log_softmax, logsumexp

    logs = np.stack([log_softmax(member.outputs(inputs), axis=1) for member in members])
    return logs[0] if len(logs) == 1 else logsumexp(logs, axis=0) - np.log(len(logs))


class _Identified:
    """A model as the key of a cache: equal models share a program; one that cannot be hashed is equal to itself."""

    def __init__(self, model: Any) -> None:
        self.model = model
        try:
            self._key: Any = (type(model), model)
            hash(self._key)
        except TypeError:
            self._key = id(model)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identified) and self._key == other._key


@functools.lru_cache(maxsize=32)
def _compiled(identified: _Identified) -> Any:
    """Return the forward pass of a model outside training, compiled where it is called with new shapes."""
    network = networks.network(identified.model)

    @jax.jit
    def forward(params: Any, model_state: Any, inputs: Any, hyperparameters: Mapping[str, Any]) -> Any:
        key = random_streams.constant_key()
        return network.apply(params, model_state, inputs, key=key, train=False, hyperparameters=hyperparameters)[0]

    return forward
