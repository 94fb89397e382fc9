"""All that a model owns is saved, wherever it is held, and fits whatever names Keras gives in this process."""

from __future__ import annotations

import collections
import dataclasses
import doctest
import random
import types
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from unbounded.keras import Checkpoint, Feed, _model_state, _optimizers, _owned

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

# To compile a step takes longer than the few that are made here.
EAGERLY = km.BACKEND == "tensorflow"


def fit_gan(directory: Path, *, fail_at: int | None = None, lazy: bool = False, seed: int = 0) -> km.Gan:
    model = km.gan(lazy=lazy, seed=seed)

    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(model.helper.steps.numpy()) == fail_at:
                raise RuntimeError("killed")

    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    with Feed(ub.from_arrays((x, x), seed=1).batch(4), ub.Epoch(steps=5)) as feed:
        model.fit(feed, epochs=2, verbose=0, callbacks=[Checkpoint(feed, directory, 3), Fail()])
    return model


@pytest.mark.parametrize("lazy", [True, *km.any_backend(False)], ids=["built in the first step", "built at once"])
def test_a_gan_with_four_optimizers_ends_as_if_it_was_never_stopped(lazy: bool, tmp_path: Path) -> None:
    whole = fit_gan(tmp_path / "whole", lazy=lazy)
    with pytest.raises(RuntimeError, match="killed"):
        fit_gan(tmp_path / "killed", fail_at=8, lazy=lazy)
    resumed = fit_gan(tmp_path / "killed", lazy=lazy, seed=5)
    expected = km.gan_state(whole)
    assert int(expected[-1]) == 10
    for a, b in zip(km.gan_state(resumed), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_optimizer_that_was_saved_before_its_first_step_is_as_new_again() -> None:
    model = km.gan(lazy=True)
    state = _model_state.model_state(model)
    assert state["optimizers"]["g_opt"]["built"] is False
    x = np.ones((4, 2), np.float32)
    model.fit(x, x, batch_size=2, verbose=0)
    assert int(model.g_opt.iterations) == 2
    _model_state.restore_model(model, state)
    assert int(model.g_opt.iterations) == 0
    assert all(float(abs(v.numpy()).max()) == 0 for v in model.g_opt.variables if "momentum" in v.name)


class InputBuffer(keras.Model):
    """Holds an Adam of `rate` in the way that is asked for."""

    def __init__(self, hold: Any) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.dense.build((None, 3))
        self.inner = hold(keras.optimizers.Adam(0.5), self)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.dense(x)


@dataclasses.dataclass
class Config:
    opt: Any
    rates: list[float]


class Slotted:
    __slots__ = ("empty", "opt")

    def __init__(self, opt: Any) -> None:
        self.opt = opt


Pair = collections.namedtuple("Pair", ["first", "second"])


def hidden_in_a_layer(opt: Any, model: Any) -> None:
    model.dense.opt = opt


HOLDERS = {
    "an attribute": lambda opt, model: opt,
    "a list": lambda opt, model: [1, opt],
    "a tuple in a dict": lambda opt, model: {"a": ("text", opt)},
    "a dict by number": lambda opt, model: {3: opt},
    "a set": lambda opt, model: {opt},
    "a named tuple": lambda opt, model: Pair(1, opt),
    "a data class": lambda opt, model: Config(opt, [0.1]),
    "a helper's list": lambda opt, model: Config([opt], []),
    "a helper's helper": lambda opt, model: Config(Config(opt, []), []),
    "slots": lambda opt, model: Slotted(opt),
    "a namespace": lambda opt, model: types.SimpleNamespace(opt=opt),
    "a layer": hidden_in_a_layer,
    "a wrapper": lambda opt, model: keras.optimizers.LossScaleOptimizer(opt),
}


@pytest.mark.parametrize("where", list(HOLDERS))
def test_an_optimizer_is_found_in(where: str) -> None:
    def make(value: float) -> list[Any]:
        model = InputBuffer(HOLDERS[where])
        (opt,) = (o for o in _owned.find(model).optimizers.values() if isinstance(o, keras.optimizers.Adam))
        opt.build(model.dense.trainable_variables)
        slots = [v for v in opt.variables if v.name != "learning_rate"]
        for v in slots:
            v.assign(np.full(v.shape, value))
        return [model, slots]

    (first, _), (second, slots) = make(3), make(0)
    _model_state.restore_model(second, _model_state.model_state(first))
    assert [float(keras.ops.max(v)) for v in slots] == [3.0] * 5


def test_variables_seeds_and_random_generators_on_helper_objects_come_back() -> None:
    def make(hold: Any = None) -> InputBuffer:
        helper = types.SimpleNamespace(
            count=keras.Variable(0.0),
            seeds=keras.random.SeedGenerator(1),
            rng=np.random.default_rng(3),
            old=np.random.RandomState(3),
            python=random.Random(3),
        )
        return InputBuffer(lambda opt, model: helper)

    def draw(model: InputBuffer) -> list[Any]:
        h = model.inner
        noise = keras.ops.convert_to_numpy(keras.random.normal((2,), seed=h.seeds)).tolist()
        h.count.assign(h.count + 1)
        return [float(h.count.numpy()), noise, h.rng.random(), h.old.random(), h.python.random()]

    first, second = make(), make()
    draw(first)
    _model_state.restore_model(second, _model_state.model_state(first))
    assert draw(second) == draw(first)


def test_metrics_of_a_models_own_are_of_the_state() -> None:
    def make() -> InputBuffer:
        return InputBuffer(lambda opt, model: {"seen": keras.metrics.Mean(name="seen"), "list": [keras.metrics.Sum()]})

    first, second = make(), make()
    first.inner["seen"].update_state([2.0, 4.0])
    first.inner["list"][0].update_state([5.0])
    _model_state.restore_metrics(second, {"metrics": _model_state.metrics_state(first)})
    assert (float(second.inner["seen"].result()), float(second.inner["list"][0].result())) == (3.0, 5.0)


@pytest.mark.any_backend
def test_what_leads_out_of_the_model_is_not_followed() -> None:
    other = km.ready_model()

    class Loop:
        def __init__(self, model: Any) -> None:
            self.back = [model]
            self.callback = keras.callbacks.LambdaCallback()
            self.callback.set_model(other)

    model = InputBuffer(lambda opt, model: Loop(model))
    assert set(_owned.find(model).variables) == {"dense/kernel", "dense/bias"}


# -- what can't be found -------------------------------------------------------------------------------------------

outside = keras.optimizers.SGD()


@pytest.mark.any_backend
def test_an_optimizer_in_a_global_or_a_closure_is_named_once() -> None:
    enclosed = keras.optimizers.SGD()

    class Careless(InputBuffer):
        def train_step(self, data: Any) -> Any:
            return outside, self.helped()

        def helped(self) -> Any:
            return enclosed

    model = Careless(lambda opt, model: opt)
    sentence = "Careless uses the optimizer 'enclosed', the optimizer 'outside', and the model doesn't hold them"
    with pytest.warns(_model_state.StateNotFound, match=sentence):
        _model_state.model_state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _model_state.model_state(model)


@pytest.mark.any_backend
def test_a_model_whose_optimizers_never_moved_is_said_to_have_another_one() -> None:
    class Other(InputBuffer):
        def train_step(self, data: Any) -> Any:
            return {}

    model = Other(lambda opt, model: opt)
    _model_state.model_state(model, steps=0)
    with pytest.warns(
        _model_state.StateNotFound, match="has made 7 steps, and no optimizer that the model holds has made"
    ):
        _model_state.model_state(model, steps=7)


# -- matched by structure ------------------------------------------------------------------------------------------


def sequential(units: int = 4, *, build: bool = True, **names: str) -> keras.Model:
    layers = [keras.layers.Dense(units, activation="tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers] if build else layers, **names)
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=EAGERLY)
    return model


def functional() -> keras.Model:
    x = inputs = keras.Input((3,))
    for layer in (keras.layers.Dense(4, "tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(1)):
        x = layer(x)
    model = keras.Model(inputs, x)
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=EAGERLY)
    return model


@keras.saving.register_keras_serializable("test_keras_owned")
class Nested(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = [keras.Sequential([keras.layers.Dense(2), keras.layers.Dropout(0.5)]) for _ in range(2)]
        self.heads = {"b": keras.layers.Dense(1), "a": keras.layers.Dense(1)}

    def call(self, x: Any, training: bool = False) -> Any:
        for block in self.blocks:
            x = block(x, training=training)
        return self.heads["a"](x) + self.heads["b"](x)


def nested() -> keras.Model:
    model = Nested()
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=EAGERLY)
    return model


def train(model: keras.Model, steps: int = 3) -> keras.Model:
    for _ in range(steps):
        model.train_on_batch(*km.rows(4))
    return model


@pytest.mark.parametrize("make", [sequential, functional, nested])
def test_a_model_of_load_model_and_one_built_later_go_on_to_the_same_bits(make: Any, tmp_path: Path) -> None:
    for _ in range(12):
        keras.layers.Dense(1)  # so that this process counts in two digits
    model = train(make())
    model.save(tmp_path / "model.keras")
    later, loaded = make(), keras.saving.load_model(tmp_path / "model.keras")
    _model_state.build(later, km.rows(4))
    train(loaded, 2)
    state = _model_state.model_state(model)
    expected = km.weights(train(model))
    for other in (later, loaded):
        _model_state.restore_model(other, state)
        for a, b in zip(km.weights(train(other)), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_sequential_model_fits_a_functional_one_of_the_same_layers() -> None:
    model, other = train(sequential()), functional()
    _model_state.build(other, km.rows(4))
    _model_state.restore_model(other, _model_state.model_state(model))
    assert all(np.array_equal(a, b) for a, b in zip(km.weights(model), km.weights(other), strict=True))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: sequential(5), r"it has 'layers/dense/kernel', float32 \(3, 4\), and this model has .* \(3, 5\)"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]), "'layers/batch_normalization/gamma'"),
    ],
)
def test_another_model_is_refused_with_the_first_difference(other: Any, difference: str) -> None:
    state = _model_state.model_state(train(sequential()))
    made = other()
    made.compile("adam", "mse", metrics=["mae"])
    _model_state.build(made, km.rows(4))
    before = km.weights(made)
    with pytest.raises(ValueError, match=f"The checkpoint is of another model: .*{difference}"):
        _model_state.restore_model(made, state)
    assert all(np.array_equal(a, b) for a, b in zip(km.weights(made), before, strict=True))


@pytest.mark.any_backend
def test_a_layer_that_the_optimizer_did_not_train_is_a_difference_with_a_name() -> None:
    state = _model_state.model_state(train(sequential()))
    frozen = sequential()
    frozen.layers[0].trainable = False
    train(frozen, 1)
    with pytest.raises(ValueError, match=r"its optimizer 'optimizer' it has 'layers/dense/kernel/momentum'"):
        _model_state.restore_model(frozen, state)


def test_an_unbuilt_model_is_built_as_it_was_when_it_is_restored() -> None:
    for make in (lambda: sequential(build=False), nested):
        model, fresh = train(make()), make()
        _model_state.restore_variables(fresh, _model_state.model_state(model))
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), fresh.get_weights(), strict=True))


# -- what the script says now --------------------------------------------------------------------------------------


def with_rate(rate: float) -> keras.Model:
    model = sequential()
    model.optimizer.learning_rate = rate
    _model_state.begin(model)
    return model


@pytest.mark.any_backend
def test_a_changed_learning_rate_is_said_to_be_overridden_or_goes_on_where_that_is_accepted() -> None:
    state = _model_state.model_state(train(with_rate(0.25)))
    model = sequential()
    model.optimizer.learning_rate = 0.5
    with pytest.warns(UserWarning, match=r"changed from 0\.25 to 0\.5, and the checkpoint's goes on, which is 0\.25"):
        _model_state.restore_model(built(model), state)
    assert float(model.optimizer.learning_rate) == 0.25
    model = sequential()
    model.optimizer.learning_rate = 0.5
    _model_state.restore_model(built(model), state, accept_changes=True)
    _model_state.restore_learning_rate(model, state)
    assert float(model.optimizer.learning_rate) == 0.5


@pytest.mark.any_backend
def test_a_rate_that_a_callback_has_moved_is_no_change_of_the_script() -> None:
    model = with_rate(0.25)
    model.optimizer.learning_rate = 0.125  # as a scheduler does
    state = _model_state.model_state(train(model))
    fresh = sequential()
    fresh.optimizer.learning_rate = 0.25
    _model_state.restore_model(built(fresh), state)
    assert float(fresh.optimizer.learning_rate) == 0.125


@pytest.mark.any_backend
def test_a_rate_that_is_changed_between_two_fits_is_a_change_of_the_script() -> None:
    model = with_rate(0.25)
    state = _model_state.model_state(train(model))
    _model_state.end(model)
    model.optimizer.learning_rate = 0.5
    with pytest.warns(UserWarning, match=r"changed from 0\.25 to 0\.5"):
        _model_state.restore_model(model, state)


def built(model: keras.Model) -> keras.Model:
    """Have the metrics built that `compile` makes, as `fit` has."""
    _model_state.build(model, km.rows(4))
    return model


# -- averages, scales and accumulated gradients ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=3),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), dynamic_growth_steps=3),
        lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)),
    ],
    ids=["averages", "accumulated gradients", "loss scale", "schedule"],
)
def test_the_optimizer_goes_on_exactly_with(optimizer: Any) -> None:
    def make() -> keras.Model:
        model = sequential()
        model.compile(optimizer(), "mse", run_eagerly=EAGERLY)
        return model

    model, fresh = train(make(), 5), built(make())
    _model_state.restore_model(fresh, _model_state.model_state(model))
    for a, b in zip(km.weights(train(fresh, 4)), km.weights(train(model, 4)), strict=True):
        np.testing.assert_array_equal(a, b)


# -- PyTorch's own --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(km.BACKEND != "torch", reason="modules of PyTorch are layers on PyTorch alone")
def test_pytorch_modules_optimizers_and_schedulers_inside_a_keras_model_go_on() -> None:
    import torch

    class Mixed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body = keras.Sequential(
                [keras.layers.Dense(3), keras.layers.TorchModuleWrapper(norm := torch.nn.BatchNorm1d(3))]
            )
            self.norm = norm
            self.heads = [torch.nn.Linear(3, 1)]
            self.torch_opt = torch.optim.Adam(self.heads[0].parameters(), lr=0.1)
            self.schedule = torch.optim.lr_scheduler.StepLR(self.torch_opt, 2)
            self.noise = torch.Generator()
            self.noise.manual_seed(3)

        def call(self, x: Any) -> Any:
            return self.heads[0](self.body(x))

    def step(model: Any, times: int) -> list[np.ndarray]:
        for i in range(times):
            x = torch.from_numpy(km.rows(8, start=i)[0])
            loss = (model(x, training=True) + torch.randn(1, generator=model.noise)).square().mean()
            model.torch_opt.zero_grad()
            loss.backward()
            model.torch_opt.step()
            model.schedule.step()
        tensors = [*model.heads[0].parameters(), *model.norm.buffers(), torch.tensor(model.schedule.get_last_lr())]
        return [t.detach().numpy().copy() for t in tensors]

    model, fresh = Mixed(), Mixed()
    step(model, 3)
    state = _model_state.model_state(model)
    assert state["others"]["heads/0"]["state"].keys() == {"weight", "bias"}
    _model_state.restore_model(fresh, state)
    for a, b in zip(step(fresh, 3), step(model, 3), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.any_backend
def test_the_examples_run() -> None:
    for module in (_owned, _model_state):
        assert doctest.testmod(module).failed == 0


@pytest.mark.any_backend
def test_a_run_goes_on_with_its_rate_though_the_script_says_another_one_and_says_so(tmp_path: Path) -> None:
    def fit(epochs: int, rate: float, **given: Any) -> float:
        model = sequential()
        model.compile(keras.optimizers.SGD(rate), "mse")
        with Feed(ub.from_arrays(km.rows(40)).batch(4), ub.Epoch(steps=3)) as feed:
            model.fit(feed, epochs=epochs, verbose=0, callbacks=[Checkpoint(feed, tmp_path, **given)])
        return float(model.optimizer.learning_rate)

    fit(1, 0.25)
    fit(2, 0.25)
    with pytest.warns(_optimizers.ScriptOverridden, match=r"from 0\.25 to 0\.5, and the checkpoint's goes on"):
        assert fit(3, 0.5) == 0.25
    assert fit(4, 0.5, accept_changes=True) == 0.5
    assert fit(5, 0.5) == 0.5
