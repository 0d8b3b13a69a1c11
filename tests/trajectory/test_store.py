"""The store of a real small run: its schema, and every number in it derived once more by other means."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from lab.composition import compose
from lab.errors import BadInput
from lab.policies import load_policy
from lab.runs import RunSettings, open_run
from lab.training import TrainSettings, build_train_settings, train
from lab.trajectory.module_labels import module_labels
from lab.trajectory.series import RunSeries
from lab.trajectory.store import export_csv, open_store

STEPS = 7
OVERRIDES = (
    f"steps={STEPS}",
    "evaluation.problems=6",
    "evaluation.rollouts=2",
    "probes.prompts=5",
    "probes.responses=3",
    "recorder.every=3",
    "recorder.sample_minimum=50",
    "recorder.update_coordinates=4000",
    "recorder.projections=16",
    "recorder.checkpoint_every=2",
    "logger=none",
)


@dataclass
class Finished:
    """A finished run and what it was made from."""

    path: Path
    config: dict[str, Any]
    settings: TrainSettings
    store: xr.DataTree


def finish(directory: Path, overrides: tuple[str, ...]) -> Finished:
    """Train in this process."""
    config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    settings = build_train_settings(config)
    where = RunSettings(name="a", runs_dir=str(directory), resume="auto", clean=False, experiment="train")
    with open_run(where, config) as run:
        train(settings, run, title="test")
    return Finished(run.path, config, settings, open_store(run.path))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """RLVR with AdamW."""
    own = ("objective.prompts=4", "objective.rollouts=4", "optimizer.learning_rate=1e-3")
    return finish(tmp_path_factory.mktemp("rlvr"), (*OVERRIDES, *own))


@pytest.fixture(scope="module")
def with_sgd(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """SFT with momentum SGD."""
    own = ("objective=sft", "objective.examples=8", "optimizer=sgd", "optimizer.heavy_ball=0.8")
    return finish(tmp_path_factory.mktemp("sft"), (*OVERRIDES, *own))


def values(finished: Finished, group: str, name: str) -> np.ndarray:
    """One variable as an array."""
    found: np.ndarray = finished.store[group][name].values
    return found


def sampled(state: dict[str, torch.Tensor], finished: Finished) -> np.ndarray:
    """The followed coordinates of a model's weights."""
    tensors, indices = (values(finished, "weights", name) for name in ("tensor", "flat_index"))
    return np.array([state[str(name)].flatten()[index] for name, index in zip(tensors, indices, strict=True)])


# --- schema ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "sizes"),
    [
        ("weights", {"step": 4}),
        ("logprobs", {"step": 4, "prompt": 5, "rollout": 3}),
        ("metrics", {"step": STEPS}),
        ("evaluation", {"step": 4, "prompt": 6, "rollout": 2, "sample": 6}),
        ("probe", {"update": STEPS, "param": 4000, "projection": 16}),
    ],
)
def test_dimensions_are_the_reserved_ones(finished: Finished, group: str, sizes: dict[str, int]) -> None:
    found = dict(finished.store[group].sizes)
    free = {"weights": {"param"}, "logprobs": {"token"}}.get(group, set())
    assert set(found) == set(sizes) | free
    assert {name: found[name] for name in sizes} == sizes


def test_the_first_and_the_last_step_are_recorded(finished: Finished) -> None:
    for group in ("weights", "logprobs", "evaluation"):
        assert finished.store[group]["step"].values.tolist() == [0, 3, 6, 7]
        assert finished.store[group]["update"].values.tolist() == [0, 3, 6, 7]
    assert values(finished, "metrics", "step").tolist() == list(range(1, STEPS + 1))
    assert values(finished, "probe", "update").tolist() == list(range(1, STEPS + 1))


@pytest.mark.parametrize("name", ["weight", "momentum_free", "first_moment", "second_moment"])
def test_weights_and_moments_are_labelled_alike(finished: Finished, name: str) -> None:
    variable = finished.store["weights"][name]
    assert variable.dims == ("step", "param") and variable.dtype == np.float32
    assert {"tensor", "flat_index", "layer", "module_kind"} <= set(variable.coords)


@pytest.mark.parametrize(
    ("tensor", "labels"),
    [
        ("model.layers.1.self_attn.q_proj.weight", (1, "q_proj")),
        ("model.layers.12.mlp.up_proj.bias", (12, "up_proj")),
        ("model.embed_tokens.weight", (-1, "embed_tokens")),
        ("theta", (-1, "theta")),
    ],
)
def test_tensor_names_say_layer_and_module_kind(tensor: str, labels: tuple[int, str]) -> None:
    assert module_labels(tensor) == labels


def test_attributes_say_where_it_came_from(finished: Finished) -> None:
    attributes = finished.store.attrs
    assert attributes["schema_version"] == 1 and attributes["seed"] == 0 and attributes["momentum"] == 0.9
    assert json.loads(attributes["config"]) == finished.config
    assert [attributes[f"{role}_dtype"] for role in ("source", "storage")] == ["float32", "float32"]
    assert attributes["arithmetic_dtype"] == "32-true"
    assert json.loads(attributes["packages"])["torch"] == torch.__version__
    assert attributes["git_commit"] == "null" or len(attributes["git_commit"]) == 40
    assert attributes["git_dirty"] in ("true", "false", "null")
    assert attributes["created_at"].endswith("+00:00")


# --- numbers -----------------------------------------------------------------------------------------


def test_weights_at_step_0_are_those_of_the_policy(finished: Finished) -> None:
    model = load_policy(finished.settings.policy, 0).model
    assert np.array_equal(values(finished, "weights", "weight")[0], sampled(model.state_dict(), finished))


def test_weights_at_the_last_step_are_those_of_the_checkpoint(finished: Finished) -> None:
    saved = torch.load(finished.path / "resume.ckpt", weights_only=True)["state_dict"]
    state = {name.removeprefix("objective.policy.model."): value for name, value in saved.items()}
    assert np.array_equal(values(finished, "weights", "weight")[-1], sampled(state, finished))


def test_tied_weights_are_followed_once(finished: Finished) -> None:
    names = set(values(finished, "weights", "tensor").astype(str))
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names


def test_the_momentum_free_position_of_adam_is_where_zero_gradients_would_lead(finished: Finished) -> None:
    optimizer: Any = finished.settings.optimizer
    for row, done in enumerate([0, 3, 6, 7]):
        weight, first, second = (
            values(finished, "weights", name)[row].astype(np.float64)
            for name in ("weight", "first_moment", "second_moment")
        )
        denominator = np.sqrt(second / (1 - optimizer.beta2 ** max(done, 1))) + optimizer.epsilon
        for later in range(1, 400):
            first = optimizer.beta1 * first
            corrected = first / (1 - optimizer.beta1 ** (done + later))
            weight = weight - optimizer.learning_rate * corrected / denominator
        recorded = values(finished, "weights", "momentum_free")[row]
        np.testing.assert_allclose(recorded, weight, rtol=1e-6, atol=1e-6)


def test_the_momentum_free_position_of_sgd_is_where_zero_gradients_would_lead(with_sgd: Finished) -> None:
    optimizer: Any = with_sgd.settings.optimizer
    weight = values(with_sgd, "weights", "weight").astype(np.float64)
    buffer = values(with_sgd, "weights", "first_moment").astype(np.float64)
    assert np.abs(buffer[-1]).max() > 0
    for _ in range(300):
        buffer = optimizer.heavy_ball * buffer
        weight = weight - optimizer.learning_rate * buffer
    np.testing.assert_allclose(values(with_sgd, "weights", "momentum_free"), weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", [0, 2])
def test_log_probs_are_those_of_a_plain_forward_pass(finished: Finished, row: int) -> None:
    step = values(finished, "logprobs", "step")[row]
    policy = load_policy(finished.settings.policy, 0)
    model = AutoModelForCausalLM.from_pretrained(finished.path / f"checkpoint-{step}")
    dataset = finished.store["logprobs"]
    where = list(zip(dataset["token_prompt"].values, dataset["token_response"].values, strict=True))
    expected = np.zeros(len(where))
    for prompt, response in sorted(set(where)):
        own = [index for index, key in enumerate(where) if key == (prompt, response)]
        assert dataset["position"].values[own].tolist() == list(range(len(own)))
        before = policy.tokenizer(str(dataset["prompt_text"].values[prompt]))["input_ids"]
        tokens = dataset["token_id"].values[own].tolist()
        with torch.no_grad():
            logits = model(torch.tensor([[*before, *tokens]])).logits[0].double()
        log_probs = torch.log_softmax(logits, -1)
        expected[own] = [log_probs[len(before) - 1 + i, token] for i, token in enumerate(tokens)]
    np.testing.assert_allclose(dataset["log_prob"].values[row], expected, atol=2e-5)


def test_the_responses_are_the_texts_of_the_probed_tokens(finished: Finished) -> None:
    dataset = finished.store["logprobs"]
    tokenizer = load_policy(finished.settings.policy, 0).tokenizer
    own = (dataset["token_prompt"].values == 1) & (dataset["token_response"].values == 2)
    text = tokenizer.decode(dataset["token_id"].values[own], skip_special_tokens=True)
    assert str(dataset["response_text"].values[1, 2]) == text


def test_observing_the_momentum_free_position_leaves_the_run_as_it_is(finished: Finished) -> None:
    moved = values(finished, "logprobs", "log_prob_momentum_free")
    plain = values(finished, "logprobs", "log_prob")
    assert np.array_equal(moved[0], plain[0]) and not np.array_equal(moved[-1], plain[-1])
    applied = values(finished, "probe", "applied")
    assert np.isfinite(applied).all() and np.abs(applied[1:]).max() > 0


def test_applied_updates_add_up_to_the_movement_of_the_weights(finished: Finished) -> None:
    weights, probe = finished.store["weights"], finished.store["probe"]
    followed = {
        (str(name), int(index)): column
        for column, (name, index) in enumerate(
            zip(weights["tensor"].values, weights["flat_index"].values, strict=True)
        )
    }
    pairs = [
        (followed[key], column)
        for column, (name, index) in enumerate(
            zip(probe["tensor"].values, probe["flat_index"].values, strict=True)
        )
        if (key := (str(name), int(index))) in followed
    ]
    assert len(pairs) >= 30
    left, right = (list(side) for side in zip(*pairs, strict=True))
    weight = weights["weight"].values.astype(np.float64)
    total = probe["applied"].values.astype(np.float64).sum(0)
    np.testing.assert_allclose(total[right], (weight[-1] - weight[0])[left], atol=1e-7)


def test_the_pass_rate_is_the_mean_of_the_verdicts(finished: Finished) -> None:
    correct = values(finished, "evaluation", "correct")
    assert set(np.unique(correct)) <= {0.0, 1.0}
    np.testing.assert_allclose(values(finished, "evaluation", "pass_rate"), correct.mean((1, 2)))


def test_metrics_are_those_of_the_table(finished: Finished) -> None:
    with (finished.path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    for name in ("reward", "loss", "grad_norm", "completions__mean_length"):
        column = [float(row[name.replace("__", "/")]) for row in rows]
        assert values(finished, "metrics", name).tolist() == column


def test_a_series_reads_the_weights_tensor_by_tensor(finished: Finished) -> None:
    series = RunSeries(finished.path)
    whole = np.concatenate([series.read(name, 0, info.size) for name, info in series.tensors.items()], axis=1)
    assert whole.dtype == np.float64 and np.array_equal(whole, values(finished, "weights", "weight"))
    name = list(series.tensors)[3]
    assert np.array_equal(series.read(name, 2, 5), series.read(name, 0, 50)[:, 2:5])
    with pytest.raises(BadInput, match="nope: no such tensor.*model.embed_tokens.weight"):
        series.read("nope", 0, 1)


def test_a_slice_never_reaches_into_the_next_tensor(finished: Finished) -> None:
    series = RunSeries(finished.path)
    name, info = next(iter(series.tensors.items()))
    assert series.read(name, 0, info.size + 7).shape[1] == info.size


# --- opening and exporting ---------------------------------------------------------------------------


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere.*no such store"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"trajectory\.nc: no such store"):
        open_store(tmp_path)


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.98])
def test_a_truncated_store_is_named(finished: Finished, tmp_path: Path, kept: float) -> None:
    content = (finished.path / "trajectory.nc").read_bytes()
    size = int(kept * len(content)) if isinstance(kept, float) else kept
    (tmp_path / "trajectory.nc").write_bytes(content[:size])
    with pytest.raises(BadInput, match=r"trajectory\.nc: not a readable store"):
        open_store(tmp_path)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "trajectory.nc").write_bytes(b"step,weight\n0,1\n" * 100)
    with pytest.raises(BadInput, match=r"trajectory\.nc: not a readable store"):
        open_store(tmp_path)


def test_a_store_of_another_schema_is_told_what_is_wrong(finished: Finished, tmp_path: Path) -> None:
    path = tmp_path / "other.nc"
    shutil.copy(finished.path / "trajectory.nc", path)
    weights = finished.store["weights"].to_dataset()
    attributes = {name: value for name, value in finished.store.attrs.items() if name != "seed"}
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={**attributes, "schema_version": 9}),
            "weights": weights.isel(step=[0, 2, 1]).drop_vars("weight"),
        }
    )
    tree.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(BadInput) as caught:
        open_store(path)
    for part in (
        "other.nc",
        "seed is missing",
        "version 9 is newer than 1",
        "weights/weight is missing",
        "group metrics is missing",
        "weights: steps are not in increasing order",
    ):
        assert part in str(caught.value)


def test_a_group_is_exported_as_a_table(finished: Finished, tmp_path: Path) -> None:
    export_csv(finished.store, "evaluation", tmp_path / "evaluation.csv")
    with (tmp_path / "evaluation.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = {
        (int(row["step"]), int(row["prompt"]), int(row["rollout"])): float(row["correct"]) for row in rows
    }
    correct = finished.store["evaluation"]["correct"]
    assert len(found) == correct.size
    assert all(found[step, 5, 1] == float(correct.sel(step=step)[5, 1]) for step in (0, 3, 6, 7))


def test_exporting_an_unknown_group_lists_those_that_exist(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nope: no such group.*known: evaluation, logprobs, metrics"):
        export_csv(finished.store, "nope", tmp_path / "nope.csv")
    assert list(tmp_path.iterdir()) == []
