"""Finding a GPU without torch, and values of a configuration that depend on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lab.composition import compose
from lab.hardware import has_gpu


@pytest.mark.parametrize(
    ("files", "visible", "expected"),
    [
        ([], None, False),
        (["nvidiactl", "nvidia-uvm"], None, False),
        (["nvidia0", "nvidiactl"], None, True),
        (["nvidia3"], "3", True),
        (["nvidia0"], "", False),
        (["nvidia0"], "-1", False),
    ],
)
def test_has_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], visible: str | None, expected: bool
) -> None:
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert has_gpu(tmp_path) is expected


@pytest.mark.parametrize(
    ("gpu", "expected"), [(True, ("gpu", "bf16-mixed", 400)), (False, ("cpu", "32-true", 20))]
)
def test_values_that_depend_on_the_device(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, expected: tuple[str, str, int]
) -> None:
    monkeypatch.setattr("lab.composition.has_gpu", lambda: gpu)
    config = compose("train", ["trainer=auto", "steps=${by_device:400,20}"])
    assert (config.trainer.accelerator, config.trainer.precision, config.steps) == expected
    assert OmegaConf.to_container(config, resolve=True)["steps"] == expected[2]
