"""The simulated phase diagram: its cells lie where they say, and its numbers are those of the runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from experiments.phase_diagram import phase_diagram


@pytest.mark.parametrize(("curvature", "signal"), [(0.0, 2.0), (0.3, 0.5), (20.0, 7.0)])
def test_a_cell_lies_where_it_says(curvature: float, signal: float) -> None:
    """Mean and variance carried update by update."""
    cell = phase_diagram.cell(curvature, signal)
    h = cell["spectrum"]["largest"]
    mean, variance = cell["start"], 0.0
    for _ in range(phase_diagram.WINDOW):
        mean -= h * mean + cell["slope"]
        variance = (1 - h) ** 2 * variance + 1.0
    assert abs(mean - cell["start"]) / np.sqrt(variance) == pytest.approx(signal)
    assert -phase_diagram.WINDOW * np.log1p(-h) == pytest.approx(curvature)


def test_a_small_diagram_agrees_with_theory_and_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phase_diagram, "CURVATURES", (0.0, 2.0))
    monkeypatch.setattr(phase_diagram, "SIGNALS", (1.0, 4.0))
    result = tmp_path / "result.json"
    words = [
        "--seeds",
        "2",
        "--replicates",
        "60",
        "--runs-dir",
        str(tmp_path / "runs"),
        "--result",
        str(result),
    ]
    assert phase_diagram.main(words) == 0
    assert "largest |z|" in capsys.readouterr().out
    found = json.loads(result.read_text())
    assert found["n_cells"] == 12 and found["largest_z"] < 4.5
    straight = found["maps"][0]
    assert straight["name"] == "r_squared" and straight["largest_difference"] < 0.05

    assert np.all(np.diff(straight["simulated"], axis=1) > 0)
    assert abs(found["null_quantile"]["simulated"] - found["null_quantile"]["predicted"]) < 0.05


def test_the_stored_diagram_has_the_whole_grid_and_agrees() -> None:
    stored = json.loads(phase_diagram.RESULT.read_text())
    assert stored["config"]["curvature_horizon"] == pytest.approx(phase_diagram.CURVATURES)
    assert stored["config"]["signal"] == pytest.approx(phase_diagram.SIGNALS)
    assert stored["n_cells"] == 3 * 144
    assert stored["largest_z"] < norm.isf(0.001 / (2 * stored["n_cells"]))  # Bonferroni, family-wise .001
    for each in stored["maps"]:
        z = np.subtract(each["simulated"], each["predicted"]) / each["standard_error"]
        assert np.abs(z).max() == pytest.approx(each["largest_z"], abs=0.02)
        assert 0.8 < np.sqrt((z**2).mean()) < 1.2
    null = stored["null_quantile"]
    assert abs(null["simulated"] - null["predicted"]) < 3 * null["standard_error"]
