"""Measure what checkpoints do on probes: log-probs, activations by layer, the source of each layer's change."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lab.checkpoints.measurement import adjust, spacing_is_safe
from lab.draw import Draw
from lab.errors import BadInput
from lab.linearity import (
    Curves,
    get_protocol,
    measure_trajectory,
    sign_flip_test,
    sign_patterns,
    summarise,
    to_json,
)
from lab.linearity.checks import FloatArray
from lab.linearity.filters import UNFILTERED
from lab.linearity.r_squared import r_squared_unchecked
from lab.linearity.statistics import MedianRSquared
from lab.measure_settings import CheckpointSettings
from lab.measurement import examples
from lab.policies.huggingface import load_directory
from lab.policies.policy import Policy
from lab.probing.layer_source import LayerSource, layer_source
from lab.probing.outputs import Outputs, outputs
from lab.probing.probe_file import Probe
from lab.probing.sequences import Sequences, encode
from lab.settings import Invalid
from lab.trajectory.readers import ModelSeries

TESTED_ACTIVATIONS = 256
"""Of each layer, in the test of its median R²."""


@dataclass
class ProbeMeasurement:
    """What was measured on probes.

    Attributes:
        numbers: `logprobs` (see `lab.linearity.measure_trajectory`), `activations` and `layer_source` (lists by
            layer), ready for JSON.
        curves: samples behind the histogram of log-probs.
        examples: a few paths of log-probs, float64 [checkpoint, token].
        groups: the same labelled, and every log-prob, for the store.
    """

    numbers: dict[str, Any]
    curves: Curves
    examples: np.ndarray
    groups: dict[str, xr.Dataset] = field(default_factory=dict)


def measure_probes(
    series: ModelSeries,
    probes: list[Probe],
    chat_template: bool,
    how: CheckpointSettings,
    seed: int = 0,
    progress: Callable[[int], None] = lambda models: None,
) -> ProbeMeasurement:
    """Load every checkpoint in turn and measure what it makes of the probes.

    Memory is that of one model in float32, and some hidden states.

    Args:
        series: full checkpoints with a tokenizer beside each.
        probes: prompts and responses.
        chat_template: put prompts through the tokenizer's chat template.
        how: see `CheckpointSettings`; R² of activations has no filter.
        seed: of samples and nulls.
        progress: called with the number of models that are newly done with.

    Raises:
        BadInput: a checkpoint that Transformers cannot load, a text that cannot be encoded, or
            checkpoints that tokenize the probes differently.
    """
    directories = series.directories
    steps = np.asarray(series.steps, dtype=np.float64)

    def loaded(index: int) -> tuple[Policy, list[Sequences]]:
        gc.collect()  # The model before this one.
        policy = _load(directories[index], chat_template)
        return policy, encode(policy, probes)

    found: list[Outputs] = []
    for index in range(len(steps)):
        policy, batches = loaded(index)
        found.append(outputs(policy, batches, seed))
        del policy
        if not np.array_equal(found[index].tokens, found[0].tokens):
            raise BadInput(
                f"probes: {directories[index]} tokenizes them otherwise than {directories[0]}; "
                "give both the same tokenizer"
            )
        progress(1)
    source = layer_source(lambda: loaded(0)[0], lambda: loaded(len(steps) - 1)[0], batches)
    progress(3)
    return _measured(found, source, steps, batches, how, seed)


def _load(directory: Path, chat_template: bool) -> Policy:
    try:
        return load_directory(str(directory.absolute()), "float32", chat_template)
    except BadInput as error:
        raise BadInput(f"probes: {str(error).removeprefix('policy.path: ')}") from None


def _measured(
    found: list[Outputs],
    source: LayerSource,
    steps: FloatArray,
    batches: list[Sequences],
    how: CheckpointSettings,
    seed: int,
) -> ProbeMeasurement:
    draw = Draw(seed)
    log_probs = np.stack([each.log_probs for each in found])
    safe = how.nulls and spacing_is_safe(steps, how)
    try:
        numbers, curves = measure_trajectory(
            log_probs,
            steps,
            "logprobs",
            get_protocol(how.protocol),
            draw.generator("null_logprobs"),
            spacing_is_safe=safe,
            n_flips=how.flips,
            fit_share=how.fit_share,
        )
    except Invalid as error:
        raise BadInput(f"probes: log-probs: {error}") from None
    activations = np.stack([each.activations for each in found]).astype(np.float64)
    by_layer, r2 = _by_layer(activations, steps, how, draw, safe)
    by_layer["null_r2_median"] = summarise(curves.walk).median
    shares = {
        name: getattr(source, name) / np.where(source.total > 0, source.total, np.nan)
        for name in ("from_input", "from_weights", "second_order")
    }
    token_probe = np.concatenate([np.nonzero(batch.mask.cpu().numpy())[0] for batch in batches])
    return ProbeMeasurement(
        numbers={
            "logprobs": numbers,
            "activations": to_json(by_layer),
            "layer_source": to_json({"total": source.total, **shares, "probes": source.probes}),
        },
        curves=curves,
        examples=examples(log_probs),
        groups={
            "logprobs": xr.Dataset(
                {"log_prob": (("step", "token"), log_probs)},
                coords={
                    "step": steps,
                    "token_id": ("token", found[0].tokens),
                    "token_prompt": ("token", _running(batches, token_probe)),
                },
            ),
            "activations": xr.Dataset(
                {"r2": (("layer", "coordinate"), r2)}
                | {name: ("layer", values) for name, values in by_layer.items() if np.ndim(values) == 1}
            ),
            "layer_source": xr.Dataset(
                {"total_squared_change": ("layer", source.total)}
                | {f"share_{name}": ("layer", values) for name, values in shares.items()}
            ),
        },
    )


def _running(batches: list[Sequences], rows: np.ndarray) -> np.ndarray:
    """Number of the probe of each token, from its row within a batch."""
    sizes = [int(batch.mask.sum()) for batch in batches]
    starts = np.cumsum([0, *(len(batch.tokens) for batch in batches)])[:-1]
    return rows + np.repeat(starts, sizes)


def _by_layer(
    activations: FloatArray, steps: FloatArray, how: CheckpointSettings, draw: Draw, safe: bool
) -> tuple[dict[str, Any], FloatArray]:
    """R² of activations [checkpoint, layer, coordinate]: numbers by layer, and R² float64 [layer, coordinate]."""
    patterns = sign_patterns(len(steps) - 1, how.flips, draw.generator("activation_patterns"), how.flips + 1)
    layers = activations.shape[1]
    r2 = np.stack([r_squared_unchecked(activations[:, layer], steps) for layer in range(layers)])
    each = [summarise(values) for values in r2]
    p_values = np.full(layers, np.nan)
    if safe:
        statistic, generator = MedianRSquared(UNFILTERED, "weights"), draw.generator("unused")
        for layer in range(layers):
            tested = activations[:, layer, :: max(1, activations.shape[2] // TESTED_ACTIVATIONS)]
            p_values[layer] = sign_flip_test(tested, steps, statistic, generator, patterns=patterns).p_value
    return {
        "r2_median": np.array([one.median for one in each]),
        "r2_share_above_0_7": np.array([one.share_above for one in each]),
        "r2_low_quartile": np.array([one.quartiles[0] for one in each]),
        "r2_high_quartile": np.array([one.quartiles[1] for one in each]),
        "p_value": p_values,
        "q_value": adjust(p_values[:, None])[:, 0],
    }, r2
