"""What a computation asks of a series: enough checkpoints, and numbers."""

from __future__ import annotations

import numpy as np

from lab.errors import BadInput
from lab.trajectory.series import CheckpointSeries


def require_checkpoints(series: CheckpointSeries, least: int, purpose: str = "measuring") -> None:
    """Refuse a series of fewer than `least` checkpoints.

    Raises:
        BadInput: the message names the steps that there are.
    """
    steps = series.steps
    if len(steps) < least:
        found = ", ".join(f"{step:g}" for step in steps)
        raise BadInput(
            f"checkpoints: {purpose} needs at least {least}, got {len(steps)} (step {found}); "
            "base=DIRECTORY adds the model that training started from as step 0"
        )


def require_finite(series: CheckpointSeries, name: str, start: int, values: np.ndarray) -> None:
    """Refuse NaN and infinity among values that were read.

    Args:
        series: where they came from.
        name: tensor.
        start: index of the first element that was read.
        values: [checkpoint, element].

    Raises:
        BadInput: names the tensor, the element, the step and the file.
    """
    # One sum a checkpoint is not finite if any of its elements is not; only then is the place looked for.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = values.sum(axis=1, dtype=np.float64)
    if np.isfinite(sums).all():
        return
    where = np.argwhere(~np.isfinite(values))
    if not len(where):  # finite values whose sum overflows
        return
    checkpoint, element = (int(index) for index in where[0])
    file = getattr(series, "file", None)
    at = f" in {file(name, checkpoint)}" if file is not None else ""
    raise BadInput(
        f"{name}: element {start + element} is {values[checkpoint, element]} at step "
        f"{series.steps[checkpoint]:g}{at}: training diverged there, or the file is damaged; leave that checkpoint out"
    )
