"""The checks of argument and return types that beartype puts around the functions of the library, each made once.

jaxtyping decorates a function each time its ``def`` is executed: a function inside another one hundreds of times in a
fit. Making a check takes milliseconds, a fifth of the time of the tests, and depends on the signature alone.
"""

from types import FunctionType

import beartype

_made = {}


def checked(function):
    """`beartype.beartype`, which makes one check for all functions that have the same signature and the same name."""
    key = _key(function)
    try:
        return _made[key]
    except KeyError:
        return _made.setdefault(key, beartype.beartype(function))
    except TypeError:  # something in it cannot be hashed
        return beartype.beartype(function)


def _key(function):
    """Everything that the check of a function depends on, where its body does nothing but return an argument.

    jaxtyping makes such functions out of a signature. Values that are equal, such as 1 and True, differ in their types.
    """
    if type(function) is not FunctionType or function.__closure__ is not None:
        return [function]  # which cannot be hashed
    code = function.__code__
    defaults = *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()
    return (
        (function.__module__, function.__qualname__, code.co_code, code.co_consts, code.co_flags),
        (code.co_varnames, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        tuple(function.__annotations__.items()),
        tuple((type(default), default) for default in defaults),
    )
