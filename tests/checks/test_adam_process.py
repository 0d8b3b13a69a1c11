import numpy as np
import pytest
import torch

from lab.checks.adam_process import AdamProcess
from lab.checks.descent import CONSTANT
from lab.optimizers import AdamWSettings


def settings(beta1, beta2):
    return AdamWSettings("adamw", 0.03, 0.0, None, CONSTANT, beta1, beta2, epsilon=0.0)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.0, 0.5), (0.5, 0.0), (0.0, 0.0)])
def test_it_is_the_optimiser_of_the_lab(beta1, beta2):
    random = np.random.default_rng(0)
    parameter = torch.nn.Parameter(torch.from_numpy(random.standard_normal(7)))
    optimizer = settings(beta1, beta2).build([parameter])
    process = AdamProcess(parameter.detach().numpy(), 0.03, beta1, beta2)
    for gradient in random.standard_normal((30, 7)):
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        process.update(gradient.copy())
        assert process.position == pytest.approx(parameter.detach().numpy(), rel=1e-12, abs=1e-13)
    assert process.updates == 30


def test_given_moments_are_those_of_a_run_that_began_long_ago():
    random = np.random.default_rng(1)
    parameter = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = settings(0.9, 0.99).build([parameter])
    optimizer.state[parameter] = {
        "step": torch.tensor(1e6),
        "exp_avg": torch.full((5,), 0.4, dtype=torch.float64),
        "exp_avg_sq": torch.full((5,), 1.16, dtype=torch.float64),
    }
    process = AdamProcess(np.zeros(5), 0.03, 0.9, 0.99, moments=(0.4, 1.16))
    for gradient in random.standard_normal((20, 5)):
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        process.update(gradient.copy())
    assert process.position == pytest.approx(parameter.detach().numpy(), rel=1e-12)


def test_start_is_copied_and_rates_broadcast():
    start = np.zeros((2, 3))
    process = AdamProcess(start, [[0.1], [0.2]], 0.9, 0.999)
    process.update(np.ones((2, 3)))
    assert (start == 0).all()
    assert process.position == pytest.approx(np.repeat([[-0.1], [-0.2]], 3, axis=1))
