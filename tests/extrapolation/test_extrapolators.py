"""Each method is exact on the paths it is made for, and equals an independent computation on others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lab.errors import BadInput
from lab.extrapolation import EXTRAPOLATORS, JumpRules, build_extrapolator, default_method
from lab.extrapolation.extrapolator import State
from lab.linearity import choose_damping

STEPS = np.array([0.0, 100, 200, 400, 700, 800, 1000, 1100])
TARGET = 2000.0
RNG = np.random.default_rng(0)
START, FIRST, SECOND = RNG.normal(size=(3, 400))
NOISY = START + np.outer(STEPS / 1000, FIRST) + np.cumsum(0.1 * RNG.normal(size=(8, 400)), axis=0)


def observed(
    name: str, values: np.ndarray, rules: JumpRules | None = None, **changes: Any
) -> tuple[Any, State]:
    extrapolator = build_extrapolator(default_method(name, **changes), rules)
    state = extrapolator.begin(STEPS)
    for start in range(0, values.shape[1], 150):  # in unequal slices, as a stream comes
        extrapolator.observe(state, "w", values[:, start : start + 150])
    return extrapolator, extrapolator.finish(state)


def forecast(name: str, values: np.ndarray, target: float = TARGET, **changes: Any) -> np.ndarray:
    extrapolator, state = observed(name, values, **changes)
    return np.asarray(extrapolator.predict(state, "w", values, target))


# ---- exact cases -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("two_point", {}),
        ("least_squares", {"joined": True}),
        ("least_squares", {"joined": False}),
        ("damped", {"scope": "pooled"}),
        ("damped", {"scope": "tensor"}),
        ("rank_1", {"joined": False}),
        ("rank_1", {"joined": True}),
        ("low_rank", {"curve": "line"}),
        ("low_rank", {"curve": "power"}),
    ],
)
def test_a_line_is_carried_on_exactly(name: str, changes: dict[str, Any]) -> None:
    line = START + np.outer(STEPS, 1e-3 * FIRST)
    np.testing.assert_allclose(forecast(name, line, **changes), START + 2.0 * FIRST, atol=1e-6)


def test_an_exponential_approach_is_carried_on_exactly() -> None:
    path = START + np.outer(1 - np.exp(-STEPS / 500), FIRST)
    for joined in (True, False):
        np.testing.assert_allclose(
            forecast("exponential", path, joined=joined), START + (1 - np.exp(-4)) * FIRST, atol=1e-6
        )


def test_the_rate_of_an_autoregression_is_found() -> None:
    rho, steps = 0.97, np.arange(0.0, 60.0)
    limit, value = START + FIRST, START.copy()
    path = [value]
    for _ in steps[1:]:  # mean of an Ornstein-Uhlenbeck process: x <- w_inf + rho (x - w_inf)
        value = limit + rho * (value - limit)
        path.append(value)
    extrapolator = build_extrapolator(default_method("exponential"))
    state = extrapolator.begin(steps)
    extrapolator.observe(state, "w", np.array(path))
    extrapolator.finish(state)
    kappa = extrapolator.details(steps, extrapolator.products(state, "w"))["kappa"]
    assert np.exp(-kappa) == pytest.approx(rho, rel=1e-6)
    np.testing.assert_allclose(
        extrapolator.predict(state, "w", np.array(path), 200.0), limit + rho**200 * (START - limit), atol=1e-6
    )


def test_a_square_root_along_one_direction_is_carried_on_exactly() -> None:
    path = START + np.outer(np.sqrt(STEPS / 1100), FIRST)
    found = forecast("low_rank", path, rank=1, curve="power")
    np.testing.assert_allclose(found, START + np.sqrt(TARGET / 1100) * FIRST, atol=1e-5)


def test_two_directions_with_curves_of_their_own() -> None:
    # Singular directions are orthogonal; the coefficients are too only if the curves are, so take both out by hand.
    one = FIRST / np.linalg.norm(FIRST)
    two = SECOND - (SECOND @ one) * one
    two /= np.linalg.norm(two)
    share = STEPS / 1100
    first, second = share**0.5, share**2.0
    second = second - (second @ first) / (first @ first) * first  # orthogonal over time
    path = START + 10 * np.outer(first, one) + np.outer(second, two)
    found = forecast("low_rank", path, rank=2, curve="power") - START
    assert found @ one == pytest.approx(10 * np.sqrt(TARGET / 1100), rel=1e-5)


# ---- independent computations ------------------------------------------------------------------------


def test_two_point_is_the_published_formula() -> None:
    beta = (TARGET - STEPS[0]) / (STEPS[-1] - STEPS[0])
    np.testing.assert_allclose(
        forecast("two_point", NOISY), NOISY[0] + beta * (NOISY[-1] - NOISY[0]), rtol=1e-12
    )


def test_two_point_in_float32_has_the_published_bits() -> None:
    values = NOISY.astype(np.float32)
    beta = np.float32((TARGET - STEPS[0]) / (STEPS[-1] - STEPS[0]))
    np.testing.assert_array_equal(forecast("two_point", values), values[0] + beta * (values[-1] - values[0]))


def test_least_squares_is_polyfit() -> None:
    slope, intercept = np.polyfit(STEPS, NOISY, 1)
    np.testing.assert_allclose(
        forecast("least_squares", NOISY, joined=False), intercept + TARGET * slope, rtol=1e-9
    )
    joined = NOISY[-1] + (TARGET - STEPS[-1]) * slope
    np.testing.assert_allclose(forecast("least_squares", NOISY, joined=True), joined, rtol=1e-9)


def test_damped_uses_the_damping_of_the_weights() -> None:
    damping = choose_damping(NOISY, STEPS)
    assert 0.05 < damping < 0.95
    jump = (TARGET - STEPS[-1]) / (STEPS[-1] - STEPS[0]) * (NOISY[-1] - NOISY[0])
    np.testing.assert_allclose(forecast("damped", NOISY), NOISY[-1] + damping * jump, rtol=1e-9)


@pytest.mark.parametrize("joined", [False, True])
def test_rank_1_is_a_singular_value_decomposition(joined: bool) -> None:
    left, singular, right = np.linalg.svd(NOISY - NOISY[0], full_matrices=False)
    coefficient = singular[0] * left[:, 0]
    ahead = np.polyval(np.polyfit(STEPS, coefficient, 1), [TARGET, STEPS[-1]])
    expected = NOISY[-1] + (ahead[0] - ahead[1]) * right[0] if joined else NOISY[0] + ahead[0] * right[0]
    np.testing.assert_allclose(forecast("rank_1", NOISY, joined=joined), expected, rtol=1e-7, atol=1e-9)


def test_low_rank_with_lines_is_a_truncated_decomposition() -> None:
    left, singular, right = np.linalg.svd(NOISY - NOISY[0], full_matrices=False)
    expected = NOISY[0].copy()
    for component in range(3):
        fit = np.polyfit(STEPS, singular[component] * left[:, component], 1)
        expected += np.polyval(fit, TARGET) * right[component]
    np.testing.assert_allclose(
        forecast("low_rank", NOISY, rank=3, curve="line"), expected, rtol=1e-6, atol=1e-8
    )


def test_all_directions_with_lines_are_least_squares() -> None:
    found = forecast("low_rank", NOISY, rank=7, curve="line")
    np.testing.assert_allclose(found, forecast("least_squares", NOISY, joined=False), rtol=1e-6, atol=1e-8)


def test_exponential_is_a_search_over_the_rate() -> None:
    path = START + np.outer(1 - np.exp(-STEPS / 300), FIRST) + 0.05 * RNG.normal(size=(8, 400))

    def fitted(kappa: float, times: np.ndarray) -> tuple[float, np.ndarray]:
        design = np.stack([np.ones(8), np.exp(-kappa * STEPS)], axis=1)
        solution, residual, *_ = np.linalg.lstsq(design, path, rcond=None)
        return float(residual.sum()), np.stack(
            [np.ones(len(times)), np.exp(-kappa * times)], axis=1
        ) @ solution

    rates = np.geomspace(1e-4, 2e-2, 4000)
    best = rates[np.argmin([fitted(rate, STEPS)[0] for rate in rates])]
    ahead = fitted(best, np.array([TARGET]))[1][0]
    np.testing.assert_allclose(forecast("exponential", path, joined=False), ahead, atol=2e-3)


def test_expo_adds_its_share_and_knows_the_step_that_means() -> None:
    found = forecast("expo", NOISY, alpha=0.4)
    np.testing.assert_allclose(found, NOISY[-1] + 0.4 * (NOISY[-1] - NOISY[0]), rtol=1e-12)
    step = build_extrapolator(default_method("expo", alpha=0.4)).target(STEPS)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, forecast("two_point", NOISY, target=step), rtol=1e-12)


# ---- properties of all -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXTRAPOLATORS)
def test_forecasts_move_with_the_origin_and_scale_with_the_path(name: str) -> None:
    shifted = forecast(name, 3.0 * NOISY + 7.0)
    np.testing.assert_allclose(shifted, 3.0 * forecast(name, NOISY) + 7.0, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", EXTRAPOLATORS)
def test_what_did_not_move_stays(name: str) -> None:
    still = np.repeat(START[None], 8, axis=0)
    np.testing.assert_array_equal(forecast(name, still), START)


@pytest.mark.parametrize("name", EXTRAPOLATORS)
def test_shipped_settings_build_and_name_themselves(name: str) -> None:
    node = default_method(name)
    assert node["name"] == name
    assert len(build_extrapolator(node).formula) > 3


def test_scope_decides_whose_products_count() -> None:
    rng = np.random.default_rng(4)
    walk = START + np.cumsum(rng.normal(size=(8, 400)), axis=0)
    found = {}
    for scope in ("pooled", "tensor"):
        extrapolator = build_extrapolator(default_method("damped", scope=scope))
        state = extrapolator.begin(STEPS)
        extrapolator.observe(state, "a", NOISY)
        extrapolator.observe(state, "b", walk)
        extrapolator.finish(state)
        found[scope] = [extrapolator.combination(state, name, TARGET) for name in ("a", "b")]
    np.testing.assert_array_equal(*found["pooled"])
    both = choose_damping(np.concatenate([NOISY, walk], axis=1), STEPS)
    factor = (TARGET - STEPS[-1]) / (STEPS[-1] - STEPS[0])
    assert found["pooled"][0][0] == pytest.approx(-both * factor)
    assert found["tensor"][0][0] == pytest.approx(-choose_damping(NOISY, STEPS) * factor)
    assert found["tensor"][1][0] == pytest.approx(-choose_damping(walk, STEPS) * factor, abs=1e-12)


# ---- rules -------------------------------------------------------------------------------------------


def test_copied_tensors_are_the_last_and_do_not_count() -> None:
    rules = JumpRules(copy=("norm", "ln_"), norm_cap=None, norm_cap_scope="pooled")
    extrapolator = build_extrapolator(default_method("damped"), rules)
    state = extrapolator.begin(STEPS)
    extrapolator.observe(state, "layers.0.input_LayerNorm.weight", 1e3 * NOISY[:, ::-1])
    extrapolator.observe(state, "w", NOISY)
    extrapolator.finish(state)
    copied = extrapolator.predict(state, "layers.0.input_LayerNorm.weight", NOISY, TARGET)
    np.testing.assert_array_equal(copied, NOISY[-1])
    np.testing.assert_allclose(
        extrapolator.predict(state, "w", NOISY, TARGET), forecast("damped", NOISY), rtol=1e-9
    )


@pytest.mark.parametrize("name", ["two_point", "rank_1", "expo"])
def test_a_jump_is_capped_at_its_multiple_of_the_displacement(name: str) -> None:
    moved = np.linalg.norm(NOISY[-1] - NOISY[0])
    for cap in (0.1, 1e3):
        rules = JumpRules(copy=(), norm_cap=cap, norm_cap_scope="tensor")
        extrapolator, state = observed(name, NOISY, rules)
        jump = extrapolator.predict(state, "w", NOISY, TARGET) - NOISY[-1]
        free = forecast(name, NOISY) - NOISY[-1]
        if cap == 0.1:
            assert np.linalg.norm(jump) == pytest.approx(0.1 * moved)
            cosine = jump @ free / np.linalg.norm(jump) / np.linalg.norm(free)
            assert cosine == pytest.approx(1.0)
        else:
            np.testing.assert_allclose(jump, free, rtol=1e-9)


@pytest.mark.parametrize("method", ["two_point", "rank_1"])
def test_a_pooled_cap_is_one_factor_for_all(method: str) -> None:
    rules = JumpRules(copy=(), norm_cap=0.2, norm_cap_scope="pooled")
    extrapolator = build_extrapolator(default_method(method), rules)
    free = build_extrapolator(default_method(method))
    parts = {"a": NOISY[:, :100], "b": 5 * NOISY[:, 100:]}
    state, open_state = extrapolator.begin(STEPS), free.begin(STEPS)
    for name, values in parts.items():
        extrapolator.observe(state, name, values)
        free.observe(open_state, name, values)
    extrapolator.finish(state)
    free.finish(open_state)
    jumps = {n: extrapolator.predict(state, n, v, TARGET) - v[-1] for n, v in parts.items()}
    uncapped = {n: free.predict(open_state, n, v, TARGET) - v[-1] for n, v in parts.items()}
    factors = [np.linalg.norm(jumps[n]) / np.linalg.norm(uncapped[n]) for n in parts]
    assert factors[0] == pytest.approx(factors[1]) and factors[0] < 1
    length = np.sqrt(sum(np.sum(jump**2) for jump in jumps.values()))
    moved = np.sqrt(sum(np.sum((v[-1] - v[0]) ** 2) for v in parts.values()))
    assert length == pytest.approx(0.2 * moved)


# ---- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"), [("two_point", 2), ("rank_1", 2), ("damped", 4), ("exponential", 4)]
)
def test_too_few_checkpoints(name: str, least: int) -> None:
    extrapolator = build_extrapolator(default_method(name))
    extrapolator.begin(np.arange(float(least)))
    with pytest.raises(BadInput, match=f"at least {least}"):
        extrapolator.begin(np.arange(float(least - 1)))


def test_a_target_that_is_not_ahead() -> None:
    extrapolator, state = observed("two_point", NOISY)
    for target in (1100.0, 3.0, float("nan")):
        with pytest.raises(BadInput, match="not after the last checkpoint used, step 1100"):
            extrapolator.combination(state, "w", target)


def test_steps_that_do_not_increase() -> None:
    with pytest.raises(BadInput, match="increase strictly"):
        build_extrapolator(default_method("two_point")).begin([0.0, 2.0, 2.0])


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"name": "two_pont"}, "method.name: unknown 'two_pont'; did you mean 'two_point'"),
        ({"name": "expo", "alpha": 0.0}, "method.alpha: must be positive"),
        ({"name": "low_rank", "rank": 0}, "method.rank: must be at least 1"),
        ({"name": "damped", "scope": "layer"}, "method.scope: unknown 'layer'"),
        ({"name": "rank_1", "rank": 2}, "method.rank: no code reads this key"),
    ],
)
def test_impossible_settings(node: dict[str, Any], words: str) -> None:
    complete = node if node["name"] not in EXTRAPOLATORS else {**default_method(node["name"]), **node}
    with pytest.raises(BadInput) as refused:
        build_extrapolator(complete)
    assert words in str(refused.value)
