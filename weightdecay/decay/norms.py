"""Rules of norms: they set the norm of an array, how fast it grows, or how large a step is next to it."""

from dataclasses import field

import jax.numpy as jnp
import numpy as np
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree
from weightdecay.decay import layout as layouts
from weightdecay.decay.base import ARRAYS, MATRICES, NO_UNIT, PER_STEP_AND_RATE, Rule, Step, with_unit
from weightdecay.decay.layout import Layout


@tree.dataclass
class Hyperball(Rule):
    """Hyperball: each matrix keeps its initial norm, and each step has a length in proportion to it.

    ``w <- R norm(w - η R norm(u))`` for each matrix, with ``norm(x) = x / |x|`` and R = |w0|, the Frobenius norm at the
    start. The learning rate is the length of a step divided by the norm of the matrix, so that 0.001 under Adam is far
    from the usual choice: begin at 0.003 to 0.03. Arrays of fewer than two dimensions take the step of the base
    optimizer. A convolution is one matrix of shape ``(inputs, outputs)``, and so is the kernel of all heads of an
    attention layer. The rule has no coefficient.

    Args:
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`. A static dictionary.

    Raises:
      ValueError: A matrix of norm 0 at the start, such as a zero-initialized projection: it would stay 0. Such a matrix
        is found where the weights are given to an optimizer's ``init``, and by `weightdecay.fit_grid`.

    Numerics:
      Where the direction u is 0 the matrix stays as it is, up to rounding. Where ``init`` is traced, a matrix of norm 0
      cannot be refused; it takes the step of the base optimizer.

    References:
      Wen et al., 2026, arXiv 2606.16899.
    """

    equals = "AdamH and MuonH of Wen et al."
    acts_on = MATRICES

    layout: Layout | None = field(default=None, metadata={"static": True})

    @override
    def initial(self, weight: Array) -> PyTree:
        return tree.norm(weight) if weight.ndim > 1 else None

    @override
    def check_initial(self, state: PyTree) -> None:
        if state is not None and (np.asarray(state) == 0).any():
            raise ValueError(
                "has norm 0 at the start, and Hyperball holds each matrix at its initial norm, so that it would stay "
                "0; draw it at random, with a small scale where it began at zero, or leave it out by a mask."
            )

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        if stepped.ndim < 2:
            return stepped, state
        # What other rules have subtracted; exactly 0 where there are none, however large the step is.
        plain = step.weight + -step.learning_rate * step.direction
        others = jnp.where(stepped == plain, 0, stepped - plain)
        length = tree.norm(step.direction)
        unit = step.direction / jnp.where(length > 0, length, 1)
        target = step.weight - step.learning_rate * state * unit + others
        size = tree.norm(target)
        moved = target * (state / jnp.where(size > 0, size, 1))
        return jnp.where((state > 0) & (size > 0), moved, stepped), state

    @override
    def check(self) -> None:
        layouts.check(self.layout)


@tree.dataclass
class RadialBrake(Rule):
    """Radial brake: where a step makes an array longer, only a fraction of the growth is kept.

    ``w <- w̃ (|w| + c max(|w̃| - |w|, 0) + min(|w̃| - |w|, 0)) / |w̃|`` for each array. A step that makes the array
    shorter is left as it is, and the direction is always that of the step.

    Args:
      coefficient: c in [0, 1], no unit: fraction of an outward change of the norm that is kept. 1 is the base
        optimizer, and 0 lets no norm grow; an array that starts at zero then stays there.

    References:
      NVIDIA, Emerging-Optimizers, 2026, ``RadialBrakeHook``.
    """

    equals = "`RadialBrakeHook(outward_scale=c)` of Emerging-Optimizers"
    search_range = (1e-2, 1e0)
    neutral = 1.0
    acts_on = ARRAYS

    coefficient: Coefficient = with_unit(NO_UNIT, at_most=1.0)

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        before, after = tree.norm(step.weight), tree.norm(stepped)
        growth = jnp.maximum(after - before, 0)
        removed = (1 - self.coefficient) * (growth / jnp.where(after > 0, after, 1))
        return stepped - removed * stepped, state


@tree.dataclass
class RelativeStep(Rule):
    """Relative step: the direction of an array is never shorter than a fraction of its weights.

    ``u <- u max(1, c |w| / |u|), then w <- w - η u`` for each array. The step therefore changes each array by at least
    the fraction η c. Where the direction is 0 it stays 0.

    Args:
      floor: c >= 0, 1 / (step · learning rate): smallest norm of the direction divided by the norm of the weights.

    References:
      Jordan et al., modded-nanogpt, 2026 (the u/w floor).
    """

    equals = "the u/w floor of modded-nanogpt"
    search_range = (1e0, 1e2)
    acts_on = ARRAYS

    floor: Coefficient = with_unit(PER_STEP_AND_RATE)

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        length = tree.norm(step.direction)
        unit = step.direction / jnp.where(length > 0, length, 1)
        missing = jnp.maximum(self.floor * tree.norm(step.weight) - length, 0)
        return jnp.asarray(step.learning_rate * missing * unit), state
