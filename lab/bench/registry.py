"""The benchmarks that exist. To add one: a file with a `run` function, and a row here."""

from __future__ import annotations

BENCHMARKS: dict[str, str] = {"grpo_step": "lab.bench.grpo_step:run"}
"""Name to `module:function`; the function takes (settings, run, seed) and returns the summary to be written."""
