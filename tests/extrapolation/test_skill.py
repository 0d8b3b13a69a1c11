"""Skill from inner products equals skill from the weights themselves, and nothing after an origin is used there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from lab.errors import BadInput
from lab.extrapolation import (
    EXTRAPOLATORS,
    JumpRules,
    build_extrapolator,
    compare,
    compare_products,
    default_method,
    skill_of_combination,
)
from lab.extrapolation.products import gather_products, slices
from lab.linearity import forecast_skill
from lab.linearity.products import increment_products
from lab.trajectory.series import TensorInfo
from theory.forecast_error import two_point_ratio

STEPS = np.array([0.0, 10, 20, 40, 50, 70, 80, 90, 110])
RULES = JumpRules(copy=("norm",), norm_cap=None, norm_cap_scope="pooled")


class Arrays:
    """A series held in memory."""

    def __init__(self, steps: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        self.steps, self.values = steps, values
        self.tensors = {
            name: TensorInfo(each.shape[1], "float32", each.shape[1:]) for name, each in values.items()
        }

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        return np.asarray(self.values[name][:, start:stop], dtype=np.float64)

    def read_into(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        out[:] = self.values[name][:, start:stop]


def model(seed: int = 0, drift: float = 0.3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = len(STEPS)
    return {
        name: 2
        + np.cumsum(0.1 * rng.normal(size=(count, size)), axis=0)
        + np.outer(STEPS / 110, drift * rng.normal(size=size))
        for name, size in (("embed.weight", 500), ("layers.0.weight", 301), ("norm.weight", 20))
    }


def products(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: increment_products(each) for name, each in values.items()}


def by_hand(name: str, values: Mapping[str, np.ndarray], origin: int, target: int) -> tuple[float, float]:
    """Squared error of a method that saw only checkpoints up to `origin`, and that of persistence."""
    extrapolator = build_extrapolator(default_method(name), RULES)
    state = extrapolator.begin(STEPS[: origin + 1])
    for tensor, each in values.items():
        extrapolator.observe(state, tensor, each[: origin + 1])
    extrapolator.finish(state)
    error = still = 0.0
    for tensor, each in values.items():
        forecast = extrapolator.predict(state, tensor, each[: origin + 1], STEPS[target])
        error += float(np.sum((forecast - each[target]) ** 2))
        still += float(np.sum((each[origin] - each[target]) ** 2))
    return error, still


@pytest.mark.parametrize("name", EXTRAPOLATORS)
def test_errors_are_those_of_the_weights(name: str) -> None:
    values = model()
    found = compare_products(STEPS, products(values), {name: build_extrapolator(default_method(name), RULES)})
    assert found.origins == (3, 4, 5, 6, 7)
    total = np.zeros(2)
    for row, origin in enumerate(found.origins):
        for target in range(origin + 1, len(STEPS)):
            error, still = by_hand(name, values, origin, target)
            assert found.errors[0, row, target] == pytest.approx(error, rel=1e-6)
            assert found.still[row, target] == pytest.approx(still, rel=1e-9)
            total += error, still
        assert np.isnan(found.errors[0, row, : origin + 1]).all()
    assert found.skill()[0] == pytest.approx(1 - total[0] / total[1], abs=1e-9)


def test_one_origin_agrees_with_the_forecast_skill_of_a_run() -> None:
    values = np.concatenate(list(model().values()), axis=1)
    known = forecast_skill(values, STEPS)
    origin = int(np.searchsorted(STEPS, known.origin_step))
    methods = {name: build_extrapolator(default_method(name)) for name in ("two_point", "damped")}
    found = compare_products(STEPS, {"all": increment_products(values)}, methods, origins=[origin])
    assert found.skill() == pytest.approx([known.skill, known.skill_damped], rel=1e-9)
    horizons, by_horizon = found.skill_by_horizon()
    np.testing.assert_array_equal(horizons, known.horizon)
    np.testing.assert_allclose(by_horizon, [known.skill_by_horizon, known.skill_damped_by_horizon], rtol=1e-9)


def test_skill_of_a_combination_is_that_of_the_weights() -> None:
    values = model()["embed.weight"]
    combination = np.array([0.1, -0.4, 0.0, 0.2, 1.1])
    error = np.sum((combination @ values[:5] - values[7]) ** 2)
    still = np.sum((values[4] - values[7]) ** 2)
    found = skill_of_combination(increment_products(values), combination, target=7)
    assert found == pytest.approx(1 - error / still, rel=1e-9)


@pytest.mark.parametrize("name", EXTRAPOLATORS)
def test_the_future_is_not_looked_at(name: str) -> None:
    values = model()
    changed = {tensor: each.copy() for tensor, each in values.items()}
    for each in changed.values():
        each[6:] += 50.0  # one jump in between, after the origin
    origin = 5
    extrapolator = {name: build_extrapolator(default_method(name), RULES)}
    one = compare_products(STEPS, products(values), extrapolator, origins=[origin])
    two = compare_products(STEPS, products(changed), extrapolator, origins=[origin])
    for found, source in ((one, values), (two, changed)):
        assert found.errors[0, 0, 8] == pytest.approx(by_hand(name, source, origin, 8)[0], rel=1e-6)
    assert by_hand(name, values, origin, 8)[0] != pytest.approx(by_hand(name, changed, origin, 8)[0])


def test_persistence_has_no_skill_and_a_line_all_of_it() -> None:
    line = {"w": np.outer(STEPS, np.arange(1.0, 9.0))}
    found = compare(Arrays(STEPS, line), ["persistence", "two_point", "least_squares", "damped"])
    assert found.skill() == pytest.approx([0, 1, 1, 1], abs=1e-6)


def test_two_point_ratio_of_drift_in_noise() -> None:
    # 200,000 coordinates of drift plus white noise: the pooled error is the law of theory.forecast_error.
    rng, count, size = np.random.default_rng(5), 9, 200_000
    signal = 1.5
    increments = rng.normal(size=(count - 1, size)) + signal / np.sqrt(4) * np.where(
        rng.random(size) < 0.5, 1, -1
    )
    path = np.concatenate([np.zeros((1, size)), np.cumsum(increments, axis=0)])
    methods = {"two_point": build_extrapolator(default_method("two_point"))}
    found = compare_products(np.arange(count), {"w": increment_products(path)}, methods, origins=[4])
    # Over four steps of unit noise the signal ratio is drift x 4 / sqrt(4).
    expected = [1 - two_point_ratio(signal**2, horizon / 4) for horizon in (1, 2, 3, 4)]
    np.testing.assert_allclose(found.skill_by_horizon()[1][0], expected, atol=0.01)


def test_methods_are_compared_on_the_same_forecasts() -> None:
    values = products(model())
    methods = {name: build_extrapolator(default_method(name)) for name in ("two_point", "damped")}
    found = compare_products(STEPS, values, methods, origins=[1, 2, 5])
    assert np.isnan(found.errors[1, :2]).all() and not np.isnan(found.errors[0, 0, 2:]).any()
    only_five = compare_products(STEPS, values, methods, origins=[5])
    np.testing.assert_allclose(found.skill(), only_five.skill())


def test_a_method_that_never_had_enough_is_undefined_and_does_not_void_the_others() -> None:
    values = products({"w": model()["embed.weight"][:3]})
    methods = {name: build_extrapolator(default_method(name)) for name in ("two_point", "damped")}
    skill = compare_products(STEPS[:3], values, methods).skill()
    assert np.isfinite(skill[0]) and np.isnan(skill[1])


def test_the_pass_over_a_series_sums_its_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    values = model()
    seen: list[int] = []
    whole = gather_products(Arrays(STEPS, values), seen.append)
    assert sum(seen) == len(STEPS) * 4 * sum(each.shape[1] for each in values.values())
    monkeypatch.setattr("lab.extrapolation.products.SLICE_ELEMENTS", 9 * 64)
    parts = gather_products(Arrays(STEPS, values))
    for name, each in values.items():
        np.testing.assert_allclose(whole[name], increment_products(each), rtol=2e-5, atol=1e-4)
        np.testing.assert_allclose(parts[name], increment_products(each), rtol=2e-5, atol=1e-4)


def test_slices_cover_a_tensor_once() -> None:
    ranges = list(slices(10**6, 7))
    assert ranges[0][0] == 0 and ranges[-1][1] == 10**6
    assert all(first[1] == second[0] for first, second in zip(ranges, ranges[1:], strict=False))


def test_weights_that_are_not_finite_are_named() -> None:
    values = model()
    values["layers.0.weight"][4, 17] = np.nan
    with pytest.raises(BadInput, match=r"layers\.0\.weight: element 17 is nan at step 50"):
        compare(Arrays(STEPS, values), ["two_point"])


def test_labels_tell_two_settings_of_one_method_apart() -> None:
    methods = [default_method("expo", alpha=alpha) for alpha in (0.1, 0.5)]
    found = compare(Arrays(STEPS, model()), [*methods, "two_point"])
    assert found.methods == ("expo 1", "expo 2", "two_point")
    assert set(found.numbers()["methods"]) == set(found.methods)


def test_impossible_comparisons() -> None:
    values = products(model())
    method = {"two_point": build_extrapolator(default_method("two_point"))}
    with pytest.raises(BadInput, match="at least 3"):
        compare_products(STEPS[:2], {"w": np.ones((1, 1))}, method)
    for origin in (0, 8):
        with pytest.raises(BadInput, match=f"row {origin} leaves nothing"):
            compare_products(STEPS, values, method, origins=[origin])
    with pytest.raises(BadInput, match="did you mean 'rank_1'"):
        compare(Arrays(STEPS, model()), ["rank1"])
