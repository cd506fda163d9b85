"""The methods of `weightdecay.GridResult` that give the trained model: weights, network, predictions, and a refit."""

import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError
from weightdecay.core.types import Integer
from weightdecay.storage import weights as weight_files

_SOFTMAX, _SIGMOID = "softmax_cross_entropy", "sigmoid_cross_entropy"


class ModelMethods:
    """Methods that return what was trained. Without a member they take the chosen candidate's."""

    @property
    def chosen_member(self: Any) -> int:
        """Number of the member that methods use if none is given.

        It is the first replicate (the first seed and fold) of the candidate with the best mean validation loss,
        ``result.best().members[0]``.

        Raises:
          ValueError: No candidate can be chosen.
        """
        if len(self) == 1:
            return 0
        try:
            return self.best().members[0]
        except ValueError as error:
            raise ValueError(
                f"member is None, and no candidate can be chosen: {error} Or give a member, 0 to {len(self) - 1}."
            ) from error

    def predict(
        self: Any,
        inputs: Any,
        member: Integer | None = None,
        *,
        average: bool = False,
        ensemble: bool = False,
    ) -> Any:
        """Return the outputs of a member's network in evaluation mode.

        Args:
          inputs: Inputs as in the data, shape ``(examples, ...)``; if folds are standardized, before standardization.
          member: Its number; None = `chosen_member`, the first replicate of the chosen candidate.
          average: Whether the averaged weights predict.
          ensemble: Whether all replicates (seeds and folds) of the candidate predict together. Their probabilities are
            averaged where outputs are logits of a loss of the library, their outputs where they are not.

        Returns:
          The outputs of the model, a NumPy array with one row per example; for classes, the logits. Those of an
          ensemble are the logarithms of the mean probabilities (of a sigmoid, their log odds).

        Raises:
          IndexError: No such member.
          ValueError: A result read from disk, which has no model; or no member was given, and none can be chosen.

        References:
          Lakshminarayanan, Pritzel & Blundell, Simple and Scalable Predictive Uncertainty Estimation using Deep
          Ensembles, 2017, arXiv 1612.01474 (means of probabilities).
        """
        index = self._index(member)
        if self._predict is None:
            raise ValueError(
                "this result has no model: it was read from disk. Apply the model to result.params(member) yourself."
            )
        members = self._replicates(index) if ensemble else [index]
        outputs = [self._predict(one, *self._member_weights(one, average), inputs) for one in members]
        return outputs[0] if len(outputs) == 1 else _together(outputs, self.settings.get("loss"))

    def params(self: Any, member: Integer | None = None, *, average: bool = False) -> Any:
        """Return the weights of a member after its last step, as the model itself has them.

        Args:
          member: Its number; None = `chosen_member`, the first replicate of the chosen candidate.
          average: Whether to return the averaged weights, of a member with ``ema``.

        Returns:
          The tree of weights, NumPy arrays; for a flax linen module, ``model.apply({"params": ...}, inputs)`` takes it.

        Raises:
          IndexError: No such member.
          ArgumentError: The member has no averaged weights.
        """
        return self._member_weights(self._index(member), average)[0]

    def model_state(self: Any, member: Integer | None = None, *, average: bool = False) -> Any:
        """Return what a member's model has in addition to its weights, such as batch statistics.

        Args:
          member: Its number; None = `chosen_member`, the first replicate of the chosen candidate.
          average: Whether to return what goes with the averaged weights.

        Returns:
          Collections by name; empty for a model without any.

        Raises:
          IndexError: No such member.
          ArgumentError: The member has no averaged weights.
        """
        return self._member_weights(self._index(member), average)[1]

    def network(self: Any, member: Integer | None = None, *, average: bool = False) -> Any:
        """Return a member's trained network as its own library has it, in evaluation mode.

        Args:
          member: Its number; None = `chosen_member`, the first replicate of the chosen candidate.
          average: Whether it has the averaged weights.

        Returns:
          Of flax linen, the module bound to its variables; of flax nnx and equinox, the module (for an equinox module
          with state, the module and its state); of a `weightdecay.Model`, a function of the inputs. It takes inputs as
          the network itself was given them: with standardized folds, standardized ones.

        Raises:
          IndexError: No such member.
          ValueError: A result read from disk, which has no model; or no member was given, and none can be chosen.
        """
        index = self._index(member)
        if self._network is None:
            raise ValueError(
                "this result has no model: it was read from disk. Put result.params(member) into the model yourself."
            )
        return self._network(index, *self._member_weights(index, average))

    def refit(self: Any, *, num_steps: Integer | None = None, seeds: Iterable[Integer] | None = None) -> Any:
        """Train the chosen candidate once more, on the training and the validation examples.

        Everything else is as in the run: steps, batches, rules, schedules. With ``patience`` no examples are left that
        could stop it, so that it takes as many steps as the chosen replicates' best evaluations had on average.

        Args:
          num_steps: Training steps; None = as before. With more examples the same steps are fewer epochs.
          seeds: Seeds of the members; None = those of the chosen candidate.

        Returns:
          The result of these members. Its validation metrics are of examples that it was trained on, and say nothing;
          ``refitted.test()`` scores it on the test examples of the run.

        Raises:
          ValueError: No candidate can be chosen, or a result that cannot train: read from disk, or pickled.
          ArgumentError: Standardized folds, which have no standardization of all examples.
        """
        train = getattr(self._extend, "refit", None)
        if train is None:
            raise ValueError("this result has neither the model nor the data: it was read from disk. Train it anew.")
        replicates = self._replicates(self.chosen_member)
        hyperparameters = {name: value for name, value in self.members[replicates[0]].items() if name != "fold"}
        given = hyperparameters.pop("seed", 0)
        of_replicates = dict.fromkeys(self.members[index].get("seed", given) for index in replicates)
        if num_steps is None and "best_step" in self.dataset:
            best = self.dataset["best_step"].values[replicates]
            num_steps = round(float(best.mean())) if (best > 0).all() else None
        if num_steps is not None:
            num_steps = checks.integer(num_steps, "num_steps", at_least=1)
        return train(hyperparameters, list(of_replicates if seeds is None else seeds), num_steps)

    def save_params(
        self: Any,
        path: str | os.PathLike[str],
        member: Integer | None = None,
        *,
        average: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Write the weights of one member to a safetensors file, which `weightdecay.load_params` reads.

        Args:
          path: A new file with the extension ``.safetensors``.
          member: Its number; None = `chosen_member`, the first replicate of the chosen candidate.
          average: Whether to write the averaged weights.
          overwrite: Whether to replace an existing file.

        Raises:
          IndexError: No such member.
          FileExistsError: The file exists and ``overwrite`` is False.
          ValueError: The path has another extension.
        """
        weight_files.write_params(path, self.params(member, average=average), overwrite=overwrite)

    def _member_weights(self: Any, index: int, average: bool) -> tuple[Any, Any]:
        """Return the weights and the model state of a member, or their averages."""
        if not average:
            return self._weights[index]
        if self._averages is None or self.members[index].get("ema") is None:
            raise ArgumentError(
                "average",
                f"average is True, but member {index} has no averaged weights; give its grid the axis ema, such as "
                "ema=[None, 0.99].",
            )
        return self._averages[index]

    def _index(self: Any, member: Integer | None) -> int:
        if member is None:
            return self.chosen_member
        if not checks.is_integer(member) or not -len(self) <= member < len(self):  # pyright: ignore[reportOptionalOperand]
            raise IndexError(f"member is {member!r}; give 0 to {len(self) - 1}, or None for the chosen candidate.")
        return range(len(self))[member]  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _replicates(self: Any, index: int) -> list[int]:
        """Numbers of the members of a member's candidate."""
        numbers = self.dataset["candidate"].values
        return np.flatnonzero(numbers == numbers[index]).tolist()


def _together(outputs: list[Any], loss: str | None) -> Any:
    """Outputs of an ensemble: of mean probabilities where they are logits, or else their means."""

    def mean(*arrays: np.ndarray) -> np.ndarray:
        stacked = np.stack(arrays)
        if loss == _SOFTMAX:
            from scipy.special import log_softmax, logsumexp

            return (logsumexp(log_softmax(stacked, axis=-1), axis=0) - np.log(len(arrays))).astype(stacked.dtype)
        if loss == _SIGMOID:
            # The log odds of the mean probability p, from log p and log (1 - p).
            from scipy.special import log_expit

            above, below = (np.logaddexp.reduce(log_expit(sign * stacked), axis=0) for sign in (1, -1))
            return (above - below).astype(stacked.dtype)
        return stacked.mean(axis=0)

    return jax.tree.map(mean, *outputs)
