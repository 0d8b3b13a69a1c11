import json

import numpy as np
import pytest

from experiments.adam_diagram import adam_diagram
from experiments.adam_diagram.adam_diagram import Setting, compare, simulate
from lab.checks.adam import bowl_paths
from lab.linearity.r_squared import r_squared


def test_diagram_is_made_of_the_runs_of_the_check():
    """The same mean R² as unit curvature and distance give, by other code and other noise."""
    setting, ratio, noise = Setting(60, 7, 0.9, 0.99), 2.0, 3.0
    simulated, error = simulate(setting, np.array([ratio]), np.array([noise]), 2000, seed=0)
    steps = np.arange(0, 61, 10)
    paths = bowl_paths(1.0, 1.0, noise, ratio / 60, (0.9, 0.99), steps, 1000, np.random.default_rng(0))
    pairs = r_squared(paths.positions.reshape(7, -1), steps).reshape(-1, 2).mean(1)
    spread = np.hypot(error[0, 0], pairs.std() / np.sqrt(1000))
    assert abs(simulated[0, 0] - pairs.mean()) < 4 * spread


def test_cells_beyond_the_target_are_named():
    found = compare(Setting(13, 14, 0.9, 0.999), 1000, seed=0)
    assert found["n_beyond_target"] == len(found["beyond_target"]) > 0
    assert found["largest_error"] > adam_diagram.TARGET
    assert max(found["path_ratios"]) <= 6.5
    for cell in found["beyond_target"]:
        assert abs(cell["predicted"] - cell["simulated"]) > adam_diagram.TARGET - 1e-3


def test_the_script_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    settings = (Setting(20, 5, 0.9, 0.99), Setting(30, 5, 0.9, 0.99))
    result = tmp_path / "result.json"
    words = ["--replicates", "500", "--result", str(result)]
    monkeypatch.setattr(adam_diagram, "SETTINGS", settings[:1])
    assert adam_diagram.main(words) == 0
    first = json.loads(result.read_text())["diagrams"]
    monkeypatch.setattr(adam_diagram, "SETTINGS", settings)
    capsys.readouterr()
    assert adam_diagram.main(words) == 0
    assert capsys.readouterr().out.count("Setting(") == 1
    both = json.loads(result.read_text())
    assert both["diagrams"][:1] == first and len(both["diagrams"]) == 2
    assert both["config"]["seed"] == 0 and both["packages"]["numpy"]


def test_the_stored_result_is_of_these_settings():
    stored = json.loads(adam_diagram.RESULT.read_text())
    assert [diagram["setting"] for diagram in stored["diagrams"]] == [
        adam_diagram.asdict(setting) for setting in adam_diagram.SETTINGS
    ]
    assert stored["diagrams"][0]["n_beyond_target"] == 0
    assert stored["diagrams"][0]["largest_error"] == pytest.approx(0, abs=stored["target"])
