"""What is said about one tensor once all its elements have been seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab.linearity.checks import FloatArray
from lab.linearity.filters import Protocol
from lab.linearity.forecast import forecast_skill
from lab.linearity.increments import split_half
from lab.linearity.products import unflipped
from lab.linearity.sign_flip import SignPatterns, Statistic, sign_flip_test
from lab.linearity.statistics import DampedSkill, LagCosine, MedianRSquared
from lab.linearity.streaming.accumulator import State
from lab.linearity.streaming.histogram import coarse, quantiles, share_above
from lab.linearity.streaming.increment_products import equivalent_path, neighbour_cosine
from lab.linearity.streaming.low_rank import rank_one_share
from lab.linearity.streaming.selection import Selection

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)

NUMBERS = (
    "share_above_0_7",
    "skill",
    "skill_damped",
    "damping",
    "lag_cosine",
    "split_half",
    "rank_one_share",
)
P_VALUES = ("r2_p_value", "skill_p_value", "lag_cosine_p_value")


class TensorStatistics:
    """Makes a tensor's result from its states: numbers, p-values, and what is pooled further.

    The p-values are sign-flip tests of this tensor alone, one-sided, all with the same patterns: of the median R²
    over the tensor's sampled elements, of the damped skill and of the lag cosine over all of them.

    Args:
        steps: [checkpoint].
        protocol: cast and filter of the test of R².
        fit_share: see `lab.linearity.forecast_skill`.
        patterns: of the sign flips; None leaves the p-values undefined.
    """

    def __init__(
        self, steps: FloatArray, protocol: Protocol, fit_share: float, patterns: SignPatterns | None
    ) -> None:
        self._steps, self._fit_share, self._patterns = steps, fit_share, patterns
        self._median = MedianRSquared(protocol, "weights")
        self._generator = np.random.default_rng(0)  # Unused: the patterns are given.

    def __call__(self, selection: Selection, states: Sequence[State]) -> State:
        """Return `products`, `counts`, `tally`, `quantiles`, `coarse`, `numbers`, `p_values`, and samples as they are.

        Args:
            selection: the tensor.
            states: of `IncrementProducts`, `RSquaredCounts` and any number of `Sample`; one that is called `tensor`
                serves the test of the median R².
        """
        result: State = {key: array for state in states for key, array in state.items() if key != "places"}
        sample = result.pop("tensor", None)
        return (
            result
            | self.of_sums(result["products"], result["counts"])
            | {"p_values": self._test(result, sample)}
        )

    def of_sums(self, products: FloatArray, counts: np.ndarray) -> State:
        """Return `quantiles`, `coarse` and `numbers` of one tensor, or of several whose sums were added up."""
        path = equivalent_path(products)
        forecast = forecast_skill(path, self._steps, self._fit_share)
        numbers = {
            "share_above_0_7": share_above(counts),
            "skill": forecast.skill,
            "skill_damped": forecast.skill_damped,
            "damping": forecast.damping,
            "lag_cosine": neighbour_cosine(products),
            "split_half": split_half(path, self._steps),
            "rank_one_share": rank_one_share(products, unflipped(products), centred=True)[0],
        }
        return {
            "quantiles": quantiles(counts, LEVELS),
            "coarse": coarse(counts),
            "numbers": np.array([numbers[name] for name in NUMBERS]),
        }

    def _test(self, result: State, sample: np.ndarray | None) -> np.ndarray:
        p_values = np.full(len(P_VALUES), np.nan)
        if self._patterns is None:
            return p_values
        path = equivalent_path(result["products"])
        tests: list[tuple[FloatArray | None, Statistic]] = [
            (None if sample is None else sample.astype(np.float64), self._median),
            (path, DampedSkill(self._fit_share)),
            (path, LagCosine(1)),
        ]
        for place, (values, statistic) in enumerate(tests):
            if values is not None and values.shape[1] > 0:
                test = sign_flip_test(
                    values, self._steps, statistic, self._generator, patterns=self._patterns
                )
                p_values[place] = test.p_value
        return p_values
