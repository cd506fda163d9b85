"""Unknown names and keyword arguments are answered with the name that is meant."""

import inspect

import pytest

import weightdecay as wd
from weightdecay.core.names import suggest_keywords
from weightdecay.core.text import suggestion


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamw", r"no attribute 'adamw'; wd.adam\(1e-3, wd.Decoupled\(0.01\)\) is AdamW"),
        ("AdamW", r"wd.adam\(1e-3, wd.Decoupled\(0.01\)\) is AdamW"),
        ("Decopled", "Did you mean 'Decoupled'"),
        ("fitgrid", "Did you mean 'fit_grid'"),
        ("logspce", "Did you mean 'logspace'"),
    ],
)
def test_package_suggests_the_name_that_is_meant(name, message):
    with pytest.raises(AttributeError, match=message):
        getattr(wd, name)


def test_package_suggests_nothing_where_nothing_is_close():
    with pytest.raises(AttributeError, match=r"^module 'weightdecay' has no attribute 'cucumber'$"):
        _ = wd.cucumber
    assert not hasattr(wd, "__wrapped__")


@pytest.mark.parametrize("function", [wd.fit_grid, wd.plan])
@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("epochs", "Did you mean 'num_steps'. It counts updates: epochs . training examples / batch_size"),
        ("batchsize", "Did you mean 'batch_size'"),
        ("los", "Did you mean 'loss'"),
    ],
)
def test_training_suggests_the_keyword_that_is_meant(function, keyword, message):
    with pytest.raises(TypeError, match=rf"\(\) got an unexpected keyword argument '{keyword}'. {message}"):
        function(None, None, None, **{keyword: 3})


def test_suggest_keywords_keeps_signature_and_other_errors():
    @suggest_keywords
    def called(first, *, second=2):
        """Say what it got."""
        return first, second

    assert called(1, second=3) == (1, 3)
    assert str(inspect.signature(called)) == "(first, *, second=2)"
    assert called.__doc__ == "Say what it got."
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'first'"):
        called()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lr", "learning_rate"), ("LR", "learning_rate"), ("droput_rate", "dropout_rate"), ("weight_decay", "decay")],
)
def test_suggestion_knows_abbreviations_and_misspellings(name, meant):
    assert suggestion(name, ["dropout_rate", "decay", "learning_rate", "seed"]) == f" Did you mean {meant!r}?"
    assert suggestion(name, ["cucumber"]) == ""


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"lr": 0.1}, "grid has no axis learning_rate; .* Did you mean 'learning_rate' by 'lr'"),
        (
            {"learning_rate": 0.1, "droput_rate": 0.1},
            "axis 'droput_rate', which nobody takes. Did you mean 'dropout_rate'",
        ),
    ],
)
def test_training_suggests_the_axis_that_is_meant(axes, message):
    grid = wd.Grid(decay=wd.L2(0.1), **axes)
    model, data = wd.models.MLP((2,)), wd.data.digits(num_train=20)
    with pytest.raises(ValueError, match=message) as raised:
        wd.fit_grid(model, data, grid, num_steps=1, batch_size=10, progress=False)
    assert "MLP(" not in str(raised.value)


def test_errors_do_not_show_a_whole_model_before_the_advice():
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(64, 64, rngs=rngs) for _ in range(3)])

    grid, data = wd.Grid(decay=wd.L2(0.1), learning_rate=0.1), wd.data.digits(num_train=20)
    with pytest.raises(TypeError, match="it has weights already") as raised:
        wd.fit_grid(Network(nnx.Rngs(0)), data, grid, num_steps=1, batch_size=10, progress=False)
    assert str(raised.value).index("it has weights already") < 150
