"""The form of a simulation that could refute a law."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.checks.estimate import Estimate

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Simulation:
    """How a law is put to the test.

    Attributes:
        run: (parameters of a `theory.prediction.Point`, number of samples, source of randomness) -> estimate of
            what `Law.predict` predicts there. It acts out the process that the law speaks of, by the lab's own
            code where there is some (advantages, reward flips, optimisers, R², skill), never by the formula.
        samples: draws at which a 2 % error of the formula is seen at one of the law's points at least.
    """

    run: Callable[[Parameters, int, np.random.Generator], Estimate]
    samples: int
