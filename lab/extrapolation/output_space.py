"""Choosing alpha of output-space extrapolation, beside the last checkpoint with a temperature chosen on as much.

Extrapolating logits sharpens, and so does a lower temperature: an alpha that was tuned is to be compared with a
temperature that was tuned on the same validation problems. Both are then scored on test problems that chose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab.draw import stable_hash
from lab.errors import BadInput
from lab.evaluation import (
    Interval,
    average_at_k,
    paired_difference,
    pass_at_k,
    pass_rate_interval,
    pass_rates,
)

_BUCKETS = 10_000
_FEWEST = 2  # of one problem there is no interval


@dataclass(frozen=True)
class Candidate:
    """One way of decoding the two checkpoints."""

    alpha: float
    """1 is the last checkpoint."""
    temperature: float


@dataclass(frozen=True)
class Scored:
    """What came of decoding some problems."""

    correct: np.ndarray
    """[problem, rollout], 0 or 1, NaN where not judged."""
    tokens: int
    """Tokens sampled."""
    token_passes: int
    """Tokens sampled times models run for each."""


Evaluate = Callable[[Candidate, np.ndarray], Scored]
"""Decodes the problems of the given rows, int64 [problem]; every candidate is sampled with the same uniforms."""


@dataclass(frozen=True)
class Arm:
    """One arm: its candidates on validation problems, and the chosen one on test problems."""

    candidates: tuple[Candidate, ...]
    validation: tuple[Scored, ...]
    """Of each candidate."""
    chosen: Candidate
    test: Scored

    def numbers(self, ks: Sequence[int]) -> dict[str, Any]:
        """Return what is written to summary.json.

        Args:
            ks: pass@k is given for these.
        """
        correct = self.test.correct
        return {
            **asdict(self.chosen),
            f"avg@{correct.shape[1]}": average_at_k(correct),
            "interval_half_width": float(pass_rate_interval(correct)),
            **{f"pass@{k}": pass_at_k(correct, k) for k in ks},
            "unjudged": int(np.isnan(correct).sum()),
            **(self._choice() if self.candidates else {}),
        }

    def _choice(self) -> dict[str, Any]:
        """Return what the candidates scored, and what trying them cost."""
        return {
            "curve": [
                {
                    **asdict(candidate),
                    "validation": average_at_k(scored.correct),
                    "interval_half_width": float(pass_rate_interval(scored.correct)),
                }
                for candidate, scored in zip(self.candidates, self.validation, strict=True)
            ],
            "budget": {
                "candidates": len(self.candidates),
                "validation_completions": sum(scored.correct.size for scored in self.validation),
                "validation_tokens": sum(scored.tokens for scored in self.validation),
                "validation_token_passes": sum(scored.token_passes for scored in self.validation),
            },
        }


@dataclass(frozen=True)
class OutputSpaceComparison:
    """Extrapolated decoding beside its baselines, on the same test problems."""

    extrapolated: Arm
    temperature_tuned: Arm
    """The last checkpoint at the temperature that was best on the validation problems."""
    last: Arm
    """The last checkpoint as it is; nothing is chosen."""

    def difference(self, baseline: Arm, generator: np.random.Generator, relative: bool = False) -> Interval:
        """Return by how much extrapolation scores better, paired, with a bootstrap interval over test problems."""
        return paired_difference(
            pass_rates(self.extrapolated.test.correct),
            pass_rates(baseline.test.correct),
            generator,
            relative=relative,
        )


def split_rows(keys: Sequence[str], validation_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which problems are for choosing and which for scoring, each int64 [problem], in order.

    A hash of the problem's canonical name decides, so that one that chose anything in any run scores in none.

    Args:
        keys: canonical names.
        validation_share: share that is for choosing, in (0, 1).

    Raises:
        BadInput: a part has fewer than two problems.
    """
    buckets = np.array([stable_hash("output_space_split", key) % _BUCKETS for key in keys])
    chosen_on = buckets < validation_share * _BUCKETS
    validation, test = np.flatnonzero(chosen_on), np.flatnonzero(~chosen_on)
    if min(len(validation), len(test)) < _FEWEST:
        raise BadInput(
            f"validation_share: of {len(keys)} held-out problems {len(validation)} are for choosing and {len(test)} "
            f"for scoring, at least {_FEWEST} of each are needed; raise evaluation.problems, or change the share"
        )
    return validation, test


def compare_decodings(
    evaluate: Evaluate,
    alphas: Sequence[float],
    temperatures: Sequence[float],
    temperature: float,
    validation: np.ndarray,
    test: np.ndarray,
) -> OutputSpaceComparison:
    """Choose alpha, and the baseline's temperature, on validation problems; score both on test problems.

    The highest pass rate wins; of equals, the candidate nearest to the last checkpoint as it is.

    Args:
        evaluate: decodes and verifies; called once for each candidate and part.
        alphas: candidates at `temperature`.
        temperatures: candidates of the last checkpoint alone.
        temperature: of the extrapolated model, and of the last checkpoint as it is.
        validation: rows of the problems that choose.
        test: rows of those that score.
    """
    done: dict[tuple[Candidate, bool], Scored] = {}

    def score(candidate: Candidate, final: bool) -> Scored:
        if (candidate, final) not in done:
            done[candidate, final] = evaluate(candidate, test if final else validation)
        return done[candidate, final]

    def arm(candidates: Sequence[Candidate]) -> Arm:
        scored = [score(candidate, False) for candidate in candidates]
        best = _best(candidates, [average_at_k(each.correct) for each in scored], temperature)
        return Arm(tuple(candidates), tuple(scored), best, score(best, True))

    plain = Candidate(1.0, temperature)
    return OutputSpaceComparison(
        extrapolated=arm([Candidate(alpha, temperature) for alpha in alphas]),
        temperature_tuned=arm([Candidate(1.0, other) for other in temperatures]),
        last=Arm((), (), plain, score(plain, True)),
    )


def _best(candidates: Sequence[Candidate], rates: Sequence[float], temperature: float) -> Candidate:
    def rank(place: int) -> tuple[float, float]:
        candidate, rate = candidates[place], rates[place]
        away = abs(candidate.alpha - 1.0) + abs(candidate.temperature - temperature)
        return (rate if rate == rate else -np.inf, -away)

    return candidates[max(range(len(candidates)), key=rank)]
