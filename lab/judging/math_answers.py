"""Mathematical answers, read and compared by math-verify (Kydlíček 2025); it runs in the judging process alone.

Its own time-outs are off: they need SIGALRM and the main thread, and report a time-out as a wrong answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import math_verify


def warm_up() -> None:
    """Build the tables that the parsers make at their first use, and that every fork then has."""
    for answer, completion in ((r"\frac{1}{2}", r"\boxed{0.5}"), ("x^2+1", r"so $1+x^2$"), ("3", "It is 3.")):
        verify(answer, completion)


def verify(answer: str, completion: str) -> int | None:
    """Return 1 if the final answer in `completion` equals `answer`, else 0; None if `answer` cannot be read.

    Args:
        answer: LaTeX or plain, with or without dollar signs.
        completion: read by math-verify's rules: a boxed answer first, else the last expression.
    """
    right = _read(answer)
    if not right:
        return None
    written = math_verify.parse(completion, parsing_timeout=None)
    return int(math_verify.verify(list(right), written, timeout_seconds=None))


@lru_cache(maxsize=4096)
def _read(answer: str) -> tuple[Any, ...]:
    latex = answer if "$" in answer or "\\boxed" in answer else f"${answer}$"
    return tuple(math_verify.parse(latex, parsing_timeout=None))
