"""The grid of `speed.py` without the library: programs that one would write in torch, scikit-learn or plain JAX.

Each peer is ``prepare(problem, num_members, num_steps, **variant) -> run``; ``run()`` trains the first members of the
problem, waits for the last result, and returns the number of member-steps. ``prepare`` draws the order of the examples;
everything else that a member needs (weights, optimizer, program) is part of the run.
"""

import functools
import importlib.util
import math
import os
import platform
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

LEARNING_RATE = 1e-3
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Run = Callable[[], int]


class MLP(nn.Module):
    """Dense layers with relu between them.

    Attributes:
      widths: Widths of all layers except the inputs; the outputs are last.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        """Map a batch, shape ``(examples, features)``, to outputs, shape ``(examples, classes)``."""
        hidden = inputs
        for width in self.widths[:-1]:
            hidden = nn.relu(nn.Dense(width)(hidden))
        return nn.Dense(self.widths[-1])(hidden)


class Convolutional(nn.Module):
    """Two convolutions of 3 x 3 with max-pooling, and a dense layer."""

    @nn.compact
    def __call__(self, images: Any) -> Any:
        """Map a batch, shape ``(examples, 28, 28, 1)``, to outputs, shape ``(examples, 10)``."""
        hidden = images
        for filters in (16, 32):
            hidden = nn.relu(nn.Conv(filters, (3, 3))(hidden))
            hidden = nn.max_pool(hidden, (2, 2), strides=(2, 2))
        return nn.Dense(10)(hidden.reshape(len(hidden), -1))


@dataclass(frozen=True, eq=False)
class Problem:
    """What every side trains.

    Attributes:
      widths: Widths of all layers of an MLP, inputs and outputs included; None = the convolutional network.
      train: Training inputs, float32, and targets, int32.
      validation: The same for validation.
      batch_size: Examples per training step.
      coefficients: Coefficient of weight decay of each member.
    """

    widths: tuple[int, ...] | None
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    batch_size: int
    coefficients: np.ndarray

    def model(self) -> nn.Module:
        """Return the flax module."""
        return Convolutional() if self.widths is None else MLP(self.widths[1:])

    def order(self, num_steps: int) -> np.ndarray:
        """Return the examples of each step, shape ``(num_steps, batch_size)``: shuffled epochs, cut into batches."""
        random = np.random.default_rng(0)
        num_examples = len(self.train[0])
        num_epochs = math.ceil(num_steps * self.batch_size / num_examples)
        stream = np.concatenate([random.permutation(num_examples) for _ in range(num_epochs)])
        return stream[: num_steps * self.batch_size].reshape(num_steps, self.batch_size)


def torch_loop(problem: Problem, num_members: int, num_steps: int, *, threads: int) -> Run:
    """A loop over members and training steps, with fused AdamW."""
    import torch

    inputs, targets, order = _torch_data(problem, num_steps)

    def run() -> int:
        torch.set_num_threads(threads)
        for coefficient in problem.coefficients[:num_members]:
            network = _torch_network(problem)
            optimizer = torch.optim.AdamW(
                network.parameters(), lr=LEARNING_RATE, weight_decay=float(coefficient), fused=True
            )
            for rows in order:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
                optimizer.step()
            _wait(network.parameters())
        return num_members * num_steps

    return run


def torch_vmap(problem: Problem, num_members: int, num_steps: int, *, threads: int) -> Run:
    """All members in one step: gradients by torch.func, and the fused Adam kernel on the stacked weights."""
    import torch

    inputs, targets, order = _torch_data(problem, num_steps)
    gradients = _torch_gradients(problem)

    def run() -> int:
        torch.set_num_threads(threads)
        params, keep = _stacked(problem, num_members)
        weights = list(params.values())
        # Each member has another coefficient, so its decay is applied first: AdamW is w <- (1 - learning rate * c) w,
        # then Adam.
        optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        for rows in order:
            for name, gradient in gradients(params, inputs[rows], targets[rows]).items():
                params[name].grad = gradient
                params[name].mul_(keep[name])
            optimizer.step()
        _wait(weights)
        return num_members * num_steps

    return run


def torch_compile(problem: Problem, num_members: int, num_steps: int) -> Run:
    """All members in one step: gradients by torch.func and AdamW written out, compiled as one function."""
    import torch

    inputs, targets, order = _torch_data(problem, num_steps)
    torch.set_num_threads(CORES)
    step = _compiled_step(problem)
    counts = torch.arange(1, num_steps + 1, dtype=torch.float64, device=inputs.device)

    def run() -> int:
        torch.set_num_threads(CORES)
        params, keep = _stacked(problem, num_members)
        first, second = ({name: torch.zeros_like(weight) for name, weight in params.items()} for _ in range(2))
        for count, rows in zip(counts, order, strict=True):
            params, first, second = step(params, keep, first, second, count, inputs[rows], targets[rows])
        _wait(params.values())
        return num_members * num_steps

    return run


@functools.lru_cache(maxsize=1)
def _compiled_step(problem: Problem) -> Callable[..., Any]:
    import torch

    torch.compiler.reset()
    torch.compiler.config.force_disable_caches = True  # so that the cold start is measured without a cache
    warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")
    gradients = _torch_gradients(problem)

    def step(params: Any, keep: Any, first: Any, second: Any, count: Any, inputs: Any, targets: Any) -> Any:
        gradient = gradients(params, inputs, targets)
        first = {name: torch.lerp(moment, gradient[name], 0.1) for name, moment in first.items()}
        second = {name: torch.lerp(moment, gradient[name] ** 2, 0.001) for name, moment in second.items()}
        size, spread = LEARNING_RATE / (1 - 0.9**count), torch.sqrt(1 - 0.999**count)
        params = {
            name: keep[name] * weight - size * first[name] / (torch.sqrt(second[name]) / spread + 1e-8)
            for name, weight in params.items()
        }
        return params, first, second

    return torch.compile(step, dynamic=False)


def scikit_learn(problem: Problem, num_members: int, num_steps: int) -> Run:
    """GridSearchCV over MLPClassifier on all cores; complete epochs, and L2 in place of decoupled decay."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier

    if problem.widths is None:
        raise ValueError("scikit-learn has no convolutions")
    num_train, num_validation = len(problem.train[0]), len(problem.validation[0])
    steps_per_epoch = math.ceil(num_train / problem.batch_size)
    num_epochs = max(1, round(num_steps / steps_per_epoch))
    inputs, targets = (np.concatenate(both) for both in zip(problem.train, problem.validation, strict=True))
    settings: dict[str, Any] = {
        "solver": "adam",
        "batch_size": problem.batch_size,
        "learning_rate_init": LEARNING_RATE,
        "max_iter": num_epochs,
        "tol": 0.0,
        "n_iter_no_change": num_epochs,  # never stop before the last epoch
    }
    search = GridSearchCV(
        MLPClassifier(problem.widths[1:-1], **settings),
        {"alpha": problem.coefficients[:num_members].tolist()},
        cv=PredefinedSplit(np.repeat([-1, 0], [num_train, num_validation])),
        n_jobs=CORES,
        refit=False,
    )

    def run() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit(inputs, targets)
        return num_members * num_epochs * steps_per_epoch

    return run


def jax_loop(problem: Problem, num_members: int, num_steps: int) -> Run:
    """A Python loop over members and jitted training steps, compiled once for all members."""
    initialize, step = _jax_functions(problem)
    initialize, step = jax.jit(initialize), jax.jit(step, donate_argnums=0)
    data = jax.device_put(problem.train)
    order = problem.order(num_steps).astype(np.int32)

    def run() -> int:
        for coefficient in problem.coefficients[:num_members].astype(np.float32):
            carry = initialize(jax.random.key(0), data)
            for rows in order:
                carry, _ = step(carry, coefficient, data, rows)
            jax.block_until_ready(carry)
        return num_members * num_steps

    return run


def jax_vmap(problem: Problem, num_members: int, num_steps: int) -> Run:
    """All members in one program on one device, jit(vmap(scan)); initial weights and batches are shared."""
    initialize, step = _jax_functions(problem)

    def train(coefficient: Any, key: Any, data: Any, order: Any) -> Any:
        first = initialize(key, data)
        carry, losses = jax.lax.scan(lambda carry, rows: step(carry, coefficient, data, rows), first, order)
        return carry, losses[-1]

    program = jax.jit(jax.vmap(train, in_axes=(0, None, None, None)))
    data = jax.device_put(problem.train)
    coefficients = jnp.asarray(problem.coefficients[:num_members], jnp.float32)
    order = jnp.asarray(problem.order(num_steps), jnp.int32)

    def run() -> int:
        jax.block_until_ready(program(coefficients, jax.random.key(0), data, order))
        return num_members * num_steps

    return run


def _jax_functions(problem: Problem) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``initialize(key, data) -> carry``, and ``step(carry, coefficient, data, rows) -> (carry, loss)``."""
    model = problem.model()

    def initialize(key: Any, data: Any) -> Any:
        params = model.init(key, data[0][:1])
        return params, optax.adamw(LEARNING_RATE).init(params)

    def step(carry: Any, coefficient: Any, data: Any, rows: Any) -> Any:
        (params, state), (inputs, targets) = carry, data

        def loss(params: Any) -> Any:
            logits = jnp.asarray(model.apply(params, inputs[rows]))
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets[rows]).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optax.adamw(LEARNING_RATE, weight_decay=coefficient).update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    return initialize, step


def _torch_device() -> str:
    import torch

    if jax.default_backend() == "cpu" or not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")  # TF32, the default of JAX
    return "cuda"


def _torch_data(problem: Problem, num_steps: int) -> tuple[Any, Any, Any]:
    """Return inputs (images with channels first in the shape and last in memory), targets and order, on the device."""
    import torch

    inputs, targets = map(torch.from_numpy, problem.train)
    if problem.widths is None:
        inputs = inputs.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    device, order = _torch_device(), torch.from_numpy(problem.order(num_steps))
    return inputs.to(device), targets.long().to(device), order.to(device)


def _torch_network(problem: Problem) -> Any:
    from torch import channels_last, nn

    if problem.widths is None:
        first = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        second = nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        network = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(7 * 7 * 32, 10))
        return network.to(_torch_device()).to(memory_format=channels_last)  # pyright: ignore[reportCallIssue]
    layers = []
    for inputs, outputs in zip(problem.widths, problem.widths[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(_torch_device())


def _torch_gradients(problem: Problem) -> Callable[..., Any]:
    """Return ``gradients(params, inputs, targets)`` for stacked weights by name; the members share their batch."""
    from torch.func import functional_call, grad, vmap
    from torch.nn.functional import cross_entropy

    network = _torch_network(problem)

    def loss(params: Any, inputs: Any, targets: Any) -> Any:
        return cross_entropy(functional_call(network, params, inputs), targets)

    return vmap(grad(loss), in_dims=(0, None, None))


def _stacked(problem: Problem, num_members: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the weights of all members by name, and the fraction of each that remains after the decay of a step."""
    import torch

    first = {name: weight.detach() for name, weight in _torch_network(problem).named_parameters()}
    left = torch.from_numpy(1 - LEARNING_RATE * problem.coefficients[:num_members]).float().to(_torch_device())
    params = {name: weight.repeat(num_members, *[1] * weight.ndim) for name, weight in first.items()}
    return params, {name: left.reshape(-1, *[1] * weight.ndim) for name, weight in first.items()}


def _wait(weights: Any) -> None:
    for weight in weights:
        float(weight.detach().ravel()[0])


@dataclass(frozen=True)
class Peer:
    """A peer and how to time it.

    Attributes:
      prepare: The function described at the head of this file.
      variants: Arguments to try; the fastest variant is timed.
      least_members: Smallest number of members that shows its speed; None = all.
    """

    prepare: Callable[..., Run]
    variants: tuple[dict[str, int], ...]
    least_members: int | None


_THREADS = tuple({"threads": threads} for threads in sorted({1, 2, CORES}))

PEERS = {
    "torch-loop": Peer(torch_loop, _THREADS, 1),
    "torch-vmap": Peer(torch_vmap, _THREADS, None),
    "torch-compile": Peer(torch_compile, ({},), None),
    "scikit-learn": Peer(scikit_learn, ({},), 2 * CORES),
    "jax-loop": Peer(jax_loop, ({},), 1),
    "jax-vmap": Peer(jax_vmap, ({},), None),
}


def processor() -> str:
    """Return the name of the processor and its vector units, or the architecture where the system reports no more."""
    information = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in information.read_text().splitlines()] if information.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in lines}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    flags = fields.get("flags", "").split()
    units = {"AVX2": "avx2", "AVX-512": "avx512f", "AMX": "amx_tile"}
    present = [unit for unit, flag in units.items() if flag in flags]
    return fields["model name"] + (f" with {', '.join(present)}" if present else "")


def missing(name: str, problem: Problem) -> str | None:
    """Return why a peer cannot run on this machine, or None if it can."""
    if name.startswith("torch") and importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if name == "torch-compile" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "torch.compile needs a C++ compiler"
    if name == "scikit-learn" and problem.widths is None:
        return "scikit-learn has no convolutions"
    if name == "scikit-learn" and jax.default_backend() != "cpu":
        return "scikit-learn trains on CPUs only"
    return None
