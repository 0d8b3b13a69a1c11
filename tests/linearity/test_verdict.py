import numpy as np
import pytest

from lab.linearity import get_protocol, measure_trajectory, verdict
from lab.settings import Invalid


def _measurement(**changes):
    return {
        "r2_median": 0.8,
        "null_p_value": 0.001,
        "null_p_value_reason": None,
        "skill": 0.02,
        "skill_damped": 0.38,
        "damping": 0.55,
        "skill_p_value": 0.004,
        "skill_by_horizon": {
            "horizon": [50.0, 100.0, 150.0, 200.0],
            "skill": [0.1, 0.0, -0.1, -0.2],
            "skill_damped": [0.4, 0.5, -0.1, 0.1],
        },
        "nulls": {"sign_flip": {"n_patterns": 1000}},
    } | changes


def test_straight_and_forecastable_up_to_the_first_failure():
    assert verdict(_measurement()) == (
        "this run: straighter than chance (sign-flip p=.001); forecastable to 100 steps beyond the fit "
        "window with damping .55 (skill .38); undamped .02"
    )


def test_neither():
    sentence = verdict(_measurement(null_p_value=0.34, skill_damped=0.01, skill_p_value=0.4, skill=-1.5))
    assert sentence == (
        "this run: not straighter than chance (sign-flip p=.34); not forecastable (damped skill .01, p=.40; "
        "undamped -1.50)"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"skill_damped": -0.2}, "; not forecastable (damped skill -.20"),
        ({"skill_damped": 0.0}, "; not forecastable (damped skill .00"),
        ({"skill_p_value": 0.06}, "p=.06"),
        ({"skill_damped": None}, "; cannot be told whether it is forecastable"),
        ({"skill_p_value": None}, "; cannot be told whether it is forecastable"),
        ({"null_p_value": 0.05}, ": straighter than chance (sign-flip p=.05)"),
        ({"null_p_value": 0.0002441}, "(sign-flip p=.00024)"),
        ({"null_p_value": 1.0}, "not straighter than chance (sign-flip p=1.00)"),
    ],
)
def test_parts(changes, words):
    assert words in verdict(_measurement(**changes))


def test_positive_only_further_out_is_not_forecastable():
    by_horizon = {"horizon": [50.0, 100.0], "skill": [0, 0], "skill_damped": [-0.1, 0.5]}
    assert "not forecastable at the nearest horizon" in verdict(_measurement(skill_by_horizon=by_horizon))


def test_alpha_and_level():
    sentence = verdict(_measurement(null_p_value=0.03), level="8 seeds", alpha=0.01)
    assert sentence.startswith("8 seeds: not straighter than chance (sign-flip p=.03)")
    with pytest.raises(Invalid, match="alpha"):
        verdict(_measurement(), alpha=1.0)


def test_reason_is_passed_on():
    sentence = verdict(_measurement(null_p_value=None, null_p_value_reason="too close"))
    assert sentence == "this run: cannot be told (median R² .80, untested): too close"


def test_too_few_patterns_to_reject():
    few = {"sign_flip": {"n_patterns": 16}}
    assert "16 sign patterns cannot give p=.05" in verdict(_measurement(nulls=few, null_p_value=0.0625))
    enough = {"sign_flip": {"n_patterns": 20}}
    assert "straighter than chance" in verdict(_measurement(nulls=enough))


@pytest.mark.parametrize(("drift", "word"), [(0.0, ": not straighter"), (1.0, ": straighter")])
def test_from_a_real_measurement(drift, word):
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(14, 100)) + drift, axis=0)
    measured, _ = measure_trajectory(
        values, np.arange(14), "weights", get_protocol("unfiltered"), rng, spacing_is_safe=True
    )
    sentence = verdict(measured)
    assert word in sentence
    assert ("; forecastable to 4 steps" in sentence) == (drift > 0)
