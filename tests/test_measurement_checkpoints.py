"""`lab measure checkpoints=`: every weight once, the same after a kill, the same as whole arrays, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.checkpoints import measurement as module
from lab.checkpoints.collection import Collection
from lab.checkpoints.measurement import (
    adjust,
    measure_checkpoints,
    selected_counts,
    spacing_is_safe,
    sum_products,
)
from lab.errors import BadInput, Interrupted
from lab.linearity import forecast_skill, get_protocol, measure_trajectory, r_squared, summarise
from lab.measure_settings import CheckpointSettings
from lab.measurement import forecast, measure
from lab.trajectory.readers import open_series
from lab.trajectory.sampling import sample_coordinates
from lab.trajectory.series import TensorInfo

STEPS = np.arange(10) * 200.0
SHAPES = {
    "model.embed_tokens.weight": 6000,
    "model.layers.0.self_attn.q_proj.weight": 2000,
    "model.layers.0.self_attn.q_proj.bias": 40,
    "model.layers.1.self_attn.q_proj.weight": 2000,
    "model.norm.weight": 40,
}


class Series:
    """Checkpoints in memory."""

    def __init__(self, values: dict[str, np.ndarray], steps: np.ndarray = STEPS) -> None:
        self.values, self.steps = values, steps
        self.tensors = {
            name: TensorInfo(each.shape[1], "float32", (each.shape[1],)) for name, each in values.items()
        }

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.values[name][:, start:stop].astype(np.float64)

    def read_into(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        out[:] = self.values[name][:, start:stop]

    @property
    def whole(self) -> np.ndarray:
        return np.concatenate(list(self.values.values()), axis=1).astype(np.float64)


def series(drift: float = 0.0, seed: int = 0, scale: float = 1e-3) -> Series:
    rng = np.random.default_rng(seed)
    values = {}
    for name, size in SHAPES.items():
        increments = scale * (rng.normal(size=(9, size)) + drift * rng.normal(size=size))
        path = np.cumsum(np.vstack([0.02 * rng.normal(size=(1, size)), increments]), axis=0)
        values[name] = path.astype(np.float32)
    return Series(values)


def settings(**changed: Any) -> CheckpointSettings:
    plain: dict[str, Any] = {
        "protocol": "unfiltered",
        "flips": 99,
        "sample_fraction": None,
        "beta1": 0.9,
        "updates_per_step": 1,
        "fit_share": 0.75,
        "nulls": True,
        "workers": 1,
    }
    return CheckpointSettings(**(plain | changed))


# ---- numbers -------------------------------------------------------------------------------------------


def test_all_weights_as_whole_arrays_would_have_it() -> None:
    source = series(drift=0.4)
    found = measure_checkpoints(source, settings()).numbers["weights"]
    expected, _ = measure_trajectory(
        source.whole,
        STEPS,
        "weights",
        get_protocol("unfiltered"),
        np.random.default_rng(0),
        spacing_is_safe=True,
    )
    assert found["n"] == found["n_defined"] == source.whole.shape[1] == sum(SHAPES.values())
    assert found["r2_median"] == pytest.approx(expected["r2_median"], abs=2e-4)
    assert found["r2_quartiles"] == pytest.approx(expected["r2_quartiles"], abs=2e-4)
    assert found["r2_share_above_0_7"] == pytest.approx(expected["r2_share_above_0_7"], abs=2e-4)
    for key in ("skill", "skill_damped", "damping"):
        assert found[key] == pytest.approx(expected[key], abs=1e-6)
    for key in ("skill_p_value", "origin_step", "horizon", "n_zero_variance"):
        assert found[key] == expected[key]
    assert found["lag_cosine"]["cosine"][:4] == pytest.approx(expected["lag_cosine"]["cosine"][:4], abs=1e-6)
    assert found["lag_cosine"]["p_value"] == expected["lag_cosine"]["p_value"]
    assert found["null_p_value"] == expected["null_p_value"] == 1 / 256
    assert found["null_r2_median"] == pytest.approx(expected["null_r2_median"], abs=0.03)
    json.dumps(found, allow_nan=False)


def test_every_key_of_a_measurement_is_there() -> None:
    source = series()
    expected, _ = measure_trajectory(
        source.whole, STEPS, "weights", get_protocol("unfiltered"), np.random.default_rng(0)
    )
    assert set(expected) < set(measure_checkpoints(source, settings()).numbers["weights"])


def test_layers_and_kinds_pool_their_tensors() -> None:
    measured = measure_checkpoints(series(drift=0.3), settings())
    groups = measured.collection.groups
    values = series(drift=0.3).values
    q_proj = np.concatenate([each for name, each in values.items() if "q_proj" in name], axis=1)
    assert groups["kind/q_proj"]["tally"][0] == q_proj.shape[1] == 4040
    assert groups["layer/0"]["tally"][0] == 2040 and groups["layer/-1"]["tally"][0] == 6040
    numbers = measured.statistics.of_sums(groups["kind/q_proj"]["products"], groups["kind/q_proj"]["counts"])
    exact = summarise(r_squared(q_proj.astype(np.float64), STEPS))
    assert numbers["quantiles"][2] == pytest.approx(exact.median, abs=3e-4)
    assert numbers["numbers"][1] == pytest.approx(forecast_skill(q_proj, STEPS).skill, abs=1e-6)
    assert groups["run"]["tally"][0] == sum(SHAPES.values())


def test_the_published_protocol_is_its_script() -> None:
    """Computed anew from its description: bf16, max(50, 0.1 %) of each .weight, range > 1e-4, >= 4 values."""
    torch = pytest.importorskip("torch")
    source = series(drift=0.2, scale=3e-5)
    measured = measure_checkpoints(source, settings(protocol="paper"), seed=3).numbers["weights"]
    times = (STEPS - STEPS[0]) / (STEPS[-1] - STEPS[0])
    found, looked_at = [], 0
    for name, values in source.values.items():
        if not name.endswith(".weight"):
            continue
        indices = sample_coordinates(3, name, values.shape[1], 0.001, 50)
        looked_at += len(indices)
        stored = torch.from_numpy(values).to(torch.bfloat16).double().numpy()
        for path in stored[:, indices].T:
            if path.max() - path.min() > 1e-4 and len(set(path.tolist())) >= 4:
                found.append(np.corrcoef(times, path)[0, 1] ** 2)
    assert 30 < len(found) < looked_at == measured["n"] == 3 * 50 + 40
    assert measured["n_defined"] == len(found)
    assert measured["retained_share"] == len(found) / looked_at
    assert measured["r2_share_above_0_7"] == np.mean(np.array(found) > 0.7)
    ordered = np.sort(found)
    low, high = ordered[(len(found) - 1) // 2] - 1e-4, ordered[len(found) // 2] + 1e-4
    assert low <= measured["r2_median"] <= high


def test_a_share_of_the_weights() -> None:
    source = series()
    found = measure_checkpoints(source, settings(sample_fraction=0.1)).numbers["weights"]
    assert found["n"] == sum(round(0.1 * size) for size in SHAPES.values())


def test_close_checkpoints_are_not_tested_and_far_ones_are() -> None:
    near = Series(series().values, STEPS / 20)
    found = measure_checkpoints(near, settings()).numbers["weights"]
    assert found["null_p_value"] is None and "momentum" in found["null_p_value_reason"]
    assert found["skill_p_value"] is found["lag_cosine"]["p_value"] is None
    assert found["low_rank"]["centred"]["p_value"] is None
    assert found["low_rank"]["centred"]["null_median"] is not None
    assert found["tensors"]["r2"] == {"tested": 0, "significant": 0}
    for changed in ({"updates_per_step": 20}, {"beta1": 0.0}, {"beta1": 0.5, "updates_per_step": 4}):
        assert measure_checkpoints(near, settings(**changed)).numbers["weights"]["null_p_value"] is not None


@pytest.mark.parametrize(
    ("beta1", "updates_per_step", "least"),
    [(0.9, 1, 200), (0.9, 4, 50), (0.95, 1, 400), (0.8, 1, 100), (0.99, 8, 250)],
)
def test_a_spacing_that_is_just_enough_is_safe(beta1: float, updates_per_step: int, least: int) -> None:
    """20 / (1 - beta1) updates, exactly: 1 - .9 is a hair below .1 in binary, which shall not decide."""
    how = settings(beta1=beta1, updates_per_step=updates_per_step)
    assert spacing_is_safe(np.arange(5.0) * least, how)
    assert not spacing_is_safe(np.arange(5.0) * (least - 1), how)


def test_without_nulls_the_statistics_are_the_same() -> None:
    full, bare = (
        measure_checkpoints(series(), settings(nulls=nulls)).numbers["weights"] for nulls in (True, False)
    )
    assert bare["null_p_value"] is None and "nulls=false" in bare["null_p_value_reason"]
    for key in ("r2_median", "skill", "skill_damped", "n"):
        assert bare[key] == full[key]


def test_tensors_that_drift_are_told_from_those_that_do_not() -> None:
    rng = np.random.default_rng(5)
    values = {}
    for index in range(30):
        drift = 1.5 * rng.normal(size=400) if index % 3 == 0 else 0.0
        steps = rng.normal(size=(9, 400)) + drift
        path = np.cumsum(np.vstack([np.zeros((1, 400)), steps]), axis=0)
        values[f"model.layers.{index}.mlp.up_proj.weight"] = path.astype(np.float32)
    measured = measure_checkpoints(Series(values), settings(flips=999))
    found = measured.q_values[:, 0] <= 0.05
    assert found[::3].all()
    assert np.delete(found, np.s_[::3]).sum() <= 3
    assert measured.numbers["weights"]["tensors"]["r2"]["significant"] == found.sum()


# ---- Benjamini-Hochberg --------------------------------------------------------------------------------


def test_adjusted_p_values_by_hand() -> None:
    p_values = np.array([[0.01], [np.nan], [0.04], [0.03], [0.9]])
    # Sorted .01 .03 .04 .9, times 4/i: .04 .06 .0533 .9; least of what follows: .04 .0533 .0533 .9.
    assert adjust(p_values)[:, 0] == pytest.approx([0.04, np.nan, 4 / 75, 4 / 75, 0.9], nan_ok=True)
    assert np.isnan(adjust(np.full((3, 2), np.nan))).all()


def test_adjusted_p_values_are_those_of_scipy() -> None:
    from scipy.stats import false_discovery_control

    p_values = np.random.default_rng(6).uniform(size=(200, 2)) ** 2
    for column in range(2):
        expected = false_discovery_control(p_values[:, column], method="bh")
        assert adjust(p_values)[:, column] == pytest.approx(expected)


# ---- interruption --------------------------------------------------------------------------------------


class Interrupting(Series):
    """Stops when it is asked for one tensor."""

    def read_into(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        if name == "model.layers.1.self_attn.q_proj.weight":
            raise Interrupted("stopped by SIGTERM")
        super().read_into(name, start, stop, out)


def test_an_interrupted_pass_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    source, partial = series(drift=0.2), tmp_path / "partial.npz"
    straight = measure_checkpoints(source, settings())
    with pytest.raises(Interrupted):
        measure_checkpoints(Interrupting(source.values), settings(), partial=partial)
    stored = Collection.read(partial, module._fingerprint(source, settings(), 0))
    assert stored.names == list(SHAPES)[:3]
    seen: list[int] = []
    resumed = measure_checkpoints(source, settings(workers=2), partial=partial, progress=seen.append)
    assert seen[0] == 8040 * 4 * 10 and sum(seen) == sum(SHAPES.values()) * 4 * 10
    assert resumed.numbers == straight.numbers
    for name, arrays in straight.collection.tensors.items():
        assert all(
            np.array_equal(one, other, equal_nan=True)
            for one, other in zip(arrays, resumed.collection.tensors[name], strict=True)
        )
    assert np.array_equal(resumed.examples["weights"], straight.examples["weights"])


def test_what_was_measured_of_other_checkpoints_is_not_gone_on_from(tmp_path: Path) -> None:
    source, partial = series(), tmp_path / "partial.npz"
    with pytest.raises(Interrupted):
        measure_checkpoints(Interrupting(source.values), settings(), partial=partial)
    with pytest.raises(BadInput, match="have changed since .* resume=false"):
        measure_checkpoints(Series(source.values, STEPS * 2), settings(), partial=partial)
    partial.write_bytes(partial.read_bytes()[:100])
    with pytest.raises(BadInput, match="partial.npz: cannot be read"):
        measure_checkpoints(source, settings(), partial=partial)


# ---- refusals ------------------------------------------------------------------------------------------


def test_nan_names_tensor_element_and_step() -> None:
    source = series()
    source.values["model.norm.weight"][4, 17] = np.nan
    with pytest.raises(
        BadInput, match=r"model\.norm\.weight: element 17 is nan at step 800: training diverged"
    ):
        measure_checkpoints(source, settings(workers=2))
    with pytest.raises(BadInput, match=r"model\.norm\.weight: element 17 is nan at step 800"):
        sum_products(source)


def test_a_file_that_is_deleted_after_it_was_listed_is_named(tmp_path: Path) -> None:
    write_checkpoints(tmp_path)
    listed = open_series(tmp_path)
    gone = tmp_path / "checkpoint-600/model.safetensors"
    gone.unlink()
    with pytest.raises(BadInput, match=f"{re.escape(str(gone))}: no such file"):
        measure_checkpoints(listed, settings())


def test_two_checkpoints_are_too_few() -> None:
    source = series()
    two = Series({name: each[:2] for name, each in source.values.items()}, STEPS[:2])
    with pytest.raises(BadInput, match="needs at least 3, got 2"):
        measure_checkpoints(two, settings())


def test_no_tensor_to_look_at() -> None:
    bias = Series({"a.bias": series().values["model.norm.weight"]})
    with pytest.raises(BadInput, match=r"no tensor whose name ends in \.weight .* a\.bias"):
        selected_counts(bias, settings(protocol="paper"))


# ---- from Python ---------------------------------------------------------------------------------------


def test_the_python_interface_takes_any_series() -> None:
    source = series(drift=0.3)
    assert measure(source, flips=99).numbers["weights"]["n"] == sum(SHAPES.values())
    assert forecast(source).skill == pytest.approx(forecast_skill(source.whole, STEPS).skill, abs=1e-6)


# ---- the verb ------------------------------------------------------------------------------------------


def write_checkpoints(folder: Path, dtype: str = "float32", nan: bool = False) -> Series:
    import torch
    from safetensors.torch import save_file

    source = series(drift=0.3)
    for index, step in enumerate(STEPS):
        directory = folder / f"checkpoint-{step:g}"
        directory.mkdir(parents=True)
        tensors = {name: torch.from_numpy(each[index].copy()) for name, each in source.values.items()}
        if nan and index == 3:
            tensors["model.norm.weight"][5] = float("nan")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
        save_file(tensors, directory / "model.safetensors")
        config = {"model_type": "llama", "tie_word_embeddings": True}
        (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return source


KEYS = (
    "r2_median",
    "r2_share_above_0_7",
    "null_r2_median",
    "null_p_value",
    "n",
    "skill",
    "skill_damped",
    "damping",
)


def test_the_verb_writes_summary_store_figures_and_page(lab: Callable[..., Any], tmp_path: Path) -> None:
    import xarray as xr

    source = write_checkpoints(tmp_path / "a, b=c")
    outcome = lab("measure", f"checkpoints={tmp_path / 'a, b=c'}", "flips=99", "workers=2")
    assert outcome.code == 0, outcome.err
    assert outcome.last_line.startswith("runs/measure/001/report.html: this run: straighter than chance")
    held = tmp_path / "runs/measure/001"
    summary = json.loads((held / "summary.json").read_text(encoding="utf-8"))
    assert all(summary["weights"][key] is not None for key in KEYS)
    assert summary["weights"]["n"] == sum(SHAPES.values())  # The tied head is not counted again.
    assert summary["tied"] == {"lm_head.weight": "model.embed_tokens.weight"}
    assert summary["bytes_read"] == sum(SHAPES.values()) * 4 * 10
    assert summary["lag_cosine"] == summary["weights"]["lag_cosine"]
    assert summary["wall_clock_s"] > 0 and summary["peak_rss_mb"] > 0
    assert summary["weights"]["skill"] == pytest.approx(forecast_skill(source.whole, STEPS).skill, abs=1e-6)
    names = {path.name for path in held.iterdir()}
    assert names == {"config.yaml", "summary.json", "measurement.nc", "report.html", "figures", "DONE"}
    assert (held / "figures/heat_map.png").stat().st_size > 5000
    with xr.open_datatree(held / "measurement.nc", engine="h5netcdf") as tree:
        tensors = tree["tensors"].to_dataset()
        assert tensors.sizes["tensor"] == len(SHAPES)
        assert tensors["elements"].sum() == sum(SHAPES.values())
        assert set(tensors["module_kind"].values) == {"embed_tokens", "q_proj", "norm"}
        assert tree["layers"]["layer"].values.tolist() == [-1, 0, 1]
        assert int(tree["run"]["r2_count"].sum()) == sum(SHAPES.values())
        one = tensors.sel(tensor="model.norm.weight")
        exact = np.quantile(r_squared(source.values["model.norm.weight"].astype(float), STEPS), 0.5)
        assert float(one["r2_quantile"].sel(level=0.5)) == pytest.approx(exact, abs=0.05)
        assert json.loads(tree.attrs["source_dtype"]) == ["float32"]
    page = (held / "report.html").read_text(encoding="utf-8")
    assert "10,080 weights of 5 tensors over 10 checkpoints" in page


def test_bfloat16_and_a_base(lab: Callable[..., Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path / "series", "bfloat16")
    (tmp_path / "series/checkpoint-0").rename(tmp_path / "base")
    common = (f"checkpoints={tmp_path / 'series'}", "flips=99", "nulls=false")
    outcome = lab("measure", *common, f"base={tmp_path / 'base'}")
    assert outcome.code == 0, outcome.err
    summary = json.loads((tmp_path / "runs/measure/001/summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == STEPS.tolist()
    assert summary["bytes_read"] == sum(SHAPES.values()) * 2 * 10
    assert "cannot be told" in summary["verdict"]


def test_refusals_leave_nothing(lab: Callable[..., Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path / "series", nan=True)
    outcome = lab("measure", f"checkpoints={tmp_path / 'series'}")
    assert outcome.code == 2
    assert "model.norm.weight: element 5 is nan at step 600 in " in outcome.err
    assert "checkpoint-600/model.safetensors" in outcome.err
    assert not list((tmp_path / "runs/measure").iterdir())


def test_a_dry_run_reads_headers_only(lab: Callable[..., Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path / "series", nan=True)
    outcome = lab("measure", f"checkpoints={tmp_path / 'series'}", "dry_run=true")
    assert outcome.code == 0 and "10,080" in outcome.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run=a", "checkpoints=b"], "give one of them"),
        (["checkpoints=nowhere"], "nowhere"),
        (["checkpoints=x", "sample_fraction=0"], "sample_fraction"),
        (["checkpoints=x", "beta1=1"], "beta1"),
        (["checkpoints=x", "updates_per_step=0"], "updates_per_step"),
        (["checkpoints=x", "fit_share=1"], "fit_share"),
        (["checkpoints=x", "workers=0"], "workers"),
        (["checkpoints=x", "flips=3"], "flips"),
        (["checkpoints=x", "nulls=maybe"], "nulls"),
        (["checkpoints=x", "protocol=nope"], "protocol: unknown 'nope'"),
    ],
)
def test_bad_keys(lab: Callable[..., Any], tmp_path: Path, words: list[str], expected: str) -> None:
    outcome = lab("measure", *words)
    assert outcome.code == 2 and expected in outcome.err
    assert not (tmp_path / "runs").exists()


def test_the_null_of_the_run_has_its_size() -> None:
    """Driftless runs whose weights share few noise directions: the run's p is uniform, whatever their number."""
    p_values = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(9, 3)) @ rng.normal(size=(3, 300))
        path = np.cumsum(np.vstack([np.zeros((1, 300)), noise]), axis=0).astype(np.float32)
        found = measure_checkpoints(Series({"w.weight": path}), settings(), seed=seed).numbers["weights"]
        p_values.append([found["null_p_value"], found["skill_p_value"]])
    for column in np.array(p_values).T:
        assert abs(np.mean(column <= 0.2) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 60)
