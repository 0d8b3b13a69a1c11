"""What this process has used: time since it started, its peak memory, and that of its GPU."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

_IMPORTED = time.time()


def seconds_since_start() -> float:
    """Return seconds since the process started (since this module was imported, where that is unknown)."""
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not (stat.exists() and uptime.exists()):
        return time.time() - _IMPORTED
    started_ticks = float(stat.read_text().rsplit(")", 1)[1].split()[19])
    return float(uptime.read_text().split()[0]) - started_ticks / os.sysconf("SC_CLK_TCK")


def peak_memory_mb() -> float:
    """Return the largest resident size so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says may still be the parent's, from before the program was started
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1024**2 if sys.platform == "darwin" else used / 1024


def gpu_use() -> dict[str, Any]:
    """Return `gpu`, the name of the GPU in use, and `peak_gpu_mb`, the most that torch has reserved there, in MiB; both
    are None where no GPU is in use."""
    torch = sys.modules.get("torch")
    if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return {"gpu": None, "peak_gpu_mb": None}
    return {
        "gpu": torch.cuda.get_device_name(),
        "peak_gpu_mb": torch.cuda.max_memory_reserved() / 1024**2,
    }
