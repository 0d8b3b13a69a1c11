"""What another library's error says, in one line that can stand in a message."""

from __future__ import annotations

_LONGEST = 300


def in_words(error: BaseException) -> str:
    """Return the error's type and the first line of it that says something: one that does not end in a colon."""
    said: list[str] = []
    for line in str(error).strip().splitlines():
        said += [" ".join(line.split())] if line.strip() else []
        if said and not said[-1].endswith(":"):
            break
    words = " ".join(said) or "(no message)"
    short = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
    return f"{type(error).__name__}: {short}"
