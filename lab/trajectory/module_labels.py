"""Where in a model a tensor belongs, by its name."""

from __future__ import annotations

import re


def module_labels(tensor: str) -> tuple[int, str]:
    """Return the layer number (-1 for none) and the module kind of a tensor name."""
    match = re.search(r"\.(\d+)\.", tensor)
    pieces = tensor.split(".")
    kind = pieces[-2] if len(pieces) > 1 and pieces[-1] in ("weight", "bias") else pieces[-1]
    return (int(match.group(1)) if match else -1), kind
