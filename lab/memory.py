"""Running out of memory: telling it from other errors, and saying which setting to lower."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.errors import LabError, RunFailed

if TYPE_CHECKING:
    from lab.training import TrainSettings

_WORDS = ("out of memory", "allocate memory", "status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the operating system, NumPy or torch (on any device) has refused memory, or did so on the way to it."""
    text = str(error).lower()
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or refused or any(words in text for words in _WORDS):
        return True
    # What fails while a CUDA graph is captured hides the error that made it fail.
    before = error.__cause__ or error.__context__
    return before is not None and is_out_of_memory(before)


@contextmanager
def naming_what_to_lower(settings: TrainSettings) -> Iterator[None]:
    """Turn what a run raises for want of memory into a message that names its settings, with their values.

    Raises:
        RunFailed: memory was refused in the block.
    """
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunFailed(
            f"out of memory ({first_line}); {what_to_lower(settings)}. What the run had saved is kept"
        ) from error


def what_to_lower(settings: TrainSettings) -> str:
    """Return which settings decide how much memory a run takes, with their values, those without a price first."""
    objective = settings.objective
    if not objective.trains_language_model:
        return f"lower objective.replicates ({getattr(objective, 'replicates', 1)})"
    at_a_time = getattr(objective, "micro_batch_prompts", None)
    parts = [f"set objective.micro_batch_prompts lower ({'all at once' if at_a_time is None else at_a_time})"]
    if getattr(settings.policy, "gradient_checkpointing", None) is False:
        parts.append("set policy.gradient_checkpointing=true")
    named = {
        "objective.rollouts": getattr(objective, "rollouts", None),
        "generation.max_new_tokens": settings.generation and settings.generation.max_new_tokens,
        "evaluation.problems": settings.evaluation and settings.evaluation.problems,
    }
    lowered = ", ".join(f"{key} ({value})" for key, value in named.items() if value is not None)
    return f"{', '.join(parts)}, or lower {lowered}"
