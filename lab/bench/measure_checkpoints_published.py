"""The published way to measure weights, written from its description as something to compare with.

Every checkpoint's state dict is held in memory as bfloat16; of each tensor whose name ends in `.weight`, max(50, 0.1 %)
scalars are drawn; each one in turn is filtered (range above 1e-4, at least four distinct values) and fitted in a loop
over scalars. Run as a process of its own: its memory is that of all checkpoints.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np


def measure(files: list[Path], steps: list[float], seed: int) -> dict[str, float]:
    """Measure the series so; return seconds, scalars looked at, scalars kept and their median R².

    Args:
        files: one safetensors file a checkpoint.
        steps: of the checkpoints.
        seed: of the sample.
    """
    import torch
    from safetensors.torch import load_file
    from scipy.stats import linregress

    started = time.perf_counter()
    states = [{name: each.to(torch.bfloat16) for name, each in load_file(file).items()} for file in files]
    times = (np.array(steps) - steps[0]) / (steps[-1] - steps[0])
    generator = np.random.default_rng(seed)
    looked_at, found = 0, []
    for name in states[0]:
        if not name.endswith(".weight"):
            continue
        size = states[0][name].numel()
        indices = generator.choice(size, size=min(size, max(50, size // 1000)), replace=False)
        chosen = torch.from_numpy(indices)
        paths = np.stack([state[name].flatten()[chosen].float().numpy() for state in states], axis=1)
        looked_at += len(paths)
        for path in paths.astype(np.float64):
            if path.max() - path.min() <= 1e-4 or len(np.unique(path)) < 4:
                continue
            found.append(linregress(times, path).rvalue ** 2)
    return {
        "seconds": time.perf_counter() - started,
        "scalars": looked_at,
        "kept": len(found),
        "r2_median": float(np.median(found)) if found else float("nan"),
    }


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    print(json.dumps(measure([Path(file) for file in order["files"]], order["steps"], order["seed"])))
