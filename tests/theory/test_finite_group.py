import contextlib
import inspect
import itertools

import mpmath
import numpy as np
import pytest
import sympy

from lab.objectives.advantages import group_advantages
from theory.finite_group import (
    PREDICTION,
    batch_std_coefficient,
    batch_std_coefficient_large_batch,
    batch_std_coefficients,
    group_coefficient,
    std_factor,
    std_factor_large_group,
    zero_signal_share,
)
from theory.prediction import InvalidArgument


def numerically(expression):
    """Sums and products term by term, integrals by quadrature, the rest by sympy, to 30 digits."""
    if isinstance(expression, (sympy.Sum, sympy.Product)):
        ((index, first, last),) = expression.limits
        terms = [numerically(expression.function.subs(index, i)) for i in range(int(first), int(last) + 1)]
        return sympy.Add(*terms) if isinstance(expression, sympy.Sum) else sympy.Mul(*terms)
    if isinstance(expression, sympy.Integral):
        ((variable, first, last),) = expression.limits
        integrand = sympy.lambdify(variable, expression.function.doit(), "mpmath")
        nodes = [first, 0.1, last] if last.is_finite else [first, 1, 100, 10**4, 10**8, mpmath.inf]
        with mpmath.workdps(25):
            return sympy.Float(mpmath.quad(integrand, [mpmath.mpf(x) for x in nodes]))
    if expression.has(sympy.Sum, sympy.Product, sympy.Integral):
        return expression.func(*map(numerically, expression.args))
    return sympy.N(expression, 30)


def derived(law, parameters):
    """The derivation's result at a point; beside a singularity of it, within 1e-40 of the point."""
    defaults = {name: p.default for name, p in inspect.signature(law.predict).parameters.items()}
    arguments = {name: sympy.Rational(str(value)) for name, value in (defaults | parameters).items()}
    result = law.derive().result

    def at(arguments):
        return complex(numerically(result.subs({x: arguments[x.name] for x in result.free_symbols})))

    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        value = at(arguments)
        if np.isfinite(value):
            return value.real
    for name, value in arguments.items():
        inward = {0: sympy.Rational(1, 10**40), 1: -sympy.Rational(1, 10**40)}.get(value, 0)
        with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
            beside = at(arguments | {name: value + inward})
            if np.isfinite(beside):
                return beside.real
    raise AssertionError(f"{law.name} is singular at {parameters}")


CASES = [(law.name, index) for law in PREDICTION.laws for index in range(len(law.points))]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_derivation_agrees_with_the_fast_formula(name, index):
    law = PREDICTION.law(name)
    parameters = law.points[index].parameters
    assert float(law.predict(**parameters)) == pytest.approx(derived(law, parameters), rel=1e-9, abs=1e-9)


def test_each_derivation_has_steps_and_latex():
    for law in PREDICTION.laws:
        derivation = law.derive()
        assert len(derivation.steps) >= 1
        assert derivation.latex()


def enumerated(pass_rates, rollouts, scaling, epsilon):
    """Coefficient of each prompt, over every outcome of a batch, from the advantages that the lab computes."""
    rates = np.repeat(pass_rates, rollouts)
    total = np.zeros(len(pass_rates))
    for bits in itertools.product((0.0, 1.0), repeat=len(rates)):
        rewards = np.array(bits)
        chance = np.prod(np.where(rewards == 1, rates, 1 - rates))
        rewards = rewards.reshape(len(pass_rates), rollouts)
        advantages = group_advantages(rewards, scaling, epsilon)
        total += chance * (advantages * rewards).mean(1)  # v_R = 1, v_W = 0
    return total


@pytest.mark.parametrize("scaling", ["std", "unbiased_std", "none"])
@pytest.mark.parametrize("rollouts", [2, 3, 6])
@pytest.mark.parametrize("pass_rate", [0.0, 0.07, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.3])
def test_coefficient_by_enumeration(scaling, rollouts, pass_rate, epsilon):
    expected = enumerated([pass_rate], rollouts, scaling, epsilon)[0]
    assert group_coefficient(pass_rate, rollouts, scaling, epsilon) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
@pytest.mark.parametrize(
    "rates", [[0.5], [0.2, 0.9], [0.1, 0.5, 0.5], [0.0, 1.0, 0.4], [0.0, 0.0], [1.0, 0.0]]
)
def test_batch_coefficients_by_enumeration(rates, epsilon):
    expected = enumerated(rates, 3, "batch", epsilon)
    np.testing.assert_allclose(batch_std_coefficients(rates, 3, epsilon), expected, atol=1e-12)


def test_batch_of_equal_others_is_the_general_batch():
    general = batch_std_coefficients([0.3, 0.8, 0.8, 0.8], 8, 1e-3)
    assert batch_std_coefficient(0.3, 0.8, 4, 8, 1e-3) == pytest.approx(general[0], rel=1e-11)
    assert batch_std_coefficient(0.3, 0.8, 1, 8, 1e-3) == pytest.approx(
        float(group_coefficient(0.3, 8, "std", 1e-3)), rel=1e-12
    )


@pytest.mark.parametrize("point", PREDICTION.law("std_factor_large_group").points, ids=str)
def test_large_group_series_keeps_its_tolerance(point):
    error = std_factor_large_group(**point.parameters) - std_factor(**point.parameters)
    assert abs(error) <= point.tolerance


def test_large_group_error_falls_as_the_third_power():
    errors = [abs(std_factor_large_group(0.3, g) - std_factor(0.3, g)) for g in (64, 128)]
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.25)
    first_order = [abs(1 - 1 / (8 * g * 0.21) - std_factor(0.3, g)) for g in (64, 128)]
    assert first_order[0] / first_order[1] == pytest.approx(4, rel=0.25)


def test_series_breaks_where_few_groups_have_signal():
    assert std_factor_large_group(0.001, 8) < -100
    assert 0 < std_factor(0.001, 8) < 0.1
    assert std_factor_large_group(0.0, 8) == -np.inf


@pytest.mark.parametrize("point", PREDICTION.law("batch_std_coefficient_large_batch").points, ids=str)
def test_large_batch_keeps_its_tolerance(point):
    given = dict(point.parameters)
    exact = batch_std_coefficient(other_pass_rate=given["pass_rate"], **given)
    assert abs(batch_std_coefficient_large_batch(**given) - exact) <= point.tolerance


def test_large_batch_error_falls_as_the_square():
    errors = [
        abs(batch_std_coefficient_large_batch(0.2, b, 8) - batch_std_coefficient(0.2, 0.2, b, 8))
        for b in (16, 32)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("pass_rate", "rollouts"), [(0.5, 16), (0.05, 64), (0.9, 128)])
def test_factor_and_zero_signal_by_simulation(pass_rate, rollouts):
    draws = 400_000
    right = np.random.default_rng(rollouts).binomial(rollouts, pass_rate, draws)
    spread = np.sqrt(right / rollouts * (1 - right / rollouts)) / np.sqrt(pass_rate * (1 - pass_rate))
    assert abs(spread.mean() - std_factor(pass_rate, rollouts)) < 4 * spread.std() / np.sqrt(draws)
    silent = ((right == 0) | (right == rollouts)).mean()
    share = zero_signal_share(pass_rate, rollouts)
    assert abs(silent - share) <= 4 * np.sqrt(share * (1 - share) / draws) + 1e-12


def test_limits():
    np.testing.assert_array_equal(std_factor([0.0, 1.0], 16), 0.0)
    np.testing.assert_array_equal(zero_signal_share([0.0, 1.0], [2, 16]), 1.0)
    assert std_factor(1e-8, 16) == pytest.approx(np.sqrt(1e-8 * 15), rel=1e-4)
    assert std_factor(0.3, 2) == pytest.approx(np.sqrt(0.21), rel=1e-12)
    assert batch_std_coefficient_large_batch(0.0, 4, 4) == 0
    # unbiased and population scale differ by a factor alone, when nothing is added
    ratio = group_coefficient(0.3, 8, "unbiased_std") / group_coefficient(0.3, 8, "std")
    assert ratio == pytest.approx(np.sqrt(7 / 8), rel=1e-12)


def test_broadcasts():
    rates, groups = np.linspace(0, 1, 5)[:, None], np.array([2, 4, 32])
    table = std_factor(rates, groups)
    assert table.shape == (5, 3)
    assert table[1, 2] == std_factor(0.25, 32)
    assert batch_std_coefficient(rates, 0.5, 2, groups).shape == (5, 3)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: std_factor(1.1, 4), "pass_rate"),
        (lambda: std_factor(np.nan, 4), "pass_rate"),
        (lambda: std_factor("half", 4), "pass_rate"),
        (lambda: std_factor(0.5, 1), "rollouts"),
        (lambda: std_factor(0.5, 2.5), "rollouts"),
        (lambda: std_factor(np.full(1000, 0.5), 10**6), "rollouts"),
        (lambda: group_coefficient(0.5, 4, "std", -1.0), "epsilon"),
        (lambda: group_coefficient(0.5, 4, "variance"), "scaling"),
        (lambda: batch_std_coefficient(0.5, 0.5, 0, 4), "prompts"),
        (lambda: batch_std_coefficient(0.5, 2.0, 1, 4), "other_pass_rate"),
        (lambda: batch_std_coefficient(0.5, 0.5, 10**6, 64), "prompts"),
        (lambda: batch_std_coefficients([], 4), "pass_rates"),
        (lambda: batch_std_coefficients([[0.5]], 4), "pass_rates"),
        (lambda: batch_std_coefficients(np.full(1000, 0.5), 16), "pass_rates"),
        (lambda: zero_signal_share(-0.1, 4), "pass_rate"),
    ],
)
def test_refuses_and_names_the_argument(call, argument):
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert caught.value.argument == argument
