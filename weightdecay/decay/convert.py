"""Conversion of a coefficient from one convention to another, and to another training run.

The conventions are the rows of `weightdecay.decay.conventions.TABLE`.
"""

import math
import re
import sys
from collections.abc import Callable
from numbers import Real
from typing import Any, NoReturn

from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.decay import conventions
from weightdecay.decay.conventions import Convention

_PLAIN_SGD = ("every step of plain SGD", "Loshchilov & Hutter 2019, arXiv 1711.05101, proposition 1")
_EPOCHS_RULE = ("the time scale in epochs", "Wang & Aitchison 2024, arXiv 2405.13698")
_STEPS_RULE = (
    "the time scale as a fraction of the run, 1 / (r * num_steps)",
    "Wang & Aitchison 2024, arXiv 2405.13698, for one epoch; Bergsma et al. 2025, arXiv 2505.13738. Loshchilov & "
    "Hutter 2019 scale with 1 / sqrt(num_steps) instead: that keeps loshchilov_hutter.normalized",
)
_PER_LEARNING_RATE = ("l2", "decoupled")
"""Kinds whose number is multiplied by the learning rate in every step."""


class Conversion(float):
    """A converted coefficient: a float that also carries its explanation.

    Args:
      value: The coefficient.
      formula: How it was computed.
      keeps: What stays the same.
      reference: Source in the literature.
      note: What else a user needs to know; possibly empty.
    """

    formula: str
    keeps: str
    reference: str
    note: str

    def __new__(cls, value: float, formula: str = "", keeps: str = "", reference: str = "", note: str = "") -> Any:
        """Make the float with its explanation."""
        made = super().__new__(cls, value)
        made.formula, made.keeps, made.reference, made.note = formula, keeps, reference, note
        return made

    @property
    def explanation(self) -> str:
        """Formula, what stays the same, source and note, one line each."""
        lines = [self.formula, f"Stays the same: {self.keeps}.", f"Source: {self.reference}."]
        return "\n".join(lines + ([f"Note: {self.note}."] if self.note else []))


def convert(
    coefficient: Any,
    source: str,
    target: str,
    *,
    learning_rate: Any = None,
    batch_size: Any = None,
    num_examples: Any = None,
    num_steps: Any = None,
    width: Any = None,
    momentum: float = 0.0,
    new_learning_rate: Any = None,
    new_batch_size: Any = None,
    new_num_examples: Any = None,
    new_num_steps: Any = None,
) -> Any:
    """Convert a coefficient from one convention to another, or to another training run.

    The ``new_...`` arguments convert it to another run at constant time scale, ``1 / (learning_rate * c)`` steps. For
    another learning rate, batch size or data size the time scale stays constant in epochs: c is multiplied by
    ``new_batch_size / batch_size``, ``learning_rate / new_learning_rate`` or ``num_examples / new_num_examples``. For
    another number of steps it stays constant as a fraction of the run: c is multiplied by ``num_steps /
    new_num_steps``.

    Args:
      coefficient: A number >= 0, in the unit of ``source``; a pair for elastic nets. It may be traced, and so may the
        numbers below; the values of arrays are not checked.
      source: Convention of ``coefficient``, such as ``"keras.L2"``; `weightdecay.decay.conventions.describe` lists all
        of them. Case and the module of a library do not matter: ``"torch.optim.AdamW"`` is ``"torch.AdamW"``.
      target: Convention of the result.
      learning_rate: Peak learning rate, > 0; needed between a decay per step and a decay per step and unit of learning
        rate.
      batch_size: Examples per step, >= 1.
      num_examples: Training examples, >= 1.
      num_steps: Steps of the run, >= 1.
      width: Channels of the network, >= 1; for ``"nanochat"``, whose number is that of another width.
      momentum: Momentum of SGD, where ``"torch.SGD"`` is converted to decoupled decay: the two are equal under plain
        SGD only.
      new_learning_rate: Peak learning rate of the other run.
      new_batch_size: Batch size of the other run.
      new_num_examples: Training examples of the other run.
      new_num_steps: Steps of the other run; not together with another batch size or data size, which follow another
        rule.

    Returns:
      A `Conversion`, a float with the attributes ``formula``, ``keeps``, ``reference``, ``note`` and ``explanation``; a
      pair of them for elastic nets; plain arrays where an argument is an array. A coefficient of 0 is infinity as a
      time scale or as C of `LogisticRegression`, and infinity there is 0.

    Raises:
      TypeError: A value is not a number, or a name is not a string.
      ValueError: An unknown convention, a number that is out of range or missing, or a conversion that does not exist
        (Adam with L2 to AdamW); the message states the difference.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101; Wang & Aitchison, How to Set
      AdamW's Weight Decay as You Scale Model and Dataset Size, 2024, arXiv 2405.13698; Bergsma et al., Power Lines:
      Scaling Laws for Weight Decay and Batch Size in LLM Pre-training, 2025, arXiv 2505.13738.

    Examples:
      >>> convert(0.01, source="keras.L2", target="torch.SGD")
      0.02
      >>> convert(0.1, "torch.AdamW", "Independent", learning_rate=0.5)
      0.05
      >>> convert((2.0, 0.25), source="sklearn.ElasticNet", target="ElasticNet")
      (0.5, 1.5)
      >>> moved = convert(0.1, "torch.AdamW", "torch.AdamW", batch_size=256, new_batch_size=512)
      >>> moved
      0.2
      >>> print(moved.explanation)
      weight_decay = weight_decay * new_batch_size / batch_size
      Stays the same: the time scale in epochs.
      Source: Wang & Aitchison 2024, arXiv 2405.13698.
    """
    start, end = conventions.find(source, argument="source"), conventions.find(target, argument="target")
    value = _coefficient(coefficient, start)
    run = {"learning_rate": learning_rate, "batch_size": batch_size, "num_examples": num_examples}
    new_run = {"learning_rate": new_learning_rate, "batch_size": new_batch_size, "num_examples": new_num_examples}
    run |= {"num_steps": num_steps, "width": width}
    old = {name: _run_number(name, number) for name, number in run.items()}
    new = {
        name: _run_number(f"new_{name}", number) for name, number in (new_run | {"num_steps": new_num_steps}).items()
    }
    changed = [name for name, number in new.items() if number is not None]
    momentum = _number("momentum", momentum, "a number from 0 to below 1", lambda x: x < 1)
    _check_exists(start, end, momentum)
    _check_changes(start, end, changed)
    if start is end and not changed:
        result, formula = value, f"{end.parameter} = {start.parameter}"
    else:
        result, formula = _converted(value, start, end, old, old | {name: new[name] for name in changed}, changed)

    _, keeps, reference = conventions.KINDS[end.kind]
    if "l2" in (start.kind, end.kind) and start.kind != end.kind:
        keeps, reference = _PLAIN_SGD
    elif end.name.startswith("time_scale") or start.name.startswith("time_scale"):
        reference = _EPOCHS_RULE[1]
    if changed:
        keeps, reference = _STEPS_RULE if "num_steps" in changed else _EPOCHS_RULE
    notes = dict.fromkeys(filter(None, map(conventions.note, (start.name, end.name))))

    def explained(number: Any) -> Any:
        return Conversion(number, formula, keeps, reference, "; ".join(notes)) if isinstance(number, float) else number

    return tuple(map(explained, result)) if isinstance(result, tuple) else explained(result)


def _number(
    argument: str,
    value: Any,
    allowed: str = "a finite number >= 0",
    is_allowed: Callable[[float], bool] = math.isfinite,
    name: str | None = None,
) -> Any:
    """Check a number and return it as a float; an array is returned as it is."""
    name = name or argument
    if isinstance(value, bool) or not (isinstance(value, Real) or hasattr(value, "dtype")):
        raise ArgumentTypeError(argument, f"{name} is {value!r}, of type {type(value).__name__}; give {allowed}.")
    if not isinstance(value, Real):
        if getattr(value.dtype, "kind", "f") not in "fiuV":  # V is bfloat16
            raise ArgumentTypeError(argument, f"{name} is an array of dtype {value.dtype}; give {allowed}.")
        return value
    if isinstance(value, int) and abs(int(value)) > sys.float_info.max:
        raise ArgumentError(argument, f"{name} is an integer too large for a float; give {allowed}.")
    if math.isnan(value) or value < 0 or not is_allowed(float(value)):
        raise ArgumentError(argument, f"{name} is {value}; give {allowed}.")
    return float(value)


def _coefficient(value: Any, source: Convention) -> Any:
    names = source.parameter.strip("()").split(", ")
    numbers = value if isinstance(value, tuple | list) else (value,)
    if len(numbers) != len(names) or isinstance(value, tuple | list) != (len(names) > 1):
        wanted = "one number" if len(names) == 1 else "a pair"
        raise ArgumentError(
            "coefficient", f"coefficient is {value!r}; {source.name} takes {wanted}, {source.parameter}."
        )
    checked = []
    for name, number in zip(names, numbers, strict=True):
        rule: tuple[Any, ...] = ()
        if name == "l1_ratio":
            rule = ("a fraction from 0 to 1", lambda x: x <= 1)
        elif source.form.is_reciprocal:
            rule = ("a number above 0; 0 would be infinite decay", lambda x: x > 0)
        checked.append(_number("coefficient", number, *rule, name=f"coefficient ({name} of {source.name})"))
    return tuple(checked) if len(names) > 1 else checked[0]


def _run_number(argument: str, value: Any) -> Any:
    if value is None:
        return None
    if "learning_rate" in argument:
        return _number(argument, value, "a finite number above 0", lambda x: 0 < x < math.inf)
    return _number(argument, value, "a finite number of at least 1", lambda x: 1 <= x < math.inf)


def _check_exists(start: Convention, end: Convention, momentum: float) -> None:
    """Raise a ValueError with the reason where no conversion exists."""
    kinds, optimizers = {start.kind, end.kind}, {start.optimizer, end.optimizer} - {None}

    def fail(reason: str) -> NoReturn:
        raise ValueError(f"{start.name} to {end.name}: no conversion exists. {reason}")

    if "elastic_net" in kinds and len(kinds) > 1:
        fail("An elastic net has two coefficients; give it as a pair, with 0 for a part that is absent.")
    if "l1" in kinds and len(kinds) > 1:
        fail("L1 pulls every weight with the same force, the other in proportion to the weight.")
    if "l2" not in kinds or len(kinds) == 1:
        return
    coupled, decoupled = (start, end) if start.kind == "l2" else (end, start)
    if optimizers - {"sgd"} and coupled.optimizer == "sgd":
        fail(
            f"The optimizers differ: {coupled.name} minimizes the loss with its penalty, {decoupled.name} does not. To "
            "remove the same fraction of the weights per step, use 'Decoupled'."
        )
    if optimizers - {"sgd"}:
        fail(
            f"They are different methods. In {coupled.name} the optimizer rescales the gradient of the penalty "
            "with that of the loss: Adam divides it by sqrt(v) + eps, so weights with large gradients decay less. "
            f"Decoupled decay ({decoupled.name}) removes the same fraction of all weights, separately from the "
            "step. Search the coefficient again."
        )
    if not optimizers:
        fail(
            "An L2 penalty equals decoupled decay under plain SGD only, and is another method under Adam. If the "
            "optimizer is plain SGD, use 'torch.SGD' as the name of the penalty."
        )
    if momentum > 0:
        fail(
            f"With momentum {momentum:g} the penalty enters the momentum, and slow components decay at "
            "the rate learning_rate * c / (1 - momentum); decoupled decay (SGDW) does not enter it. They are equal at "
            "momentum 0."
        )


def _check_changes(start: Convention, end: Convention, changed: list[str]) -> None:
    """Raise a ValueError with the reason where a coefficient cannot be converted to another run."""
    if not changed:
        return
    arguments = [f"new_{name}" for name in changed]
    kinds, optimizers = {start.kind, end.kind}, {start.optimizer, end.optimizer} - {None}
    if kinds & {"l1", "elastic_net"} or (kinds == {"l2"} and optimizers != {"sgd"}):
        raise ArgumentError(
            arguments[0],
            f"{', '.join(arguments)}: {start.name} to {end.name} has no time scale to keep constant. The penalty is "
            "part of the objective, whose minimizer depends neither on the learning rate nor on batch size or number "
            "of steps: leave the coefficient as it is. For other data, the coefficient of the mean loss belongs to a "
            "fixed objective, and alpha of 'sklearn.Ridge' to a fixed prior: convert to it and back. Plain SGD has a "
            "time scale: use 'torch.SGD'.",
        )
    if "num_steps" in changed and {"batch_size", "num_examples"} & set(changed):
        raise ArgumentError(
            arguments[0],
            f"{', '.join(arguments)}: these follow two rules. new_num_steps keeps the time scale as a fraction of the "
            "run, which does not depend on batch size and data size; the others keep it in epochs. Give new_num_steps "
            "alone, or omit it.",
        )


def _converted(
    value: Any, start: Convention, end: Convention, old: dict[str, Any], new: dict[str, Any], changed: list[str]
) -> tuple[Any, str]:
    """The number in the other convention, and the formula."""

    def need(name: str, run: dict[str, Any], reason: str) -> Any:
        names = name.split("|")
        if all(run[choice] is None for choice in names):
            raise ArgumentError(names[0], f"{names[0]} is missing: {reason}. Give {' or '.join(names)}.")
        return run[names[0]]

    for convention, run in ((start, old), (end, new)):
        for name in convention.form.needs:
            text = convention.form.backward_text.format(x="r" if convention.kind == "independent" else "c")
            need(name, run, f"{convention.name} has {convention.parameter} = {text.split(' = ')[-1]}")
    number = start.form.forward(value, old)
    text = start.form.forward_text.format(x=start.parameter)
    before, after = start.kind in _PER_LEARNING_RATE, end.kind in _PER_LEARNING_RATE
    both = before and after and "learning_rate" not in changed
    reason = "decays in proportion to the learning rate"
    if before and not both:
        number = number * need("learning_rate", old, f"{start.name} {reason}")
        text = f"{text} * learning_rate"
    for name in changed:
        if name == "learning_rate":
            continue
        need(name, old, f"new_{name} changes it")
        factors, written = (new[name], old[name]), (f"new_{name}", name)
        if name != "batch_size":
            factors, written = factors[::-1], written[::-1]
        number, text = number * (factors[0] / factors[1]), f"{text} * {written[0]} / {written[1]}"
    renamed = {name: f"new_{name}" if name in changed else name for name in new}
    if after and not both:
        number = number / need("learning_rate", new, f"{end.name} {reason}")
        text = f"{text} / {renamed['learning_rate']}"
    last = end.form.backward_text
    for name, other in renamed.items():
        last = re.sub(rf"\b{name}\b", other, last)
    number = end.form.backward(number, new)
    if end.kind == "elastic_net":
        return number, f"{text}; {last}"
    return number, f"{end.parameter} = {last.format(x=text)}"
