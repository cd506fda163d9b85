"""The table of conventions: what this library, torch, optax, Keras, scikit-learn and papers mean by a coefficient.

Each convention is one row of `TABLE`. A row states how its number is computed from the common number of its kind. The
kinds are: c of a penalty that is added to the mean data loss; c of decoupled decay (the fraction of the weights that is
removed per step and unit of learning rate); r of independent decay (the fraction that is removed per step).

`describe` prints the table, `find` looks a row up by name, and `weightdecay.decay.convert` converts from one row to
another. To add a convention, add a row; everything else is derived from it.
"""

import math
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

from weightdecay.core.checks import ArgumentError, ArgumentTypeError


class Form(NamedTuple):
    """Conversion between the number of a convention and the common number of its kind, in both directions."""

    forward: Callable[[Any, dict[str, Any]], Any]
    backward: Callable[[Any, dict[str, Any]], Any]
    forward_text: str  # {x} is the number; only products and quotients, so that texts nest without brackets
    backward_text: str
    needs: tuple[str, ...] = ()  # names of the training run's numbers; "a|b" means that one of the two is enough
    is_reciprocal: bool = False


class Convention(NamedTuple):
    """One row of the table."""

    name: str
    kind: str
    parameter: str
    form: Form
    optimizer: str | None = None


def reciprocal(value: Any) -> Any:
    """Return 1 / value; infinity for a float of 0."""
    return math.inf if isinstance(value, float) and value == 0 else 1 / value


def _scaled(scale: Callable[[dict[str, Any]], Any], text: str, *needs: str) -> Form:
    """``number = common * scale``."""
    return Form(lambda x, k: x / scale(k), lambda x, k: x * scale(k), f"{{x}} / {text}", f"{{x}} * {text}", needs)


def _inverse(scale: Callable[[dict[str, Any]], Any], text: str, *needs: str) -> Form:
    """``number = 1 / (common * scale)``."""
    both, written = (lambda x, k: reciprocal(x * scale(k))), f"1 / ({{x}}{text})"
    return Form(both, both, written if text else "1 / {x}", written, needs, is_reciprocal=True)


def _ratio(c1: Any, c2: Any) -> Any:
    total = c1 + c2
    return c1 / (total + (total == 0))  # 0 where both are 0, for tracers too


_SAME = Form(lambda x, _: x, lambda x, _: x, "{x}", "{x}")
_HALF = Form(lambda x, _: 2 * x, lambda x, _: x / 2, "2 * {x}", "{x} / 2")
_PAIR = _SAME._replace(
    forward_text="(c1, c2) = (l1_coefficient, l2_coefficient)",
    backward_text="(l1_coefficient, l2_coefficient) = (c1, c2)",
)
_L1L2 = Form(
    lambda x, _: (x[0], 2 * x[1]), lambda x, _: (x[0], x[1] / 2), "(c1, c2) = (l1, 2 * l2)", "(l1, l2) = (c1, c2 / 2)"
)
_ALPHA_RATIO = Form(
    lambda x, _: (x[0] * x[1], x[0] * (1 - x[1])),
    lambda x, _: (x[0] + x[1], _ratio(*x)),
    "(c1, c2) = (alpha * l1_ratio, alpha * (1 - l1_ratio))",
    "(alpha, l1_ratio) = (c1 + c2, c1 / (c1 + c2))",
)
_C_RATIO = Form(
    lambda x, k: tuple(reciprocal(x[0] * k["num_examples"]) * fraction for fraction in (x[1], 1 - x[1])),
    lambda x, k: (reciprocal((x[0] + x[1]) * k["num_examples"]), _ratio(*x)),
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
_PALM = Form(
    lambda x, k: x * k["learning_rate"],
    lambda x, k: x / k["learning_rate"],
    "{x} * learning_rate",
    "{x} / learning_rate",
    ("learning_rate",),
)
_WIDTH = Form(
    lambda x, k: x * (768 / k["width"]) ** 2,
    lambda x, k: x / (768 / k["width"]) ** 2,
    "{x} * 768 / width * 768 / width",
    "{x} / 768 * width / 768 * width",
    ("width",),
)
_ROOT = _scaled(lambda k: k["num_steps"] ** 0.5, "sqrt(num_steps)", "num_steps")


def _rows(kind: str, parameter: str, form: Form, *names: str, optimizers: bool = False) -> list[Convention]:
    def optimizer(name: str) -> str | None:
        if not optimizers:
            return None
        library, end = name.lower().split(".")
        return end.removesuffix("c") if library == "timm" else end.removesuffix("w").removeprefix("decoupled")

    return [Convention(name, kind, parameter, form, optimizer(name)) for name in names]


KERAS_OPTIMIZERS = ("SGD", "Adam", "AdamW", "Nadam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Lion")
TIMM_CORRECTED = ("adamc", "nadamc", "sgdc", "lambc", "lionc")
"""Optimizers of timm's ``create_optimizer_v2`` with corrected decay, by name."""
COMPOSER_OPTIMIZERS = ("composer.DecoupledSGDW", "composer.DecoupledAdamW")
_L1_AND_L2 = "(l1_coefficient, l2_coefficient)"
TABLE = [
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
    *_rows("decoupled", "weight_decay", _SAME, "optax.lion", optimizers=True),
    *_rows("decoupled", "weight_decay", _SAME, *(f"keras.{name}" for name in KERAS_OPTIMIZERS), optimizers=True),
    *_rows("decoupled", "weight_decay", _SAME, *(f"timm.{name}" for name in TIMM_CORRECTED), optimizers=True),
    *_rows("decoupled", "weight_decay", _PALM, "emerging_optimizers.palm"),
    *_rows("decoupled", "weight_decay", _WIDTH, "nanochat"),
    *_rows("independent", "coefficient", _SAME, "Independent"),
    *_rows("independent", "weight_decay", _SAME, *COMPOSER_OPTIMIZERS, optimizers=True),
    *_rows("independent", "weight_decay", _SAME, "optimi.decouple_lr"),
    *_rows("independent", "wd", _SAME, "big_vision"),
    *_rows("independent", "weight_decay", _SAME, "emerging_optimizers.independent"),
    *_rows("independent", "weight_decay", _SAME, "pytorch_optimizer.fixed_decay"),
    *_rows("independent", "weight_decay", _SAME, "loshchilov_hutter"),
    *_rows("independent", "normalized_weight_decay", _ROOT, "loshchilov_hutter.normalized"),
    *_rows("independent", "weight_decay_rate", _SAME, "optax.adafactor", optimizers=True),
    *_rows("independent", "steps", _STEPS, "time_scale.steps"),
    *_rows("independent", "epochs", _EPOCHS, "time_scale.epochs"),
]
"""Every convention."""

_PRECONDITIONED = "divides the gradient of the penalty by its preconditioner, which does not change the minimizer"
_NOTES = {  # by the start of a name; the longest one that fits applies
    "Proximal": "a proximal rule has the same minimizer as the gradient of the penalty, and takes other steps",
    "torch.Adam": f"Adam {_PRECONDITIONED}",
    "torch.RMSprop": f"RMSprop {_PRECONDITIONED}",
    "torch.AdamW": "",
    "optax.add_decayed_weights": "add_decayed_weights comes before the optimizer in the chain; after it, its number is "
    "the one of adamw",
    "sklearn": "the data loss of scikit-learn is half the mean squared error; with the full mean squared error "
    "(squared_error here, MSELoss in torch, mse in Keras) the same minimizer has twice the c",
    "sklearn.Log": "",
    "sklearn.MLP": "scikit-learn divides alpha by the number of examples in the batch, min(200, num_examples) unless "
    "set; with solver lbfgs, and here where batch_size is not given, that is num_examples; its squared error carries "
    "1/2",
    "Corrected": "Corrected and Decoupled differ where a schedule changes the learning rate",
    "keras": "weight_decay of every Keras optimizer is decoupled, also of keras.SGD",
    "keras.L": "",
    "keras.Lion": "weight_decay of every Keras optimizer is decoupled",
    "timm": "weight_decay is multiplied by learning_rate² / peak learning_rate, as Corrected does; the peak is the "
    "learning rate with which the optimizer is made",
    "composer": "the decay follows the schedule, learning_rate / initial learning_rate, as Independent does",
    "optimi": "with decouple_lr=True the decay follows the schedule, learning_rate / max_lr, as Independent does",
    "big_vision": "the decay follows the schedule, whose largest value is 1, as Independent does",
    "emerging_optimizers.independent": "this decay does not follow the learning-rate schedule",
    "emerging_optimizers.palm": "a step removes weight_decay * learning_rate², under a schedule as Corrected does",
    "pytorch_optimizer": "with fixed_decay=True the decay does not follow the learning-rate schedule",
    "nanochat": "weight_decay is that of 768 channels (depth 12) and falls with the square of the width, as in the "
    "version of early 2026; there the decay also falls to 0 over the run",
    "optax.adafactor": "the decay of adafactor depends neither on the learning rate nor on its schedule",
}


class Kind(NamedTuple):
    """A kind of number: its formula, what a conversion between two of its conventions keeps, and the literature."""

    heading: str
    keeps: str
    reference: str


_OBJECTIVE = "the penalty that is added to the mean data loss, and so the minimizer"
_FRACTION = "the fraction of the weights that a step removes"
_DECOUPLED = "Loshchilov & Hutter 2019, arXiv 1711.05101"
KINDS = {
    "l2": Kind("L2 penalty: mean loss + c |w|²/2", _OBJECTIVE, "Krogh & Hertz 1992"),
    "l1": Kind("L1 penalty: mean loss + c |w|₁", _OBJECTIVE, "Tibshirani 1996"),
    "elastic_net": Kind("elastic net: mean loss + c1 |w|₁ + c2 |w|²/2", _OBJECTIVE, "Zou & Hastie 2005"),
    "decoupled": Kind("decoupled decay: w <- (1 - learning_rate * c) w in addition to the step", _FRACTION, _DECOUPLED),
    "independent": Kind(
        "independent decay: r = peak learning_rate * c, the fraction removed per step", _FRACTION, _DECOUPLED
    ),
}

_LIBRARIES = {
    "keras": ("keras", "tf.keras", "tensorflow.keras"),
    "composer": ("composer",),
    "emerging_optimizers": ("emergingoptimizers",),
    "optax": ("optax",),
    "optimi": ("optimi",),
    "pytorch_optimizer": ("pytorchoptimizer",),
    "sklearn": ("sklearn", "scikitlearn"),
    "timm": ("timm",),
    "torch": ("torch", "pytorch"),
    "": ("", "weightdecay", "wd"),
}
"""Every spelling of a library, by its name in the table; "" is this library."""
_MODULES = {
    "composer": ("optim",),
    "emerging_optimizers": (),
    "keras": ("regularizers", "optimizers"),
    "optax": (),
    "optimi": (),
    "pytorch_optimizer": (),
    "sklearn": ("linearmodel", "neuralnetwork"),
    "timm": ("optim",),
    "torch": ("optim",),
    "": ("decay",),
}
"""Modules of a library that may precede a name."""
_SUGGESTS = {
    "tf": "keras",
    "tensorflow": "keras",
    **{module: library for library, modules in _MODULES.items() for module in modules if library},
    **{spelling: library for library, spellings in _LIBRARIES.items() for spelling in spellings if library},
}
"""Libraries that a part of a prefix suggests."""


def describe() -> str:
    """Table of the conventions: how the common number of a kind is computed from each of them.

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
    for kind, (heading, *_) in KINDS.items():
        rows: dict[str, list[str]] = {}
        for convention in TABLE:
            if convention.kind == kind:
                text = convention.form.forward_text.format(x=convention.parameter)
                common = {"elastic_net": "", "independent": "r = "}.get(kind, "c = ")
                rows.setdefault(common + text, []).append(convention.name)
        width = max(map(len, rows))
        lines += [heading, *(f"  {text:<{width}}  {', '.join(names)}" for text, names in rows.items()), ""]
    return "\n".join(lines).rstrip()


def find(name: str, *, argument: str) -> Convention:
    """Look up a convention by its name.

    Case, underscores and hyphens do not matter. The name of a library may be spelled as its users spell it
    (``tf.keras``, ``pytorch``, ``scikit-learn``), with the module that holds the name: ``torch.optim.AdamW``. Every
    other prefix is an error, because it may belong to a convention with another number.

    Args:
      name: Name of the convention.
      argument: Name of the argument, for the message.

    Returns:
      The row of the table.

    Raises:
      ArgumentTypeError: Not a string.
      ArgumentError: Unknown; the message suggests names and lists all of them.

    Examples:
      >>> find("tf.keras.regularizers.L2", argument="source").name
      'keras.L2'
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(
            argument,
            f"{argument} is {name!r}, of type {type(name).__name__}; give the name of a convention, such as "
            "'torch.SGD'.",
        )
    written = _plain(name)
    convention = _BY_SPELLING.get(written)
    if convention is None:
        likely = _likely(written)
        suggestion = f" Did you mean {' or '.join(map(repr, likely))}?" if likely else ""
        raise ArgumentError(
            argument,
            f"{argument} is {name!r}, which is not a known convention.{suggestion} The conventions are: "
            f"{', '.join(convention.name for convention in TABLE)}.",
        )
    return convention


def note(name: str) -> str:
    """What a user needs to know about a convention in addition to its formula; possibly empty.

    Args:
      name: Name of the convention.

    Returns:
      The note, without a full stop.
    """
    return _NOTES.get(max((start for start in _NOTES if name.startswith(start)), key=len, default=""), "")


def _plain(name: str) -> str:
    return re.sub(r"[_\-\s]", "", name.lower())


def _spellings(convention: Convention) -> list[str]:
    """Every name under which a convention is found, without case and underscores."""
    library, _, rest = convention.name.partition(".")
    if library not in _LIBRARIES:
        if convention.parameter not in ("coefficient", _L1_AND_L2):  # papers, programs and time scales
            return [_plain(convention.name)]
        library, rest = "", convention.name
    ends = [_plain(rest)]
    if convention.name == "sklearn.MLP":
        ends += ["mlpregressor", "mlpclassifier"]
    prefixes = [
        f"{spelling}.{module}".strip(".") for spelling in _LIBRARIES[library] for module in ("", *_MODULES[library])
    ]
    return [f"{prefix}.{end}".strip(".") for prefix in prefixes for end in ends]


_BY_SPELLING = {spelling: convention for convention in TABLE for spelling in _spellings(convention)}


def _likely(written: str) -> list[str]:
    """Names of conventions that a misspelled name may mean."""
    *prefixes, end = written.split(".")
    library = next((_SUGGESTS[prefix] for prefix in prefixes if prefix in _SUGGESTS), None)
    same_end = [convention.name for convention in TABLE if end and end in _plain(convention.name).split(".")]
    of_library = [name for name in same_end if name.partition(".")[0] == library]
    if of_library or same_end:
        return of_library or same_end
    names = {_plain(convention.name): convention.name for convention in TABLE}
    return [names[close] for close in get_close_matches(written, names, n=3)]
