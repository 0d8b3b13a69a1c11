"""The ways a verb can end other than well, each with the exit code that scripts rely on."""

from __future__ import annotations


class LabError(Exception):
    """Base of every error that is shown as one plain message, without a traceback."""

    exit_code = 3


class BadInput(LabError):
    """The configuration or a file handed in cannot be used; nothing was computed."""

    exit_code = 2


class CheckFailed(LabError):
    """A check ran to its end and did not hold."""

    exit_code = 1


class RunFailed(LabError):
    """A run could not go on (NaN, memory, disk); what it had saved is kept."""

    exit_code = 3


class Interrupted(LabError):
    """A person or the scheduler stopped the run; it can be resumed."""

    exit_code = 130
