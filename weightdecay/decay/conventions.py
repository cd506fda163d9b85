"""Coefficients between conventions: what this library, torch, optax, Keras, scikit-learn and papers mean by a number.

Each convention is a row of one table: how its number is made from the common number of its kind. The kinds are c of a
penalty beside the mean data loss, c of decoupled decay (a share of the weights a step and unit of learning rate), and r
of independent decay (a share a step). `describe` shows the table, `convert` goes from one row to another.
"""

import math
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from numbers import Real
from typing import Any, NamedTuple, NoReturn


class Conversion(float):
    """A converted coefficient: a plain float that also carries its words.

    Args:
      value: The coefficient.
      formula: How it was made.
      keeps: What stays the same.
      reference: Where the rule stands in the literature.
      note: What else a user has to know, possibly empty.
    """

    formula: str
    keeps: str
    reference: str
    note: str

    def __new__(cls, value: float, formula: str = "", keeps: str = "", reference: str = "", note: str = "") -> Any:
        """Make the float, and give it its words."""
        made = super().__new__(cls, value)
        made.formula, made.keeps, made.reference, made.note = formula, keeps, reference, note
        return made

    @property
    def explanation(self) -> str:
        """Formula, what stays the same, source, and notes: a line each."""
        lines = [self.formula, f"Stays the same: {self.keeps}.", f"Source: {self.reference}."]
        return "\n".join(lines + ([f"Note: {self.note}."] if self.note else []))


class _Form(NamedTuple):
    """How a convention's number and the common number of its kind make each other."""

    forward: Callable[[Any, dict[str, Any]], Any]
    backward: Callable[[Any, dict[str, Any]], Any]
    forward_text: str  # {x} is the number; products and quotients alone, so that texts nest without brackets
    backward_text: str
    needs: tuple[str, ...] = ()  # each one a name of the context, or several divided by | of which one is enough
    is_reciprocal: bool = False


class _Convention(NamedTuple):
    """One row: a name, the kind of its number, the name of the number, and the form."""

    name: str
    kind: str
    parameter: str
    form: _Form
    optimizer: str | None = None


def _reciprocal(value: Any) -> Any:
    return math.inf if isinstance(value, float) and value == 0 else 1 / value


def _scaled(scale: Callable[[dict[str, Any]], Any], text: str, *needs: str) -> _Form:
    """``number = common * scale``."""
    return _Form(lambda x, k: x / scale(k), lambda x, k: x * scale(k), f"{{x}} / {text}", f"{{x}} * {text}", needs)


def _inverse(scale: Callable[[dict[str, Any]], Any], text: str, *needs: str) -> _Form:
    """``number = 1 / (common * scale)``."""
    both, written = (lambda x, k: _reciprocal(x * scale(k))), f"1 / ({{x}}{text})"
    return _Form(both, both, written if text else "1 / {x}", written, needs, is_reciprocal=True)


def _ratio(c1: Any, c2: Any) -> Any:
    total = c1 + c2
    return c1 / (total + (total == 0))  # 0 where both are 0, for tracers too


_SAME = _Form(lambda x, _: x, lambda x, _: x, "{x}", "{x}")
_HALF = _Form(lambda x, _: 2 * x, lambda x, _: x / 2, "2 * {x}", "{x} / 2")
_PAIR = _SAME._replace(
    forward_text="(c1, c2) = (l1_coefficient, l2_coefficient)",
    backward_text="(l1_coefficient, l2_coefficient) = (c1, c2)",
)
_L1L2 = _Form(
    lambda x, _: (x[0], 2 * x[1]), lambda x, _: (x[0], x[1] / 2), "(c1, c2) = (l1, 2 * l2)", "(l1, l2) = (c1, c2 / 2)"
)
_ALPHA_RATIO = _Form(
    lambda x, _: (x[0] * x[1], x[0] * (1 - x[1])),
    lambda x, _: (x[0] + x[1], _ratio(*x)),
    "(c1, c2) = (alpha * l1_ratio, alpha * (1 - l1_ratio))",
    "(alpha, l1_ratio) = (c1 + c2, c1 / (c1 + c2))",
)
_C_RATIO = _Form(
    lambda x, k: tuple(_reciprocal(x[0] * k["num_examples"]) * share for share in (x[1], 1 - x[1])),
    lambda x, k: (_reciprocal((x[0] + x[1]) * k["num_examples"]), _ratio(*x)),
    "(c1, c2) = (l1_ratio, 1 - l1_ratio) / (num_examples * C)",
    "(C, l1_ratio) = (1 / (num_examples * (c1 + c2)), c1 / (c1 + c2))",
    ("num_examples",),
    is_reciprocal=True,
)
_SUM = _scaled(lambda k: k["num_examples"], "num_examples", "num_examples")
_BATCH_SUM = _scaled(
    lambda k: k["num_examples"] if k["batch_size"] is None else k["batch_size"],
    "batch_size",
    "batch_size|num_examples",
)
_INVERSE_SUM = _inverse(lambda k: k["num_examples"], " * num_examples", "num_examples")
_STEPS = _inverse(lambda _: 1.0, "")
_EPOCHS = _inverse(
    lambda k: k["num_examples"] / k["batch_size"], " * num_examples / batch_size", "num_examples", "batch_size"
)
_ROOT = _scaled(lambda k: k["num_steps"] ** 0.5, "sqrt(num_steps)", "num_steps")


def _rows(kind: str, parameter: str, form: _Form, *names: str, optimizers: bool = False) -> list[_Convention]:
    optimizer = lambda name: name.split(".")[1].lower().removesuffix("w") if optimizers else None  # noqa: E731
    return [_Convention(name, kind, parameter, form, optimizer(name)) for name in names]


_KERAS = ("SGD", "Adam", "AdamW", "Nadam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Lion")
_L1_AND_L2 = "(l1_coefficient, l2_coefficient)"
_TABLE = [
    *_rows("l2", "coefficient", _SAME, "L2", "ProximalL2"),
    *_rows("l2", "weight_decay", _SAME, "torch.SGD", "torch.Adam", "torch.RMSprop", optimizers=True),
    *_rows("l2", "weight_decay", _SAME, "optax.add_decayed_weights"),
    *_rows("l2", "l2", _HALF, "keras.L2"),
    *_rows("l2", "alpha", _SUM, "sklearn.Ridge"),
    *_rows("l2", "alpha", _BATCH_SUM, "sklearn.MLP"),
    *_rows("l2", "C", _INVERSE_SUM, "sklearn.LogisticRegression"),
    *_rows("l1", "coefficient", _SAME, "L1", "ProximalL1"),
    *_rows("l1", "l1", _SAME, "keras.L1"),
    *_rows("l1", "alpha", _SAME, "sklearn.Lasso"),
    *_rows("l1", "C", _INVERSE_SUM, "sklearn.LogisticRegression.l1"),
    *_rows("elastic_net", _L1_AND_L2, _PAIR, "ElasticNet", "ProximalElasticNet"),
    *_rows("elastic_net", "(l1, l2)", _L1L2, "keras.L1L2"),
    *_rows("elastic_net", "(alpha, l1_ratio)", _ALPHA_RATIO, "sklearn.ElasticNet"),
    *_rows("elastic_net", "(C, l1_ratio)", _C_RATIO, "sklearn.LogisticRegression.elasticnet"),
    *_rows("decoupled", "coefficient", _SAME, "Decoupled", "Corrected"),
    *_rows("decoupled", "weight_decay", _SAME, "torch.AdamW", "optax.adamw", "optax.nadamw", optimizers=True),
    *_rows("decoupled", "weight_decay", _SAME, "optax.lion", *(f"keras.{name}" for name in _KERAS), optimizers=True),
    *_rows("independent", "coefficient", _SAME, "Independent"),
    *_rows("independent", "weight_decay", _SAME, "loshchilov_hutter"),
    *_rows("independent", "normalized_weight_decay", _ROOT, "loshchilov_hutter.normalized"),
    *_rows("independent", "weight_decay_rate", _SAME, "optax.adafactor", optimizers=True),
    *_rows("independent", "steps", _STEPS, "time_scale.steps"),
    *_rows("independent", "epochs", _EPOCHS, "time_scale.epochs"),
]
_NOTES = {  # by what a name begins with; the longest that fits
    "Proximal": "a proximal rule has the same minimizer as the penalty's gradient, by other steps",
    "torch.Adam": "Adam divides the penalty's gradient by its preconditioner, which the minimizer does not feel",
    "torch.RMSprop": "RMSprop divides the penalty's gradient by its preconditioner, which the minimizer does not feel",
    "torch.AdamW": "",
    "optax.add_decayed_weights": "add_decayed_weights stands before the optimizer; behind it, it is adamw's",
    "sklearn": "scikit-learn's data loss is half the mean squared error; beside the whole (squared_error here, torch's "
    "MSELoss, Keras's mse) the same minimizer has twice the c",
    "sklearn.Log": "",
    "sklearn.MLP": "scikit-learn divides alpha by the examples in the batch, min(200, num_examples) unless set; with "
    "solver lbfgs, and here where batch_size is not given, they are all num_examples; its squared error carries 1/2",
    "Corrected": "Corrected and Decoupled differ where a schedule moves the learning rate",
    "keras": "weight_decay of every Keras optimizer is decoupled, that of keras.SGD too",
    "keras.L": "",
    "keras.Lion": "weight_decay of every Keras optimizer is decoupled",
    "optax.adafactor": "adafactor's decay knows neither the learning rate nor its schedule",
}
_OBJECTIVE = "the penalty beside the mean data loss, and so the minimizer"
_SHARE = "the share of the weights that a step takes away"
_DECOUPLED = "Loshchilov & Hutter 2019, arXiv 1711.05101"
_KINDS = {  # the common number in its formula, what a conversion keeps, and the literature
    "l2": ("L2 penalty: mean loss + c |w|²/2", _OBJECTIVE, "Krogh & Hertz 1992"),
    "l1": ("L1 penalty: mean loss + c |w|₁", _OBJECTIVE, "Tibshirani 1996"),
    "elastic_net": ("elastic net: mean loss + c1 |w|₁ + c2 |w|²/2", _OBJECTIVE, "Zou & Hastie 2005"),
    "decoupled": ("decoupled decay: w <- (1 - learning_rate * c) w beside the step", _SHARE, _DECOUPLED),
    "independent": ("independent decay: r = peak learning_rate * c, a share a step", _SHARE, _DECOUPLED),
}
_PLAIN_SGD = ("every step of plain SGD", "Loshchilov & Hutter 2019, arXiv 1711.05101, proposition 1")
_EPOCHS_RULE = ("the time scale in epochs", "Wang & Aitchison 2024, arXiv 2405.13698")
_STEPS_RULE = (
    "the time scale as a share of the run, 1 / (r * num_steps)",
    "Wang & Aitchison 2024, arXiv 2405.13698, for one epoch; Bergsma et al. 2025, arXiv 2505.13738. Loshchilov & "
    "Hutter 2019 scale with 1 / sqrt(num_steps) instead: that keeps loshchilov_hutter.normalized",
)
_PER_RATE = ("l2", "decoupled")


def _key(name: str) -> str:
    """Name without case, underscores and module paths."""
    words = re.sub(r"[_\-\s]", "", name.lower()).split(".")
    places = ("weightdecay", "wd", "decay", "optim", "linearmodel", "neuralnetwork", "regularizers", "optimizers", "tf")
    words = [{"scikitlearn": "sklearn", "pytorch": "torch", "tensorflow": "tf"}.get(word, word) for word in words]
    return re.sub(r"mlp(regressor|classifier)$", "mlp", ".".join(word for word in words if word not in places))


_BY_KEY = {_key(convention.name): convention for convention in _TABLE}


def convert(
    coefficient: Any,
    source: str,
    target: str,
    *,
    learning_rate: Any = None,
    batch_size: Any = None,
    num_examples: Any = None,
    num_steps: Any = None,
    momentum: float = 0.0,
    new_learning_rate: Any = None,
    new_batch_size: Any = None,
    new_num_examples: Any = None,
    new_num_steps: Any = None,
) -> Any:
    """Convert a coefficient from one convention to another, and move it to another training run.

    The ``new_...`` arguments move it at constant time scale, ``1 / (learning_rate * c)`` steps: in epochs for another
    learning rate, batch size or data size (c times ``new_batch_size / batch_size``, ``learning_rate /
    new_learning_rate``, ``num_examples / new_num_examples``), as a share of the run for another number of steps (c
    times ``num_steps / new_num_steps``).

    Args:
      coefficient: A number >= 0, in the unit of ``source``; a pair for elastic nets. May be traced, as may the numbers
        below; arrays are not checked.
      source: Convention of ``coefficient``, such as ``"keras.L2"``; `weightdecay.decay.conventions.describe` lists them
        all. Case and module paths do not matter: ``"torch.optim.AdamW"`` is ``"torch.AdamW"``.
      target: Convention of the result.
      learning_rate: Peak learning rate, > 0; needed between a decay a step and one a step and learning rate.
      batch_size: Examples a step, >= 1.
      num_examples: Training examples, >= 1.
      num_steps: Steps of the run, >= 1.
      momentum: Of SGD, where ``"torch.SGD"`` stands for decoupled decay: the two are one under plain SGD alone.
      new_learning_rate: Peak learning rate of the other run.
      new_batch_size: Batch size of the other run.
      new_num_examples: Training examples of the other run.
      new_num_steps: Steps of the other run; not together with another batch or data size, which go by another rule.

    Returns:
      A `Conversion`, a float with the attributes ``formula``, ``keeps``, ``reference``, ``note`` and ``explanation``; a
      pair of them for elastic nets; plain arrays where an argument is an array. 0 as a time scale, or as C of
      `LogisticRegression`, is infinity, and infinity there is 0.

    Raises:
      TypeError: Something is no number, or a name is no string.
      ValueError: An unknown convention, a number that is out of its range or missing, or a conversion that does not
        exist (Adam with L2 to AdamW): the message says what differs.

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
    start, end = _find("source", source), _find("target", target)
    value = _coefficient(coefficient, start)
    run = {"learning_rate": learning_rate, "batch_size": batch_size, "num_examples": num_examples}
    new_run = {"learning_rate": new_learning_rate, "batch_size": new_batch_size, "num_examples": new_num_examples}
    old = {name: _context(name, number) for name, number in (run | {"num_steps": num_steps}).items()}
    new = {name: _context(f"new_{name}", number) for name, number in (new_run | {"num_steps": new_num_steps}).items()}
    moves = [name for name, number in new.items() if number is not None]
    momentum = _number("momentum", momentum, "number from 0 to below 1", lambda x: x < 1)
    _refuse(start, end, momentum, moves)
    if start is end and not moves:
        result, formula = value, f"{end.parameter} = {start.parameter}"
    else:
        result, formula = _carry(value, start, end, old, old | {name: new[name] for name in moves}, moves)

    _, keeps, reference = _KINDS[end.kind]
    if "l2" in (start.kind, end.kind) and start.kind != end.kind:
        keeps, reference = _PLAIN_SGD
    elif end.name.startswith("time_scale") or start.name.startswith("time_scale"):
        reference = _EPOCHS_RULE[1]
    if moves:
        keeps, reference = _STEPS_RULE if "num_steps" in moves else _EPOCHS_RULE
    words = (formula, keeps, reference, "; ".join(dict.fromkeys(filter(None, map(_note, (start.name, end.name))))))
    told = lambda number: Conversion(number, *words) if isinstance(number, float) else number  # noqa: E731
    return tuple(map(told, result)) if isinstance(result, tuple) else told(result)


def describe() -> str:
    """Table of the conventions: each one's common number from its own.

    Returns:
      A text with a line for the conventions of one form, under a heading for each kind of number.

    Examples:
      >>> print(describe().split("L1 penalty")[0].rstrip())
      L2 penalty: mean loss + c |w|²/2
        c = coefficient             L2, ProximalL2
        c = weight_decay            torch.SGD, torch.Adam, torch.RMSprop, optax.add_decayed_weights
        c = 2 * l2                  keras.L2
        c = alpha / num_examples    sklearn.Ridge
        c = alpha / batch_size      sklearn.MLP
        c = 1 / (C * num_examples)  sklearn.LogisticRegression
    """
    lines = []
    for kind, (heading, *_) in _KINDS.items():
        rows: dict[str, list[str]] = {}
        for convention in _TABLE:
            if convention.kind == kind:
                text = convention.form.forward_text.format(x=convention.parameter)
                common = {"elastic_net": "", "independent": "r = "}.get(kind, "c = ")
                rows.setdefault(common + text, []).append(convention.name)
        width = max(map(len, rows))
        lines += [heading, *(f"  {text:<{width}}  {', '.join(names)}" for text, names in rows.items()), ""]
    return "\n".join(lines).rstrip()


def _find(argument: str, name: str) -> _Convention:
    if not isinstance(name, str):
        raise TypeError(
            f"{argument} is {name!r}, of type {type(name).__name__}; give a convention's name, such as 'torch.SGD'."
        )
    key = _key(name)
    if key not in _BY_KEY:
        likely = [known for known in _BY_KEY if key in known.split(".")] or get_close_matches(key, _BY_KEY, n=3)
        told = f"; did you mean {' or '.join(_BY_KEY[known].name for known in likely)}?" if likely else "."
        raise ValueError(
            f"{argument} is {name!r}, which is unknown{told} The conventions are: "
            f"{', '.join(convention.name for convention in _TABLE)}."
        )
    return _BY_KEY[key]


def _number(name: str, value: Any, domain: str = "", allowed: Callable[[float], bool] = math.isfinite) -> Any:
    """A plain number as a float, checked; an array as it is."""
    if isinstance(value, bool) or not (isinstance(value, Real) or hasattr(value, "dtype")):
        raise TypeError(f"{name} is {value!r}, of type {type(value).__name__}; give a number.")
    if not isinstance(value, Real):
        if getattr(value.dtype, "kind", "f") not in "fiuV":  # V is bfloat16
            raise TypeError(f"{name} is an array of dtype {value.dtype}; give numbers.")
        return value
    if isinstance(value, int) and abs(int(value)) > sys.float_info.max:
        raise ValueError(f"{name} is a whole number too large for a float; give a {domain or 'finite number >= 0'}.")
    if math.isnan(value) or value < 0 or not allowed(float(value)):
        raise ValueError(f"{name} is {value}; give a {domain or 'finite number >= 0'}.")
    return float(value)


def _coefficient(value: Any, source: _Convention) -> Any:
    names = source.parameter.strip("()").split(", ")
    numbers = value if isinstance(value, tuple | list) else (value,)
    if len(numbers) != len(names) or isinstance(value, tuple | list) != (len(names) > 1):
        wanted = "one number" if len(names) == 1 else "a pair"
        raise ValueError(f"coefficient is {value!r}; {source.name} takes {wanted}, {source.parameter}.")
    checked = []
    for name, number in zip(names, numbers, strict=True):
        rule: tuple[Any, ...] = ()
        if name == "l1_ratio":
            rule = ("share from 0 to 1", lambda x: x <= 1)
        elif source.form.is_reciprocal:
            rule = ("number above 0; 0 would be infinite decay", lambda x: x > 0)
        checked.append(_number(f"coefficient ({name} of {source.name})", number, *rule))
    return tuple(checked) if len(names) > 1 else checked[0]


def _context(name: str, value: Any) -> Any:
    if value is None:
        return None
    if "learning_rate" in name:
        return _number(name, value, "finite number above 0", lambda x: 0 < x < math.inf)
    return _number(name, value, "finite number of at least 1", lambda x: 1 <= x < math.inf)


def _note(name: str) -> str:
    return _NOTES.get(max((start for start in _NOTES if name.startswith(start)), key=len, default=""), "")


def _refuse(start: _Convention, end: _Convention, momentum: float, moves: list[str]) -> None:
    """Tell why there is no conversion, where there is none."""
    kinds, optimizers = {start.kind, end.kind}, {start.optimizer, end.optimizer} - {None}

    def fail(why: str) -> NoReturn:
        raise ValueError(f"{start.name} to {end.name}: no conversion exists. {why}")

    if "elastic_net" in kinds and len(kinds) > 1:
        fail("An elastic net has two coefficients; give it as a pair, with 0 for the part that is not there.")
    if "l1" in kinds and len(kinds) > 1:
        fail("L1 pulls every weight with the same force, the other in proportion to the weight.")
    if "l2" in kinds and len(kinds) > 1:
        coupled, decoupled = (start, end) if start.kind == "l2" else (end, start)
        if optimizers - {"sgd"}:
            if coupled.optimizer == "sgd":
                fail(
                    f"The optimizers differ: {coupled.name} minimizes the loss with its penalty, {decoupled.name} does "
                    "not. For the same share of the weights a step go by 'Decoupled'."
                )
            fail(
                f"They are different methods. The optimizer rescales the penalty's gradient ({coupled.name}) with the "
                "rest: Adam divides it by sqrt(v) + eps, so weights with large gradients decay less. Decoupled decay "
                f"({decoupled.name}) shrinks all weights by one share beside the step. Search the coefficient anew."
            )
        if not optimizers:
            fail(
                "An L2 penalty is decoupled decay under plain SGD alone, and is another method under Adam. If the "
                "optimizer is plain SGD, say 'torch.SGD' for the penalty."
            )
        if momentum > 0:
            fail(
                f"With momentum {momentum:g} L2 enters the momentum, and decays what is slow at rate "
                f"learning_rate * c / (1 - momentum); decoupled decay (SGDW) stays outside. They are one at momentum 0."
            )
    if not moves:
        return
    told = ", ".join(f"new_{name}" for name in moves)
    if kinds & {"l1", "elastic_net"} or (kinds == {"l2"} and optimizers != {"sgd"}):
        raise ValueError(
            f"{told}: {start.name} to {end.name} has no time scale to keep constant. The penalty belongs to the "
            "objective, whose minimizer knows neither learning rate nor batch size nor steps: leave it as it is. For "
            "other data, the coefficient of the mean loss stays with a fixed objective, and alpha of "
            "'sklearn.Ridge' with a fixed prior: convert to it and back. Plain SGD has a time scale: say 'torch.SGD'."
        )
    if "num_steps" in moves and {"batch_size", "num_examples"} & set(moves):
        raise ValueError(
            f"{told}: these go by two rules. new_num_steps keeps the time scale as a share of the run, and that share "
            "knows no batch and data size; the others keep it in epochs. Give new_num_steps alone, or leave it."
        )


def _carry(
    value: Any, start: _Convention, end: _Convention, old: dict[str, Any], new: dict[str, Any], moves: list[str]
) -> tuple[Any, str]:
    """The number in the other convention, and the formula."""

    def need(name: str, context: dict[str, Any], why: str) -> Any:
        if all(context[choice] is None for choice in name.split("|")):
            raise ValueError(f"{name.split('|')[0]} is missing: {why}. Give {name.replace('|', ' or ')}.")
        return context[name.split("|")[0]]

    for convention, context in ((start, old), (end, new)):
        for name in convention.form.needs:
            text = convention.form.backward_text.format(x="r" if convention.kind == "independent" else "c")
            need(name, context, f"{convention.name} has {convention.parameter} = {text.split(' = ')[-1]}")
    number = start.form.forward(value, old)
    text = start.form.forward_text.format(x=start.parameter)
    before, after = start.kind in _PER_RATE, end.kind in _PER_RATE
    both = before and after and "learning_rate" not in moves
    if before and not both:
        why = f"{start.name} decays a share a step and learning rate"
        number, text = number * need("learning_rate", old, why), f"{text} * learning_rate"
    for name in moves:
        if name == "learning_rate":
            continue
        need(name, old, f"new_{name} is a move from it")
        shares, written = (new[name], old[name]), (f"new_{name}", name)
        if name != "batch_size":
            shares, written = shares[::-1], written[::-1]
        number, text = number * (shares[0] / shares[1]), f"{text} * {written[0]} / {written[1]}"
    renamed = {name: f"new_{name}" if name in moves else name for name in new}
    if after and not both:
        why = f"{end.name} decays a share a step and learning rate"
        number = number / need("learning_rate", new, why)
        text = f"{text} / {renamed['learning_rate']}"
    last = end.form.backward_text
    for name, other in renamed.items():
        last = re.sub(rf"\b{name}\b", other, last)
    number = end.form.backward(number, new)
    if end.kind == "elastic_net":
        return number, f"{text}; {last}"
    return number, f"{end.parameter} = {last.format(x=text)}"
