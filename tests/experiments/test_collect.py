"""What is collected of a run, on weights whose way through the filter is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from experiments.collect import training_pass_rate, under_filters

STEPS = np.arange(0.0, 320.0, 20.0)


def test_the_filter_is_told_apart_from_its_cast_and_its_thresholds() -> None:
    """Four kinds of weight on straight paths, equally many of each, that the parts of the filter treat differently."""
    line = STEPS / STEPS[-1]
    paths = [
        1.0 + 0.1 * line,  # passes everything
        1.0 + 1e-3 * line,  # its range suffices, but bfloat16 (steps of 1/128 at 1) sees no movement
        1e-3 + 1e-5 * line,  # bfloat16 has steps of 7.6e-6 there: it moves once; its range is too small
        np.full(len(STEPS), 0.5),  # stands still
    ]
    raw = np.repeat(np.array(paths).T, 50, axis=1)
    found = under_filters(raw, raw, STEPS, np.random.default_rng(0))
    shares = {name: (row["kept"], row["moved"]) for name, row in found.items()}
    assert shares == {
        "unfiltered": (1.0, 0.75),
        "paper": (0.25, 0.5),
        "cast alone": (1.0, 0.5),
        "thresholds alone": (0.5, 0.75),
    }
    assert found["paper"]["kept_count"] == 50
    assert found["unfiltered"]["r2_median"] == pytest.approx(1.0)
    assert found["paper"]["r2_median"] < 1.0  # steps of the stored type
    # walks as large as straight paths: short ones are dropped as the paths are
    assert 0 < found["paper"]["walk_kept"] <= 0.26


def test_nothing_kept_is_undefined() -> None:
    raw = np.full((len(STEPS), 20), 0.3) + 1e-7 * STEPS[:, None]
    found = under_filters(raw, raw, STEPS, np.random.default_rng(0))
    assert found["paper"]["kept"] == 0 and np.isnan(found["paper"]["r2_median"])


def test_the_training_pass_rate_is_averaged_between_recorded_steps() -> None:
    metrics = xr.Dataset({"reward_verified": ("step", np.arange(1.0, 7.0))}, coords={"step": np.arange(1, 7)})
    tree = xr.DataTree.from_dict({"metrics": metrics})
    series: Any = SimpleNamespace(tree=tree, steps=np.array([0.0, 2.0, 6.0]))
    assert training_pass_rate(series) == pytest.approx([1.5, 4.5])
    series.tree = xr.DataTree.from_dict({"metrics": metrics.rename(reward_verified="reward")})
    assert training_pass_rate(series) is None
