"""What this machine has, found out without importing torch."""

from __future__ import annotations

import os
from pathlib import Path


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether an NVIDIA GPU can be seen: a device file is there, and the environment does not hide it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "none", "NoDevFiles"):
        return False
    return any(path.name.removeprefix("nvidia").isdecimal() for path in devices.glob("nvidia*"))
