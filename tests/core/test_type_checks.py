"""The type checks of the tests themselves: a check that is made once refuses what beartype refuses each time."""

import jax.numpy as jnp
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Array, Float, TypeCheckError, jaxtyped

from type_checks import checked


def inner(annotation, result):
    """A function made anew in each call, as the library has them."""

    @jaxtyped(typechecker=checked)
    def function(value: annotation, factor: int = 2) -> annotation:
        return result

    return function


def test_check_of_a_function_made_twice_refuses_arguments_and_results():
    vector = jnp.ones(2)
    for _ in range(2):
        assert inner(Float[Array, "a"], vector)(vector) is vector
        with pytest.raises(TypeCheckError, match="parameters"):
            inner(Float[Array, "a"], vector)("text")
        with pytest.raises(TypeCheckError, match="parameters"):
            inner(Float[Array, "a"], vector)(vector, factor="text")
        with pytest.raises(TypeCheckError, match="return value"):
            inner(Float[Array, "a"], jnp.ones(3))(vector)  # the sizes of one call agree


def test_checks_of_one_name_and_several_annotations_are_several():
    assert inner(int, 1)(1) == 1
    assert inner(str, "a")("a") == "a"
    for annotation, result, refused in ((int, 1, "a"), (str, "a", 1)):
        with pytest.raises(TypeCheckError):
            inner(annotation, result)(refused)


def test_check_is_made_once_for_functions_of_one_signature_alone():
    def function(default):
        def made(value: int, other: object = default, *, third: object = default):
            pass

        return made

    assert checked(function(1)) is checked(function(1))
    assert len({checked(function(default)) for default in (1, True, 1.0, None)}) == 4
    with pytest.raises(BeartypeCallHintViolation):
        checked(function(1))("text")


def test_functions_that_may_differ_are_checked_by_themselves():
    def closure(number):
        def made(value: int):
            return number

        return made

    assert [checked(closure(number))(0) for number in (1, 2)] == [1, 2]

    def unhashable():
        def made(value: list = []):  # noqa: B006
            return value

        return made

    first, second = checked(unhashable()), checked(unhashable())
    assert first is not second
    assert first() is not second()
