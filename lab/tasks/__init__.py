"""Verifiable tasks. To add one: write a `Task` in a file of its own and name it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.settings import build, choose, option_name
from lab.tasks.arithmetic import Addition, Maximum, ModularAddition, Multiplication, Subtraction
from lab.tasks.math_verify import MathVerify
from lab.tasks.mixture import Mixture
from lab.tasks.reasoning_gym import ReasoningGym
from lab.tasks.task import Problem, Split, Task, TaskSettings
from lab.tasks.word_problems import WordProblems

TASKS: dict[str, type[Task]] = {
    "addition": Addition,
    "subtraction": Subtraction,
    "multiplication": Multiplication,
    "maximum": Maximum,
    "modular_addition": ModularAddition,
    "mixture": Mixture,
    "word_problems": WordProblems,
    "reasoning_gym": ReasoningGym,
    "math_verify": MathVerify,
}


def build_task(node: Mapping[str, Any], key: str = "task") -> Task:
    """Build the task that the configuration group `node` names.

    Raises:
        BadInput: unknown task, unknown key or impossible value, named by its full key.
    """
    task_class = choose(TASKS, option_name(node, key), f"{key}.name")
    return task_class(build(task_class.settings_class, node, key))


__all__ = ["TASKS", "Problem", "Split", "Task", "TaskSettings", "build_task"]
