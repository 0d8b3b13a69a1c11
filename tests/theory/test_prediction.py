"""Every law of every prediction: it derives itself, and what it derives is what `predict` computes."""

import numpy as np
import pytest
import sympy

from theory import PREDICTION_MODULES, PREDICTIONS
from theory.prediction import (
    Derivation,
    InvalidArgument,
    Step,
    checkpoint_steps,
    covariance_matrix,
    identity,
    probability,
)

CHECKED = (
    "gaussian_r_squared",
    "curved_bowl",
    "low_pass",
    "forecast_error",
    "increment_persistence",
    "low_rank_walk",
    "phase_diagram",
)
LAWS = [(name, law) for name in CHECKED for law in PREDICTIONS[name].laws]


def test_registry_lists_every_module_once_and_in_order():
    assert set(PREDICTIONS) == set(PREDICTION_MODULES)
    numbers = [prediction.number for prediction in PREDICTIONS.values()]
    assert numbers == sorted(set(numbers))
    with pytest.raises(KeyError):
        PREDICTIONS["no_such_prediction"]


@pytest.mark.parametrize("name", PREDICTION_MODULES)
def test_laws_are_complete(name):
    prediction = PREDICTIONS[name]
    names = [law.name for law in prediction.laws]
    assert len(set(names)) == len(names)
    for law in prediction.laws:
        assert law.statement
        assert law.points
        assert prediction.law(law.name) is law
        if law.order is None:
            assert all(point.tolerance == 0 for point in law.points)
    with pytest.raises(KeyError, match=names[0]):
        prediction.law("nonsense")


@pytest.mark.parametrize(("name", "law"), LAWS, ids=[f"{name}.{law.name}" for name, law in LAWS])
def test_derived_result_is_what_predict_computes(name, law):
    derivation = law.derive()
    assert len(derivation.steps) >= 2
    assert derivation.latex()
    pairs = [(derivation.evaluate(p.parameters), float(law.predict(**p.parameters))) for p in law.points]
    derived, predicted = np.array([pair for pair in pairs if not np.isnan(pair[0])]).T
    assert np.all(np.isfinite([pair[1] for pair in pairs]))
    assert derived.size >= min(2, len(pairs))  # a result derived for small n must cover two points
    assert predicted == pytest.approx(derived, rel=1e-9, abs=1e-9)


def test_a_wrong_identity_is_refused():
    x = sympy.Symbol("x")
    assert identity("binomial", (x + 1) ** 2, x**2 + 2 * x + 1).text == "binomial"
    with pytest.raises(ArithmeticError, match="binomial"):
        identity("binomial", (x + 1) ** 2, x**2 + 1)


def test_evaluation_of_sums_products_and_integrals():
    x, z = sympy.symbols("x z", positive=True)
    n, k = sympy.symbols("n k", integer=True, positive=True)
    result = sympy.Product(1 + x / k, (k, 1, n)) + sympy.Integral(
        sympy.exp(-z) * sympy.Sum(z**k / sympy.factorial(k), (k, 1, n)), (z, 0, sympy.oo)
    )
    derivation = Derivation((Step("given", result),), result)
    assert derivation.evaluate({"n": 4, "x": 0.5, "unused": 1}) == pytest.approx(
        1.5 * 1.25 * (7 / 6) * 1.125 + 4, rel=1e-10
    )
    with pytest.raises(KeyError, match="x"):
        derivation.evaluate({"n": 4})
    chosen = sympy.Piecewise((x, sympy.Eq(n, 3)), (sympy.nan, True))
    assert np.isnan(Derivation((), chosen).evaluate({"n": 4, "x": 1.0}))
    assert Derivation((), sympy.Integral(z, (z, 0, 2))).evaluate({}) == pytest.approx(2)
    assert Derivation((), x**2).latex() == "x^{2}"


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("p", lambda: probability("p", 1.1)),
        ("p", lambda: probability("p", "half")),
        ("t", lambda: checkpoint_steps("t", [0, 1])),
        ("t", lambda: checkpoint_steps("t", [0, 1, 1])),
        ("S", lambda: covariance_matrix("S", np.zeros((2, 2)))),
        ("S", lambda: covariance_matrix("S", [[1, 2], [2, 1]], definite=False)),
        ("S", lambda: covariance_matrix("S", [1, 2])),
    ],
)
def test_refuses_and_names_the_argument(argument, call):
    with pytest.raises(InvalidArgument, match=f"^{argument}:") as caught:
        call()
    assert caught.value.argument == argument
