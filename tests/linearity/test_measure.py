import json

import numpy as np
import pytest

from lab.linearity import (
    MedianRSquared,
    forecast_skill,
    get_protocol,
    lag_cosine,
    measure_trajectory,
    r_squared,
    sign_flip_test,
    split_half,
    to_json,
    verdict,
)
from lab.settings import Invalid

STEPS = np.arange(14) * 100.0
UNFILTERED, PAPER = get_protocol("unfiltered"), get_protocol("paper")


def _walk(seed=0, elements=40, drift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * np.cumsum(np.vstack([np.zeros(elements), rng.normal(size=(13, elements)) + drift]), axis=0)


def _measure(values, kind="weights", protocol=UNFILTERED, **options):
    options = {"walk_samples": 2000} | options
    return measure_trajectory(values, STEPS, kind, protocol, np.random.default_rng(1), **options)


def test_keys_and_plain_types():
    measured, _ = _measure(_walk(), spacing_is_safe=True)
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    assert set(measured) == {
        "r2_median",
        "r2_share_above_0_7",
        "r2_quartiles",
        "n",
        "n_zero_variance",
        "retained_share",
        "null_r2_median",
        "null_p_value",
        "null_p_value_reason",
        "skill",
        "skill_damped",
        "damping",
        "origin_step",
        "horizon",
        "skill_by_horizon",
        "skill_p_value",
        "lag_cosine",
        "split_half",
        "nulls",
    }
    assert set(measured["nulls"]) == {"walk", "selection_matched", "sign_flip"}
    assert measured["nulls"]["sign_flip"]["n_patterns"] == 4096
    assert measured["nulls"]["sign_flip"]["exact"] is True
    assert measured["horizon"] == 400.0


def test_raw_for_effects_and_momentum_free_for_tests():
    raw, z = _walk(1, drift=1.0), _walk(2)
    measured, curves = _measure(raw, momentum_free=z)
    assert measured["r2_median"] == pytest.approx(np.median(r_squared(raw, STEPS)))
    assert measured["skill"] == pytest.approx(forecast_skill(raw, STEPS).skill)
    test = sign_flip_test(z, STEPS, MedianRSquared(UNFILTERED, "weights"), np.random.default_rng(0))
    assert measured["null_p_value"] == test.p_value
    assert measured["nulls"]["sign_flip"]["r2_median"] == pytest.approx(test.observed)
    assert measured["nulls"]["sign_flip"]["r2_median_null_q95"] == pytest.approx(np.quantile(test.null, 0.95))
    assert measured["lag_cosine"]["cosine"] == pytest.approx(lag_cosine(z, STEPS, range(1, 7)).tolist())
    assert measured["split_half"]["cosine"] == pytest.approx(split_half(z, STEPS))
    assert measured["nulls"]["sign_flip"]["computed_on"] == "momentum-free position"
    np.testing.assert_allclose(curves.r2, r_squared(raw, STEPS), rtol=1e-12)


def test_unsafe_spacing_is_not_tested():
    measured, _ = _measure(_walk(drift=1.0))
    assert measured["null_p_value"] is None
    assert measured["skill_p_value"] is None
    assert measured["lag_cosine"]["p_value"] is measured["split_half"]["p_value"] is None
    assert "momentum" in measured["null_p_value_reason"]
    assert measured["r2_median"] > 0.8
    assert "cannot be told" in verdict(measured)


@pytest.mark.parametrize("protocol", [UNFILTERED, PAPER], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("kind", ["weights", "logprobs"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_run_that_never_moved(kind, protocol, safe):
    measured, curves = _measure(np.full((14, 30), 0.1), kind, protocol, spacing_is_safe=safe)
    json.dumps(measured, allow_nan=False)
    for key in ("r2_median", "r2_share_above_0_7", "skill", "skill_damped", "damping", "null_p_value"):
        assert measured[key] is None
    assert measured["n"] == 0
    assert measured["n_zero_variance"] == 30
    assert measured["retained_share"] == (1.0 if protocol is UNFILTERED else 0.0)
    assert measured["null_p_value_reason"] is not None
    assert verdict(measured).startswith("this run: cannot be told")
    assert np.isnan(curves.r2).all()


def test_zero_variance_is_counted_and_left_out():
    values = _walk(elements=10)
    values[:, :4] = 0.5
    measured, _ = _measure(values, spacing_is_safe=True)
    assert (measured["n"], measured["n_zero_variance"], measured["retained_share"]) == (6, 4, 1.0)
    assert measured["r2_median"] == pytest.approx(np.median(r_squared(values[:, 4:], STEPS)))


def test_the_null_matches_the_protocol():
    """Driftless log-probs: the filter alone lifts the median R², and its null knows."""
    values = -2 + _walk(3, elements=3000, scale=0.04)
    unfiltered, _ = _measure(values, "logprobs", UNFILTERED, spacing_is_safe=True, max_elements=300)
    paper, curves = _measure(values, "logprobs", PAPER, spacing_is_safe=True, max_elements=300)
    assert unfiltered["null_r2_median"] == pytest.approx(0.45, abs=0.03)
    assert unfiltered["null_r2_median"] == unfiltered["nulls"]["walk"]["r2_median"]
    assert paper["r2_median"] > 0.7
    assert paper["null_r2_median"] == pytest.approx(paper["r2_median"], abs=0.05)
    assert paper["nulls"]["selection_matched"]["retained_share"] == pytest.approx(
        paper["retained_share"], abs=0.05
    )
    assert paper["null_p_value"] > 0.05
    assert len(curves.r2) == paper["n"]


def test_same_generator_state_same_result():
    values = _walk(4, elements=90)
    one, other = (_measure(values, spacing_is_safe=True, max_elements=50)[0] for _ in range(2))
    assert one == other


def test_three_checkpoints_are_enough():
    values = _walk(5)[:3]
    measured, _ = measure_trajectory(
        values, STEPS[:3], "weights", UNFILTERED, np.random.default_rng(0), spacing_is_safe=True
    )
    assert measured["r2_median"] is not None
    assert measured["skill_damped"] is None
    assert verdict(measured).startswith("this run: cannot be told")


def test_impossible_arguments():
    with pytest.raises(Invalid, match="momentum_free"):
        _measure(_walk(), momentum_free=_walk(elements=3))
    with pytest.raises(Invalid, match="kind"):
        _measure(_walk(), kind="activations")
    with pytest.raises(Invalid, match="lags"):
        _measure(_walk(), lags=[])


def test_to_json():
    value = {
        "a": np.float64("nan"),
        "b": np.arange(2),
        "c": (np.int64(1), np.bool_(True)),
        "d": [np.inf, "x"],
    }
    assert to_json(value) == {"a": None, "b": [0, 1], "c": [1, True], "d": [None, "x"]}
