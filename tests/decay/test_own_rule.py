"""A user's own rule of decay, defined in the user's own script: what it must be, and where it works."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import compare
import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import masks, registry, theory
from weightdecay.plots import axis_labels

PARAMS = {
    "Dense_0": {"kernel": np.random.default_rng(0).normal(size=(3, 4)), "bias": np.ones(4)},
    "Dense_1": {"kernel": np.random.default_rng(1).normal(size=(4, 2)), "bias": np.ones(2)},
}


def define_easing():
    """A rule with a state: the strength rises from 0 to the coefficient, ``λ <- λ + rate (c - λ), w <- w - η λ w``."""

    @decay.rule
    class Easing(decay.Rule):
        """Decay that sets in slowly.

        ``λ <- λ + r (c - λ), then w <- (1 - η λ) w - η u``
        """

        coefficient: float = decay.with_unit("1 / (step · learning rate)")
        rate: float = decay.with_unit("1 / step", default=0.25)

        def initial(self, weight):
            return jnp.zeros((), jnp.promote_types(jnp.float32, weight.dtype))

        def shrink(self, step, state):
            state = (state + self.rate * (self.coefficient - state)).astype(state.dtype)
            return step.learning_rate * state * step.weight, state

        def penalty(self, weight, state):
            return self.coefficient * jnp.sum(weight**2) / 2

    return Easing


def define_pull(strength=1.0):
    """A rule without a state, of one coefficient: decoupled decay, times a factor of its code."""

    @decay.rule
    class Pull(decay.Rule):
        coefficient: float

        def shrink(self, step, state):
            return strength * step.learning_rate * self.coefficient * step.weight, state

        def removed_fraction(self, learning_rate, scale, momentum):
            return strength * learning_rate * self.coefficient

    return Pull


def train(transform, params, num_steps, gradient_fn):
    """Weights after some steps, one operation at a time."""
    state = transform.init(params)
    for _ in range(num_steps):
        updates, state = transform.update(gradient_fn(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def params_of(dtype=None):
    """Fresh weights."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), PARAMS)


# What the decorator makes.


def test_rule_makes_a_frozen_pytree_of_the_coefficients():
    kind = define_easing()
    easing = kind(0.1)
    assert jax.tree.leaves(easing) == [0.1, 0.25]
    assert jax.tree.structure(easing) == jax.tree.structure(kind(0.2))
    assert easing.coefficients() == {"coefficient": 0.1, "rate": 0.25}
    assert (str(easing), str(kind(0.1, 0.5)), easing.name) == ("Easing(0.1)", "Easing(0.1, 0.5)", "Easing")
    with pytest.raises(dataclasses.FrozenInstanceError):
        easing.coefficient = 1.0


def test_rule_is_kept_apart_from_the_rules_of_the_library():
    kind = define_easing()
    assert "Easing" not in decay.KINDS
    assert registry.named("Easing") is kind
    assert decay.table(registry.USER_KINDS).splitlines()[2:] == [
        "| `Easing` | `λ <- λ + r (c - λ), then w <- (1 - η λ) w - η u` | 1 / (step · learning rate), 1 / step |  |"
    ]


def test_rule_that_is_defined_again_replaces_the_earlier_one():
    earlier = define_pull()(0.1)
    later = define_pull(2.0)
    assert registry.named("Pull") is later
    assert jax.tree.structure(earlier) != jax.tree.structure(later(0.1))
    with pytest.raises(TypeError, match=r"Pull\(0\.1\) was made from an earlier definition of the class Pull; make it"):
        wd.Grid(decay=earlier)
    assert len(wd.Grid(decay=later(0.1))) == 1


@pytest.mark.usefixtures("without_beartype")
def test_rule_refuses_what_is_not_a_subclass_of_rule():
    class Base:
        coefficient: float

    with pytest.raises(
        TypeError, match=r"Base is not a subclass of wd\.decay\.Rule; write class Base\(wd\.decay\.Rule"
    ):
        decay.rule(Base)
    with pytest.raises(TypeError, match=r"decorates a class, and this is 3, of type int"):
        decay.rule(3)


@pytest.mark.parametrize("name", ["L2", "Terms", "Masked", "Rule"])
def test_rule_refuses_the_name_of_a_class_of_the_library(name):
    cls = type(
        name, (decay.Rule,), {"__annotations__": {"c": float}, "shrink": lambda self, step, state: (None, state)}
    )
    with pytest.raises(ValueError, match=rf"{name} is the name of a class of weightdecay; give your rule another name"):
        decay.rule(cls)
    assert registry.KINDS["L2"] is wd.L2


@pytest.mark.parametrize("field", ["name", "penalty", "learning_rate", "seed", "rule", "list", "units"])
def test_rule_refuses_a_field_whose_name_means_something_else(field):
    cls = type(
        "Odd", (decay.Rule,), {"__annotations__": {field: float}, "shrink": lambda self, step, state: (0, state)}
    )
    with pytest.raises(ValueError, match=rf"Odd has a field '{field}', which .*; give the field another name"):
        decay.rule(cls)


def test_rule_refuses_a_class_without_a_hook_and_hooks_with_other_parameters():
    with pytest.raises(
        TypeError, match=r"Idle does nothing to the weights; define at least one of .* couple, shrink, mo"
    ):

        @decay.rule
        class Idle(decay.Rule):
            coefficient: float

    with pytest.raises(
        TypeError, match=r"Short\.shrink must take \(self, step, state\); write def shrink\(self, step, st"
    ):

        @decay.rule
        class Short(decay.Rule):
            coefficient: float

            def shrink(self, step):
                return step.weight


def test_rule_refuses_to_override_a_hook_of_an_elementwise_rule():
    with pytest.raises(
        TypeError, match=r"Twice overrides shrink of an elementwise rule.*derive your rule from wd\.decay"
    ):

        @decay.rule
        class Twice(wd.Decoupled):
            def shrink(self, step, state):
                return 2 * step.weight, state


def test_rule_without_its_decorator_is_named():
    class Bare(decay.Rule):
        coefficient: float

    with pytest.raises(TypeError, match=r"Bare is not a rule yet: write @wd\.decay\.rule above the class"):
        Bare(0.1)
    with pytest.raises(TypeError, match=r"decay is of the class Bare, which lacks its decorator"):
        wd.sgd(0.1, Bare())

    class Derived(wd.L2):
        pass

    with pytest.raises(TypeError, match=r"decay is of the class Derived, which lacks its decorator"):
        wd.sgd(0.1, Derived(0.1))


@pytest.mark.usefixtures("without_beartype")
def test_check_covers_a_rule_of_ones_own():
    pull = define_pull()
    with pytest.raises(
        ValueError, match=r"decay = Pull\(-1\): coefficient is -1; a coefficient is a finite number >= 0"
    ):
        wd.sgd(0.1, pull(-1))
    with pytest.raises(TypeError, match=r"decay is the class Pull without a coefficient; write Pull\(0\.01\)\."):
        wd.sgd(0.1, pull)
    with pytest.raises(TypeError, match=r"is not a decay rule; give one of: NoDecay, .*, RadialBrake, Pull, for"):
        wd.sgd(0.1, "Pull")

    @decay.rule
    class Rows(decay.Rule):
        coefficient: float
        which: str = dataclasses.field(default="rows", metadata={"static": True})

        def shrink(self, step, state):
            return None, state

        def check(self):
            if self.which not in ("rows", "columns"):
                raise ValueError(f"which is {self.which!r}; give 'rows' or 'columns'.")

    with pytest.raises(ValueError, match=r"decay = Rows\(0\.1, row\): which is 'row'; give 'rows' or 'columns'\."):
        wd.sgd(0.1, Rows(0.1, "row"))


@pytest.mark.parametrize(
    ("hook", "returned", "message"),
    [
        ("shrink", lambda w: w, r"Odd\.shrink returned an array of shape \(3, 4\); return a pair"),
        (
            "couple",
            lambda w: (w[0, 0] * jnp.ones((5, 3, 4)), None),
            r"Odd\.couple returned an array of shape \(5, 3, 4\)",
        ),
        (
            "shrink",
            lambda w: (w[:2], None),
            r"Odd\.shrink returned an array of shape \(2, 4\) for weights of shape \(3, 4",
        ),
        ("move", lambda w: (None, None), r"Odd\.move returned NoneType for weights of shape \(3, 4\)"),
        ("move", lambda w: (w.sum(), None), r"Odd\.move returned an array of shape \(\) for weights of shape \(3, 4\)"),
        ("shrink", lambda w: ("w", None), r"Odd\.shrink returned str for weights of shape \(3, 4\)"),
    ],
)
def test_hook_that_returns_something_else_is_named(hook, returned, message):
    def act(self, first, *others):
        return returned(first.weight if hook == "shrink" else first)

    signature = {
        "couple": lambda self, weight, state: act(self, weight),
        "shrink": lambda self, step, state: act(self, step),
        "move": lambda self, stepped, step, state: act(self, stepped),
    }[hook]
    kind = decay.rule(type("Odd", (decay.Rule,), {"__annotations__": {"coefficient": float}, hook: signature}))
    transform, params = wd.sgd(0.1, kind(0.1)), params_of()
    with pytest.raises((TypeError, ValueError), match=message):
        transform.update(params, transform.init(params), params)


def test_state_that_changes_its_form_is_named():
    zeros = {"initial": lambda self, weight: jnp.zeros(())}
    grow = lambda self, step, state: (None, step.weight)  # noqa: E731
    for extra, before in ((zeros, r"float32\[\]"), ({}, "None")):
        kind = decay.rule(
            type("Odd", (decay.Rule,), {"__annotations__": {"coefficient": float}, "shrink": grow, **extra})
        )
        transform, params = wd.sgd(0.1, kind(0.1)), params_of()
        message = rf"Odd\.shrink returned a state of another form: {before} before, float32\[3, 4\] now; a state keeps"
        with pytest.raises(TypeError, match=message):
            transform.update(params, transform.init(params), params)


def test_need_that_no_optimizer_has_and_penalty_of_many_numbers_are_named():
    @decay.rule
    class Odd(decay.Rule):
        coefficient: float

        @property
        def needs(self):
            return frozenset({"metric"})

        def shrink(self, step, state):
            return step.weight, state

        def penalty(self, weight, state):
            return weight**2

    with pytest.raises(TypeError, match=r"Odd\.needs has 'metric'; an optimizer can have 'preconditioner_diagonal'"):
        wd.sgd(0.1, Odd(0.1))
    with pytest.raises(TypeError, match=r"Odd\.penalty returned an array of shape \(3, 4\); return one number per"):
        decay.penalty(Odd(0.1), params_of())


# Where it works.


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [wd.sgd, wd.adam, wd.lion, wd.rmsprop, wd.lamb, wd.muon])
def test_rule_acts_as_its_formula_in_every_optimizer(make):
    zeros = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    trained = train(make(0.5, define_easing()(0.4)), params_of(), 3, zeros)
    strength, expected = 0.0, PARAMS["Dense_0"]["kernel"]
    for _ in range(3):
        strength += 0.25 * (0.4 - strength)
        expected = expected - 0.5 * strength * expected
    np.testing.assert_allclose(trained["Dense_0"]["kernel"], expected, rtol=1e-12)  # a few roundings
    np.testing.assert_array_equal(trained["Dense_0"]["bias"], 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_rule_works_masked_by_layer_in_a_tuple_and_with_a_schedule():
    pull = define_pull()
    gradient = lambda params: jax.tree.map(jnp.sin, params)  # noqa: E731
    same = [
        (pull(0.3), wd.Decoupled(0.3)),
        (wd.Masked(pull(0.3), masks.first), wd.Masked(wd.Decoupled(0.3), masks.first)),
        (pull(wd.PerLayer({"Dense_0": 0.3}, default=0.1)), wd.Decoupled(wd.PerLayer({"Dense_0": 0.3}, default=0.1))),
        (pull({"Dense_0": 0.3, "Dense_1": 0.1}), wd.Decoupled({"Dense_0": 0.3, "Dense_1": 0.1})),
        ((pull(0.3), wd.L2(0.1)), (wd.Decoupled(0.3), wd.L2(0.1))),
        (pull(wd.schedules.Linear(0.3, 0.0, 4)), wd.Decoupled(wd.schedules.Linear(0.3, 0.0, 4))),
    ]
    for own, library in same:
        trained = [train(wd.adam(0.1, rule), params_of(), 3, gradient) for rule in (own, library)]
        compare.close(*trained, rtol=1e-12, atol=1e-14)  # roundings: products in another order


@pytest.mark.slow
def test_coefficient_of_a_rule_of_ones_own_may_be_traced():
    pull, params = define_pull(), params_of()
    gradient = lambda params: jax.tree.map(jnp.sin, params)  # noqa: E731
    after = lambda c: train(wd.sgd(0.1, pull(c)), params, 2, gradient)["Dense_0"]["kernel"]  # noqa: E731
    batched = jax.vmap(after)(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(batched[1], after(0.5), rtol=1e-6)
    assert np.isfinite(jax.jacfwd(after)(0.5)).all()


def test_time_scale_and_units_of_a_rule_of_ones_own_are_known():
    pull = define_pull(2.0)
    prediction = theory.decayed(wd.adam(0.1, pull(0.5)), [1])
    np.testing.assert_allclose(prediction.time_scale, [10.0])
    assert np.isnan(prediction.rotation).all()
    assert axis_labels.of_coefficient("Pull") == "the unit of its rule"
    assert axis_labels.of_coefficient(define_easing().__name__, "rate") == "1 / step"
    assert axis_labels.is_coefficient("rate")


def by_hand(weights, bias, inputs, targets, coefficient, *, learning_rate, num_steps):
    """Linear regression by gradient descent on (prediction - target)² under `Easing`, in numpy."""
    strength = 0.0
    for _ in range(num_steps):
        error = 2 * (inputs @ weights + bias - targets) / len(inputs)
        strength += 0.25 * (coefficient - strength)
        step, shift = learning_rate * inputs.T @ error, learning_rate * error.sum(0)
        weights, bias = weights - step - learning_rate * strength * weights, bias - shift
    return weights, bias


@pytest.mark.slow
@pytest.mark.parametrize("directory", [False, True], ids=["", "run directory"])
def test_rule_goes_through_a_grid_from_training_to_disk(tmp_path, directory):
    easing, data = define_easing(), wd.data.diabetes()
    settings = {"num_steps": 12, "batch_size": None, "optimizer": wd.sgd, "progress": False}
    if directory:
        settings["directory"] = tmp_path / "run"
    grid = wd.Grid(
        decay=[wd.NoDecay(), *wd.logspace(easing, 0.1, 10.0, 3), (wd.L2(0.1), wd.Masked(easing(1.0, 0.5), masks.last))],
        learning_rate=[0.01, 0.02],
        seed=[0, 1],
    )
    result = wd.fit_grid(wd.models.MLP(()), data, grid, **settings)

    # Each member is the one computed in numpy, from the initial weights of its seed.
    inputs, targets = (np.asarray(array, np.float64) for array in data.train)
    for index, member in enumerate(grid):
        if type(member["decay"]) is easing and member["seed"] == 1:
            trained = result.params(index)["Dense_0"]
            expected = by_hand(
                *initial_weights(data, seed=1),
                inputs,
                targets.reshape(len(inputs), -1),
                member["decay"].coefficient,
                learning_rate=member["learning_rate"],
                num_steps=12,
            )
            np.testing.assert_allclose(trained["kernel"], expected[0], rtol=1e-4, atol=1e-5)  # float32, 12 steps
            np.testing.assert_allclose(trained["bias"], expected[1], rtol=1e-4, atol=1e-5)

    # Table, plots and report know the rule by its name.
    table = result.table()
    assert set(table["decay"]) == {"NoDecay", "Easing", "L2 + Easing on last"}
    assert "1 / (step · learning rate)" in result.plot_path().get_xlabel().replace("\n", " ")
    result.plot_heatmap(decay="Easing")
    assert result.report(tmp_path / "report.html").is_file()

    # It is saved by its name and found by its name.
    result.save(tmp_path / "result")
    loaded = wd.load(tmp_path / "result")
    assert [str(member["decay"]) for member in loaded.members] == [str(member["decay"]) for member in grid]
    compare.same_bits(loaded.params(5), result.params(5))
    del registry.USER_KINDS["Easing"]
    with pytest.raises(ValueError, match=r"the rule Easing, whose fields are coefficient, rate, .*@wd\.decay\.rule"):
        wd.load(tmp_path / "result")


def initial_weights(data, *, seed):
    """Kernel and bias of the linear network at step 0: after one step with a learning rate of nearly 0."""
    grid = wd.Grid(learning_rate=1e-30, seed=seed)
    result = wd.fit_grid(wd.models.MLP(()), data, grid, num_steps=1, batch_size=None, optimizer=wd.sgd, progress=False)
    layer = result.params(0)["Dense_0"]
    return np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)


@pytest.mark.slow
def test_run_directory_refuses_a_rule_whose_code_has_changed(tmp_path):
    data, settings = wd.data.diabetes(), {"num_steps": 4, "batch_size": None, "optimizer": wd.sgd, "progress": False}
    run = lambda kind: wd.fit_grid(  # noqa: E731
        wd.models.MLP(()), data, wd.Grid(decay=kind(0.1), learning_rate=0.01), directory=tmp_path, **settings
    )
    first = run(define_pull())
    compare.same_bits(run(define_pull()).params(0), first.params(0))  # the same code resumes
    with pytest.raises(ValueError, match=r"program of a training step"):
        run(define_pull(2.0))
