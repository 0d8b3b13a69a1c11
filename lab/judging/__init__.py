"""Judging of completions in a process of its own, with limits of time and memory.

A verifier that reads mathematics can be made to compute for ever, or to fill the memory, by what a model writes. It
therefore never runs in the process that trains. To add one: write a module with `warm_up()` and
`verify(answer, completion) -> int | None`, and give its name to a `Judge`.
"""

from __future__ import annotations

from lab.judging.judge import Judge, JudgeCounts, JudgeSettings

__all__ = ["Judge", "JudgeCounts", "JudgeSettings"]
