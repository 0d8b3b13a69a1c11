import numpy as np
import pytest
import torch

from lab.errors import BadInput
from lab.linearity import get_protocol, round_to_bfloat16
from lab.settings import Invalid


def _same_as_torch(values):
    single = np.asarray(values, dtype=np.float32)
    expected = torch.from_numpy(single).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(round_to_bfloat16(single), expected)


def test_bfloat16_equals_torch_on_random_bits():
    bits = np.random.default_rng(0).integers(0, 2**32, size=200_000, dtype=np.uint32)
    _same_as_torch(bits.view(np.float32))


def test_bfloat16_equals_torch_on_ties_and_edges():
    halves = (np.arange(0, 2**16, dtype=np.uint32) << np.uint32(16)) + np.uint32(0x8000)
    around = np.concatenate([halves - np.uint32(1), halves, halves + np.uint32(1)])
    _same_as_torch(around.view(np.float32))
    _same_as_torch([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, 1.0, 0.02])


def test_bfloat16_leaves_its_input_alone():
    values = np.array([0.1, 0.3], dtype=np.float32)
    round_to_bfloat16(values)
    np.testing.assert_array_equal(values, np.array([0.1, 0.3], dtype=np.float32))


def test_paper_weight_filter():
    paper = get_protocol("paper")
    columns = {
        "moves enough in four values": ([0, 1e-4, 2e-4, 3e-4, 0], True),
        "only three values": ([0, 1e-3, 2e-3, 1e-3, 0], False),
        "four values, too small a range": ([0, 1e-5, 2e-5, 3e-5, 1e-4], False),
        "returns to its start, range counts": ([0, 5e-4, -5e-4, 1e-4, 0], True),
        "constant": ([1, 1, 1, 1, 1], False),
        "zeros of both signs are one value": ([0.0, -0.0, 1e-3, 2e-3, 0.0], False),
    }
    values = np.array([column for column, _ in columns.values()]).T.astype(float)
    assert paper.keep(values, "weights").tolist() == [kept for _, kept in columns.values()]


def test_paper_weights_are_cast_first():
    paper = get_protocol("paper")
    near_one = 1.0 + np.array([0, 1, 2, 3, 4])[:, None] * 1e-3  # bfloat16 steps near 1 are 2^-7.
    assert paper.keep(near_one, "weights").tolist() == [True]
    assert paper.keep(paper.cast(near_one, "weights"), "weights").tolist() == [False]


def test_paper_logprob_filter():
    paper = get_protocol("paper")
    values = np.array([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [0.1, 0.21, -0.3]])
    assert paper.keep(values, "logprobs").tolist() == [False, True, True]
    np.testing.assert_array_equal(paper.cast(values, "logprobs"), values)


def test_unfiltered_keeps_everything_as_it_is():
    protocol = get_protocol("unfiltered")
    values = np.array([[0.1, 0.123456789], [0.1, 3.0], [0.1, 2.0]])
    for kind in ("weights", "logprobs"):
        np.testing.assert_array_equal(protocol.cast(values, kind), values)
        assert protocol.keep(values, kind).all()
        assert protocol.keeps_all(kind)


def test_unknown_names():
    with pytest.raises(BadInput, match="did you mean 'paper'"):
        get_protocol("papper")
    with pytest.raises(Invalid, match="did you mean 'weights'"):
        get_protocol("paper").keep(np.zeros((3, 1)), "weight")
