"""The points of every law, predicted and simulated: no files, no processes, no verdicts."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.checks.rows import Check
from lab.checks.simulation import Simulation
from lab.draw import Draw

if TYPE_CHECKING:
    from theory.prediction import Point

_FEWEST_SAMPLES = 400  # Statistics of fewer are no longer near normal; the jackknife needs its blocks.


def simulations(prediction: str) -> Mapping[str, Simulation]:
    """The simulations of a prediction by law, empty where its file `lab.checks.PREDICTION` is missing."""
    name = f"lab.checks.{prediction}"
    if importlib.util.find_spec(name) is None:
        return {}
    found: Mapping[str, Simulation] = importlib.import_module(name).SIMULATIONS
    return found


def laws_of(predictions: Sequence[str]) -> list[tuple[str, str]]:
    """(prediction, law) of every law of these predictions, in the order in which they are derived."""
    from theory import PREDICTIONS

    return [(name, law.name) for name in predictions for law in PREDICTIONS[name].laws]


def not_simulated(laws: Sequence[tuple[str, str]]) -> list[str]:
    """`prediction.law` of each law that no simulation could refute."""
    known = {prediction: simulations(prediction) for prediction, _ in laws}
    return [f"{prediction}.{law}" for prediction, law in laws if law not in known[prediction]]


def check_law(
    prediction: str, law: str, seed: int, effort: float = 1.0, most_points: int | None = None
) -> list[Check]:
    """Predict and simulate one law at its points.

    The random numbers of a point depend on (seed, prediction, law, place of the point) alone. Points at which the
    formula is undefined or infinite have nothing to compare and are left out.

    Args:
        prediction: module name within `theory`.
        law: one of its laws, which must be simulated.
        seed: root of all randomness.
        effort: factor on the number of samples.
        most_points: the first, the last and some between are taken where there are more.
    """
    from theory import PREDICTIONS

    checked = PREDICTIONS[prediction].law(law)
    simulation = simulations(prediction)[law]
    draw = Draw(seed)
    predictions = [float(checked.predict(**_arguments(point))) for point in checked.points]
    compared = [index for index, predicted in enumerate(predictions) if math.isfinite(predicted)]
    rows = []
    for index in _spread(compared, most_points):
        arguments = _arguments(checked.points[index])
        generator = draw.generator(f"check {prediction} {law}", step=index)
        estimate = simulation.run(arguments, scaled(simulation.samples, effort), generator)
        rows.append(
            Check(
                prediction=prediction,
                law=law,
                point=index,
                parameters=arguments,
                predicted=predictions[index],
                simulated=float(estimate.value),
                standard_error=float(estimate.standard_error),
                tolerance=checked.points[index].tolerance,
                exact=checked.order is None,
                samples=estimate.samples,
            )
        )
    return rows


def _arguments(point: Point) -> dict[str, Any]:
    return dict(point.parameters)


def _spread(places: list[int], most: int | None) -> list[int]:
    """At most so many of them, evenly from first to last."""
    if most is None or len(places) <= most:
        return places
    return [places[round(step * (len(places) - 1) / (most - 1))] for step in range(most)]


def scaled(samples: int, effort: float) -> int:
    """`samples` times `effort`, but not so few that the standard error itself becomes doubtful."""
    return max(round(samples * effort), min(samples, _FEWEST_SAMPLES))
