import numpy as np
import pytest
from scipy.signal import freqz, lfilter

from theory.increment_persistence import momentum_cosine
from theory.low_pass import (
    alias_frequency,
    average_gain,
    checkpoint_spectrum,
    increment_spectrum,
    passed_variance,
    window_gain,
)
from theory.prediction import InvalidArgument

RUNS, LENGTH = 400, 2048


def spectrum(rows):
    """Mean periodogram of rows and its standard error, at the positive frequencies."""
    power = np.abs(np.fft.rfft(rows, axis=1)) ** 2 / rows.shape[1]
    frequency = 2 * np.pi * np.arange(power.shape[1]) / rows.shape[1]
    return frequency, power.mean(0), power.std(0, ddof=1) / np.sqrt(rows.shape[0])


def averaged(random, beta, runs=RUNS, length=LENGTH, noise=1.0):
    """White gradients through an exponential moving average, long enough warmed up to be stationary."""
    gradients = noise * random.standard_normal((runs, length + 400))
    return lfilter([1 - beta], [1, -beta], gradients, axis=1)[:, 400:]


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_average_gain_against_a_filter_library(beta):
    w = np.linspace(0, np.pi, 50)
    _, response = freqz([1 - beta], [1, -beta], worN=w)
    assert average_gain(w, beta) == pytest.approx(np.abs(response), abs=1e-12)


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_window_gain_against_a_filter_library(window):
    w = np.linspace(0, np.pi, 50)
    _, response = freqz(np.ones(window) / window, worN=w)
    assert window_gain(w, window) == pytest.approx(np.abs(response), abs=1e-10)


def test_gain_limits():
    assert average_gain([0.0, 2.0], [0.9, 0.0]) == pytest.approx([1, 1])
    assert window_gain([0.0, 2 * np.pi, -4 * np.pi], 9) == pytest.approx([1, 1, 1])
    assert window_gain(2 * np.pi * np.arange(1, 8) / 8, 8) == pytest.approx(np.zeros(7), abs=1e-12)
    assert window_gain(np.linspace(0, 7, 20), 1) == pytest.approx(np.ones(20))
    assert passed_variance([0.0, 0.9]) == pytest.approx([1, 1 / 19])


@pytest.mark.parametrize("beta", [0.3, 0.9])
def test_increment_spectrum_by_simulation(random, beta):
    frequency, power, error = spectrum(averaged(random, beta, noise=1.5))
    inner = slice(8, -8, 40)  # leakage spoils the edges of a steep spectrum
    predicted = increment_spectrum(frequency, beta, 1.5)
    assert np.all(np.abs(power - predicted)[inner] < 4 * error[inner] + 0.01 * predicted[inner])


@pytest.mark.parametrize("beta", [0.5, 0.95])
def test_spectrum_integrates_to_the_variance(random, beta, agree):
    w = np.linspace(-np.pi, np.pi, 20_001)[:-1]
    assert increment_spectrum(w, beta).mean() == pytest.approx(passed_variance(beta), rel=1e-9)
    agree(averaged(random, beta, 20_000, 1)[:, 0] ** 2, passed_variance(beta))


@pytest.mark.parametrize(("beta", "window"), [(0.9, 10), (0.9, 30), (0.6, 3)])
def test_checkpoint_spectrum_by_simulation_and_by_folding(random, beta, window):
    increments = averaged(random, beta, RUNS, 128 * window)
    frequency, power, error = spectrum(increments.reshape(RUNS, 128, window).sum(2))
    predicted = checkpoint_spectrum(frequency, beta, window)
    assert np.all(np.abs(power - predicted)[4:-4] < 4 * error[4:-4] + 0.02 * predicted[4:-4])
    # the same by folding: every w with w L = frequency modulo 2 pi lands there, through the window's gain
    aliases = (frequency[:, None] + 2 * np.pi * np.arange(window)) / window
    folded = increment_spectrum(aliases, beta) * (window * window_gain(aliases, window)) ** 2
    assert predicted == pytest.approx(folded.mean(1), rel=1e-9)


def test_wide_spacing_hides_momentum():
    w = np.linspace(0.1, np.pi, 10)
    assert checkpoint_spectrum(w, 0.9, 4000, 2.0) / 4000 == pytest.approx(np.full(10, 4.0), rel=0.01)
    assert checkpoint_spectrum(w, 0.0, 7) == pytest.approx(np.full(10, 7.0))


def test_spectrum_and_lag_cosine_are_one_law():
    w = 2 * np.pi * np.arange(4096) / 4096
    density = checkpoint_spectrum(w, 0.9, 10)
    for lag in (1, 2, 5):
        assert (density * np.cos(lag * w)).mean() / density.mean() == pytest.approx(
            momentum_cosine(0.9, 10, lag), abs=1e-10
        )


def test_alias_is_where_a_sampled_wave_peaks():
    window, count = 10, 500
    for w in (0.02, 0.7, 1.9, 3.0):
        wave = np.cos(w * window * np.arange(count) + 0.3)
        peak = np.abs(np.fft.rfft(wave * np.hanning(count))).argmax() * 2 * np.pi / count / window
        assert alias_frequency(w, window) == pytest.approx(peak, abs=2 * np.pi / count / window)
    assert alias_frequency(0.1, 10) == pytest.approx(0.1)
    assert alias_frequency(2 * np.pi / 10, 10) == pytest.approx(0, abs=1e-12)


def test_breaks_down_for_gradients_that_are_not_white(random):
    """Alternating gradients: momentum passes far less than (1-beta)/(1+beta) of their variance."""
    sign = (-1.0) ** np.arange(600)
    alternating = sign * random.standard_normal((200, 1)) * np.ones(600)
    passed = lfilter([0.1], [1, -0.9], alternating, axis=1)[:, 400:].var() / alternating.var()
    assert passed < passed_variance(0.9) / 10


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("beta", lambda: average_gain(1.0, 1.0)),
        ("beta", lambda: passed_variance(-0.1)),
        ("frequency", lambda: average_gain(np.nan, 0.9)),
        ("frequency", lambda: window_gain(np.inf, 3)),
        ("window", lambda: window_gain(1.0, 0)),
        ("window", lambda: alias_frequency(1.0, 2.5)),
        ("noise", lambda: increment_spectrum(1.0, 0.9, -1.0)),
        ("window", lambda: checkpoint_spectrum(1.0, 0.9, 0)),
    ],
)
def test_refuses_and_names_the_argument(argument, call):
    with pytest.raises(InvalidArgument, match=f"^{argument}:"):
        call()
