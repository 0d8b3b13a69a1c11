"""Full Hugging Face checkpoints `checkpoint-N`, written when a run is asked to keep them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lab.files import atomic_directory, remove_tree
from lab.objectives.objective import Objective

_PATTERN = re.compile(r"^checkpoint-(\d+)$")


def checkpoint_steps(directory: Path) -> list[int]:
    """Return the steps of the checkpoints in `directory`, in numeric order."""
    matches = [_PATTERN.match(path.name) for path in directory.iterdir()] if directory.is_dir() else []
    return sorted(int(match.group(1)) for match in matches if match)


def write_checkpoint(
    directory: Path,
    step: int,
    objective: Objective,
    keep_last: int | None,
    state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `directory/checkpoint-STEP` whole or not at all, then drop what `keep_last` does not cover.

    Step 0 is kept whatever `keep_last` says: every measurement and extrapolation starts from it. `state` is what
    `Objective.whole_state` returned.
    """
    target = directory / f"checkpoint-{step}"
    with atomic_directory(target) as unfinished:
        objective.save_pretrained(unfinished, state)
    if keep_last is not None:
        trained = [recorded for recorded in checkpoint_steps(directory) if recorded > 0]
        for old in trained[:-keep_last]:
            remove_tree(directory / f"checkpoint-{old}")
    return target
