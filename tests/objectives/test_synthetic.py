"""What all synthetic objectives share: cells, common random numbers, independent replicates, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lab.draw import Draw
from lab.errors import BadInput
from lab.objectives.synthetic import Synthetic, SyntheticBatch

Make = Callable[..., Any]

NAMES = ["quadratic", "bandit", "logistic"]
SMALL: dict[str, dict[str, Any]] = {
    "quadratic": {"replicates": 10, "coordinates": 5, "noise": 0.5},
    "bandit": {
        "replicates": 10,
        "contexts": 3,
        "actions": 4,
        "right_actions": 1,
        "prompts": 4,
        "rollouts": 4,
    },
    "logistic": {"replicates": 10, "features": 3, "classes": 3, "examples": 20, "tokens": 4},
}
CELLS: dict[str, list[dict[str, Any]]] = {
    "quadratic": [
        {"noise": 2.0},
        {"spectrum": [0.1, 0.2, 0.3, 0.4, 5.0], "start": 3.0, "learning_rate": 0.01},
        {"noise_rank": 2, "learning_rate_factor": 0.5},
        {"noise": [0.1, 0.2, 0.3, 0.4, 0.5], "batch_size": 3, "slope": 0.1},
    ],
    "bandit": [
        {"flips": {"false_positive": 0.3}},
        {"prompts": 2, "rollouts": 6, "learning_rate": 0.3},
        {"advantage_scale": "batch", "reward_noise": 0.2, "policy_noise": 1.0, "gradient_noise": 0.1},
        {"initial_pass_rate": {"lowest": 0.4}, "pure_noise": True},
    ],
    "logistic": [
        {"sign_noise": {"snr_db": -5.0}},
        {"tokens": 2, "learning_rate_factor": 3.0},
        {"gradient_noise": 0.3, "pure_noise": True},
    ],
}


def gradients(objective: Synthetic[Any], step: int = 0) -> list[torch.Tensor]:
    """The gradient of each cell."""
    out = [torch.empty_like(value) for value in objective.values]
    objective.gradients(SyntheticBatch(step, Draw(1)), out)
    return out


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", NAMES)
def test_cells_that_share_draws_are_the_runs_of_one_cell_bit_for_bit(
    synthetic: Make, train_synthetic: Make, name: str, optimizer: str
) -> None:
    """Each cell of a run of several, and the same overrides as keys of a run of its own, learning rate included."""
    together = train_synthetic(synthetic(name, **SMALL[name], cells=CELLS[name]), 4, optimizer)
    for cell, path in zip(CELLS[name], together, strict=True):
        own = {key: value for key, value in cell.items() if not key.startswith("learning_rate")}
        rate = cell.get("learning_rate", 0.1 * cell.get("learning_rate_factor", 1.0))
        alone = train_synthetic(synthetic(name, **(SMALL[name] | own)), 4, optimizer, learning_rate=rate)
        assert np.array_equal(path, alone[0])
        assert not np.array_equal(path[-1], path[0])


@pytest.mark.parametrize("name", NAMES)
def test_cells_of_their_own_draws_differ_only_in_them(synthetic: Make, name: str) -> None:
    same = [{}, {}]
    shared = gradients(synthetic(name, **SMALL[name], cells=same))
    own = gradients(synthetic(name, **SMALL[name], cells=same, shared_draws=False))
    assert torch.equal(shared[0], shared[1]) and torch.equal(own[0], shared[0])
    assert not torch.equal(own[0], own[1])


@pytest.mark.parametrize("name", NAMES)
def test_replicates_are_independent_and_more_of_them_leave_the_first_ones_as_they_are(
    synthetic: Make, name: str
) -> None:
    few = gradients(synthetic(name, **SMALL[name]))[0]
    many = gradients(synthetic(name, **(SMALL[name] | {"replicates": 2000})))[0]
    torch.testing.assert_close(many[:10], few, rtol=1e-6, atol=1e-7)
    flat = many.double().numpy().reshape(2000, -1)
    # Correlation between neighbours, over coordinates that vary.
    centred = (flat - flat.mean(0))[:, flat.std(0) > 0]
    centred /= centred.std(0)
    assert np.abs((centred[1:] * centred[:-1]).mean(0)).max() < 5 / np.sqrt(1999)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_written_in_place_are_those_of_the_losses(synthetic: Make, name: str) -> None:
    objective = synthetic(name, **SMALL[name], cells=CELLS[name])
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    batch = SyntheticBatch(2, Draw(1))
    torch.stack(list(objective.losses(batch, 0))).sum().backward()
    differentiated = [parameter.grad.clone() for parameter in objective.parameters()]
    objective.zero_grad(set_to_none=True)
    assert objective.write_gradients(batch, 0)
    for parameter, expected in zip(objective.parameters(), differentiated, strict=True):
        assert torch.equal(parameter.grad, expected)


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_a_function_of_seed_and_step(synthetic: Make, name: str) -> None:
    objective = synthetic(name, **SMALL[name])
    first, again, other = (gradients(objective, step)[0] for step in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_every_cell_has_its_learning_rate_in_a_group_of_its_own(synthetic: Make) -> None:
    cells = [{}, {"learning_rate": 0.7}, {"learning_rate_factor": 0.25}]
    objective = synthetic("quadratic", **SMALL["quadratic"], cells=cells)
    assert objective.learning_rates(0.4) == {"cell_0": 0.4, "cell_1": 0.7, "cell_2": 0.1}


def test_coordinates_are_labelled(synthetic: Make) -> None:
    objective = synthetic("bandit", **SMALL["bandit"], cells=[{}, {}])
    labels = objective.coordinate_labels("cell_1", np.array([0, 11, 12, 119]))
    assert {name: values.tolist() for name, values in labels.items()} == {
        "cell": [1, 1, 1, 1],
        "replicate": [0, 0, 1, 9],
        "coordinate": [0, 11, 0, 11],
    }


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("quadratic", {"replicates": 0}, r"objective\.replicates: must be at least 1"),
    ("quadratic", {"coordinates": 0}, r"objective\.coordinates: must be at least 1"),
    ("quadratic", {"noise": -1.0}, r"objective\.noise: .*negative"),
    ("quadratic", {"noise": [1.0, 2.0]}, r"objective\.noise: expected one number or 5"),
    ("quadratic", {"spectrum": [1.0, 2.0]}, r"objective\.spectrum: expected one number or 5"),
    ("quadratic", {"spectrum": [-1.0] * 5}, r"objective\.spectrum: a curvature must not be negative"),
    ("quadratic", {"spectrum": {"name": "sine"}}, r"objective\.spectrum\.name: unknown 'sine'"),
    ("quadratic", {"spectrum": {"exponent": 1.0}}, r"objective\.spectrum\.exponent: only .*power_law"),
    ("quadratic", {"noise_rank": 6}, r"objective\.noise_rank: must lie between 1 and coordinates=5"),
    ("quadratic", {"batch_size": 0}, r"objective\.batch_size: must be at least 1"),
    ("quadratic", {"start": "far"}, r"objective\.start: expected a list"),
    ("bandit", {"right_actions": 4}, r"objective\.right_actions: must lie between 1 and actions - 1 = 3"),
    ("bandit", {"right_actions": [1, 2]}, r"objective\.right_actions: expected one number or 3"),
    ("bandit", {"rollouts": 1}, r"objective\.rollouts: a group of 1 has no spread"),
    ("bandit", {"prompts": 0}, r"objective\.prompts: "),
    ("bandit", {"actions": 1}, r"objective\.actions: "),
    ("bandit", {"contexts": 0}, r"objective\.contexts: "),
    (
        "bandit",
        {"initial_pass_rate": {"lowest": 0.0}},
        r"objective\.initial_pass_rate\.lowest: .*inside \(0, 1\)",
    ),
    (
        "bandit",
        {"initial_pass_rate": {"lowest": 0.9}},
        r"objective\.initial_pass_rate\.highest: must not lie below",
    ),
    ("bandit", {"flips": {"false_positive": 1.5}}, r"objective\.flips\.false_positive: a probability"),
    ("bandit", {"policy_noise": -0.1}, r"objective\.policy_noise: must not be negative"),
    ("bandit", {"advantage_scale": "mean"}, r"objective\.advantage_scale: unknown 'mean'"),
    ("logistic", {"classes": 1}, r"objective\.classes: "),
    ("logistic", {"tokens": 0}, r"objective\.tokens: "),
    ("logistic", {"teacher_scale": -1.0}, r"objective\.teacher_scale: "),
    (
        "logistic",
        {"sign_noise": {"snr_db": 3.0, "noise_amplitude": 1.0}},
        r"objective\.sign_noise\.snr_db: contradicts",
    ),
    ("quadratic", {"cells": {"noise": 1.0}}, r"objective\.cells: expected a list"),
    ("quadratic", {"cells": [1.0]}, r"objective\.cells\[0\]: expected a group of keys"),
    ("quadratic", {"cells": [{}, {"nose": 1.0}]}, r"objective\.cells\[1\]\.nose: no code reads.*'noise'"),
    ("quadratic", {"cells": [{"noise": -1.0}]}, r"objective\.cells\[0\]\.noise: .*negative"),
    ("quadratic", {"cells": [{"coordinates": 3}]}, r"objective\.cells\[0\]\.coordinates: all cells share it"),
    ("quadratic", {"cells": [{"replicates": 3}]}, r"objective\.cells\[0\]\.replicates: all cells share it"),
    (
        "quadratic",
        {"cells": [{"learning_rate": -1}]},
        r"objective\.cells\[0\]\.learning_rate: expected a number",
    ),
    (
        "quadratic",
        {"cells": [{"learning_rate": 1.0, "learning_rate_factor": 2.0}]},
        r"objective\.cells\[0\]: give learning_rate or learning_rate_factor, not both",
    ),
    (
        "logistic",
        {"cells": [{"sign_noise": {"snr": 1.0}}]},
        r"objective\.cells\[0\]\.sign_noise\.snr: no code reads",
    ),
]


@pytest.mark.parametrize(("name", "changes", "words"), REFUSED)
def test_what_is_impossible_is_refused_by_its_key(
    synthetic: Make, name: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=rf"^{words}"):
        synthetic(name, **(SMALL[name] | changes))
