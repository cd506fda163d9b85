"""What an array of the weights is: a kernel, a bias, a scale, an embedding, a position table, or not a weight.

The classes of equinox's layers decide where the weights are a module of equinox. Otherwise the name of the array does,
with the names next to it: flax names its arrays after what they are, and some names are in common use (``cls_token``,
``pos_embed``, ``A_log``). To teach it another library, add its classes to `LAYER_CLASSES`, or its names to the
expressions below.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay.core.types import Params

KERNEL, BIAS, SCALE, EMBEDDING, POSITION, BUFFER = "kernel", "bias", "scale", "embedding", "position", "buffer"
"""Kinds of arrays. A scale multiplies single features; the kind includes the parameters of state-space models. Position
tables and learned tokens are of the kind `POSITION`. A buffer is not a weight."""


class Leaf(NamedTuple):
    """An array with its place in the tree."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    is_float: bool
    owners: tuple[Any, ...]  # the nodes of the tree that contain it, from the outermost
    has_name: bool

    @classmethod
    def of(cls, params: Params, path: tuple[Any, ...], name: str, leaf: Any) -> "Leaf":
        """Return the leaf of ``params`` with a key path and a name."""
        keys, shape = tuple(name.split("/")), tuple(np.shape(leaf))
        return cls(keys, shape, _is_float(leaf), _owners(params, path), bool(name))

    @property
    def layer(self) -> str:
        """Name of the container of the array."""
        return self.keys[-2] if len(self.keys) > 1 else ""


def _is_float(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return isinstance(leaf, float) if dtype is None else jnp.issubdtype(dtype, np.inexact)


def _owners(params: Params, path: tuple[Any, ...]) -> tuple[Any, ...]:
    node, owners = params, [params]
    for key in path[:-1]:
        try:
            if isinstance(key, jax.tree_util.GetAttrKey):
                node = getattr(node, key.name)
            else:
                node = node[getattr(key, "key", getattr(key, "idx", None))]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
        owners.append(node)
    return tuple(owners)


# Names of arrays. Underscores separate the parts of a name: "pos_embed" has the parts "pos" and "embed".
_NOT_A_KERNEL = re.compile(r"(?:^|_)(?P<kind>bias|scale|embedding)$")  # flax, whatever comes before
_POSITION = re.compile(
    r"(?:^|_)(?:(?:wpe|cls|tokens?)\d*"
    r"|(?:pos|positions?|positional)(?:_(?:emb|embeds?|embeddings?|enc|encodings?|codes?|table|h|w|x|y|t))?\d*)$",
    re.IGNORECASE,
)
_EMBEDDING = re.compile(r"(?:^|_)(?:emb|embeds?|embeddings?|wte)\d*$", re.IGNORECASE)
_SCALE = re.compile(r"(?:^|_)(?:gamma|slopes?|layer_?scale|ls)_?\d*$", re.IGNORECASE)
_STATE_SPACE = frozenset(
    "A_log A_logs log_A A_real A_imag log_A_real dt_bias log_dt inv_dt log_step Lambda_re Lambda_im log_lambda nu_log "
    "theta_log gamma_log".split()
)
_WITH_STATE_SPACE = frozenset("A B C D Ds dt Lambda".split())
"""Names that may be anything, unless an array of a state-space model is next to them."""
_EMBEDDING_LAYER = re.compile(r"(?:^|_)(?:emb|embed|embeddings?|wte|wpe)\d*$", re.IGNORECASE)
_NORMALIZATION_LAYER = re.compile(
    r"(?:^|_)(?:ln|bn|gn|(?:layer|batch|group|instance|rms)?_?norm)(?:_?\d+|_[a-z])?$", re.IGNORECASE
)
_NORMALIZATION_CLASS = re.compile(r"(?<!Weight)(?<!Spectral)Norm(?:alization)?(?:\d|_|$)")


def kind_of(leaf: Leaf, siblings: Mapping[tuple[str, ...], Leaf]) -> str:
    """Kind of an array."""
    if not leaf.has_name:
        return KERNEL  # a bare array in place of a tree
    if not leaf.is_float or _is_buffer(leaf):
        return BUFFER
    known = _class_kind(leaf)
    if known is not None:
        return known
    return _name_kind(leaf, siblings)


def _is_buffer(leaf: Leaf) -> bool:
    """Whether a library keeps the array as a variable that is not a weight."""
    for owner in leaf.owners:
        if "StateIndex" in _class_names(owner, "equinox"):
            return True
        names = _class_names(owner, "flax")
        if "Variable" in names and "Param" not in names:
            return True
    return False


def _class_names(node: Any, library: str) -> list[str]:
    """Names of the classes of a library that a node is an instance of, the narrowest first."""
    return [cls.__name__ for cls in type(node).__mro__ if cls.__module__.partition(".")[0] == library]


class LayerClass(NamedTuple):
    """A class of equinox: kind of its arrays, and the number of axes that one array has."""

    kind: str
    num_axes: Callable[[Any], int]
    names: tuple[str, ...] = ("weight",)


LAYER_CLASSES = {
    "Linear": LayerClass(KERNEL, lambda layer: 2),
    "Conv": LayerClass(KERNEL, lambda layer: layer.num_spatial_dims + 2),
    "ConvTranspose": LayerClass(KERNEL, lambda layer: layer.num_spatial_dims + 2),
    "GRUCell": LayerClass(KERNEL, lambda layer: 2, ("weight_ih", "weight_hh")),
    "LSTMCell": LayerClass(KERNEL, lambda layer: 2, ("weight_ih", "weight_hh")),
    "Embedding": LayerClass(EMBEDDING, lambda layer: 2),
    "LayerNorm": LayerClass(SCALE, lambda layer: len(layer.shape)),
    "RMSNorm": LayerClass(SCALE, lambda layer: len(layer.shape)),
    "GroupNorm": LayerClass(SCALE, lambda layer: 1),
    "BatchNorm": LayerClass(SCALE, lambda layer: 1),
    "PReLU": LayerClass(SCALE, lambda layer: 0, ("negative_slope",)),
    "WeightNorm": LayerClass(SCALE, lambda layer: 2, ("g",)),
}
"""Layers of equinox. Their kernels are ``(outputs, inputs, ...)``."""


def layer_class(leaf: Leaf) -> tuple[LayerClass, Any] | None:
    """Class of the layer that owns an array, and the layer."""
    owner = leaf.owners[-1] if leaf.owners else None
    for name in _class_names(owner, "equinox"):
        known = LAYER_CLASSES.get(name)
        if known is not None:
            return (known, owner) if leaf.keys[-1] in known.names else None
    return None


def _class_kind(leaf: Leaf) -> str | None:
    known = layer_class(leaf)
    if known is not None:
        return known[0].kind
    owner = leaf.owners[-1] if leaf.owners else None
    if _class_names(owner, "equinox"):  # a layer of the user's own, or an array of the library's that is not a kernel
        if leaf.keys[-1].startswith("bias"):
            return BIAS
        if _NORMALIZATION_CLASS.search(type(owner).__name__):
            return SCALE
    return None


def _name_kind(leaf: Leaf, siblings: Mapping[tuple[str, ...], Leaf]) -> str:
    *container, name = leaf.keys
    match = _NOT_A_KERNEL.search(name)
    if match:
        kind = {"bias": BIAS, "scale": SCALE, "embedding": EMBEDDING}[match["kind"]]
        return POSITION if kind == EMBEDDING and _POSITION.search(name) else kind
    if name in _STATE_SPACE or _SCALE.search(name):
        return SCALE
    if name in _WITH_STATE_SPACE and any((*container, other) in siblings for other in _STATE_SPACE):
        return SCALE
    if _POSITION.search(name):
        return POSITION
    if _EMBEDDING.search(name):
        return EMBEDDING
    if name in ("weight", "w"):
        bias = bias_shape(leaf, siblings)
        if _NORMALIZATION_LAYER.search(leaf.layer) and bias in (None, leaf.shape):
            return SCALE
        if name == "weight" and _EMBEDDING_LAYER.search(leaf.layer) and "patch" not in leaf.layer and bias is None:
            return POSITION if _POSITION.search(leaf.layer) else EMBEDDING
    return KERNEL


def bias_shape(leaf: Leaf, siblings: Mapping[tuple[str, ...], Leaf]) -> tuple[int, ...] | None:
    """Shape of the bias of a kernel; None = there is none."""
    *container, name = leaf.keys
    candidates = {
        "kernel": ("bias",),
        "weight": ("bias",),
        "w": ("b", "bias"),
        "W": ("b", "bias"),
    }.get(name, ())
    if name.endswith(("_kernel", "_weight")):
        candidates = (f"{name.rpartition('_')[0]}_bias",)
    elif re.fullmatch(r"[wW]\d+|[wW]_\w+", name):
        candidates = (f"b{name[1:]}",)
    for candidate in candidates:
        if (*container, candidate) in siblings:
            return siblings[(*container, candidate)].shape
    return None
