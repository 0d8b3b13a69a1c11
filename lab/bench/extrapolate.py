"""Seconds of extrapolating a model from two checkpoints, beside `cp` of one of them and mergekit's task_arithmetic.

In each round every side has its turn on the same two models, page cache warm, and each round starts with the next
side, so that a machine that slows down slows all of them. Our result is on the disk (fsync) when it is done, that of
`cp` need not be, so `cp` is timed with and without. Commands are timed from start to end, imports included; the work
alone is timed in this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import lab
from lab.bar import progress_bar
from lab.bench.extrapolate_settings import ExtrapolateBenchSettings
from lab.bench.intervals import ratio_interval
from lab.bench.machine import machine
from lab.bench.measure_checkpoints_data import STEPS_APART, random_checkpoints, shapes
from lab.errors import RunFailed
from lab.files import remove_tree, sync, write_json
from lab.provenance import provenance
from lab.runs import Run

CP, CP_SYNCED, WORK, COMMAND, MERGEKIT = "cp", "cp_synced", "work", "command", "mergekit"
REQUIREMENT = "mergekit==0.1.5"
TARGET_STEP = 3.5 * STEPS_APART  # two checkpoints, 0 and one spacing: beta = 3.5
TARGETS = {"work_over_cp": 2.5, "mergekit_over_command": 3.0}
_HEAD = 64  # size of an attention head

_HAS_MERGEKIT = (
    "from importlib.metadata import version; import mergekit.scripts.run_yaml; print(version('mergekit'))"
)


def run(settings: ExtrapolateBenchSettings, held: Run, seed: int, threads: int) -> dict[str, Any]:
    """Measure and return the summary.

    Raises:
        BadInput: no room on the disk.
        RunFailed: a command did not end well.
    """
    version = mergekit_version(settings.peers)
    tensors = shapes(settings.weights)
    found: dict[str, Any] = {}
    with progress_bar() as progress:
        task = progress.add_task("rounds", total=settings.repeats * len(settings.dtypes))
        for dtype in settings.dtypes:
            folder = held.path / f"models_{dtype}"
            if folder.exists():  # of a benchmark that was killed
                remove_tree(folder)
            with random_checkpoints(folder, tensors, 2, dtype, seed) as files:
                for file in files:
                    write_json(file.parent / "config.json", llama_config(tensors, dtype))
                sides = Sides(files, settings, held.path.absolute(), threads, dtype, version is not None)
                found[dtype] = compare(sides.rounds(settings.repeats, lambda: progress.advance(task)), files)
    summary = {
        "what": settings.what,
        "settings": asdict(settings),
        "weights": sum(int(np.prod(shape)) for shape in tensors.values()),
        "tensors": len(tensors),
        **found,
        "targets": TARGETS,
        "mergekit": version
        or f"not run: no {REQUIREMENT} in {settings.peers}; {settings.peers}/bin/pip install it",
        "machine": machine(),
        **provenance(),
    }
    return {**summary, "result": result_line(summary)}


def mergekit_version(peers: str) -> str | None:
    """Return the version of mergekit in an environment, None where it cannot be run there."""
    python = Path(peers).expanduser().absolute() / "bin" / "python"
    if not python.exists():
        return None
    done = subprocess.run([str(python), "-I", "-c", _HAS_MERGEKIT], capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else None


def llama_config(tensors: dict[str, tuple[int, ...]], dtype: str) -> dict[str, Any]:
    """Return a configuration that fits the tensors of `measure_checkpoints_data.shapes`."""
    vocabulary, width = tensors["model.embed_tokens.weight"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": tensors["model.layers.0.mlp.up_proj.weight"][0],
        "num_hidden_layers": sum(name.endswith("q_proj.weight") for name in tensors),
        "num_attention_heads": width // _HEAD,
        "num_key_value_heads": tensors["model.layers.0.self_attn.k_proj.weight"][0] // _HEAD,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
        "dtype": dtype,
    }


class Sides:
    """The sides of the benchmark on two models, each a function that returns seconds and peak memory.

    Args:
        files: weights of the two models.
        settings: of the benchmark.
        place: directory to write into.
        threads: of numerical libraries.
        dtype: stored type.
        with_mergekit: whether that side takes part.
    """

    def __init__(
        self,
        files: list[Path],
        settings: ExtrapolateBenchSettings,
        place: Path,
        threads: int,
        dtype: str,
        with_mergekit: bool,
    ) -> None:
        self._files = [file.absolute() for file in files]
        self._settings, self._place, self._threads, self._dtype = settings, place, threads, dtype
        self._out = place / "out"
        self.sides: dict[str, Callable[[], dict[str, float]]] = {
            CP: self._cp,
            CP_SYNCED: lambda: self._cp(synced=True),
            WORK: self._work,
            COMMAND: self._command,
        }
        if with_mergekit:
            self.sides[MERGEKIT] = self._mergekit

    def rounds(self, repeats: int, advance: Callable[[], None]) -> dict[str, list[dict[str, float]]]:
        """Return what each side took in each round."""
        found: dict[str, list[dict[str, float]]] = {name: [] for name in self.sides}
        self._clean(self._work)  # warms the page cache and imports
        for index in range(repeats):
            first = index % len(self.sides)
            for name in [*self.sides][first:] + [*self.sides][:first]:
                found[name].append(self._clean(self.sides[name]))
            advance()
        return found

    def _clean(self, side: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Give a side an empty place and a quiet disk, and remove what it wrote."""
        os.sync()
        try:
            return side()
        finally:
            if self._out.exists():
                remove_tree(self._out)

    def _cp(self, synced: bool = False) -> dict[str, float]:
        self._out.mkdir()
        started = time.perf_counter()
        subprocess.run(["cp", str(self._files[0]), str(self._out)], check=True)
        if synced:
            sync(self._out / self._files[0].name)
        return {"seconds": time.perf_counter() - started}

    def _work(self) -> dict[str, float]:
        from lab.extrapolation import default_method
        from lab.extrapolation.extrapolate import prepare, write_model
        from lab.extrapolation.extrapolator import NO_RULES
        from lab.extrapolation.output_settings import OutputSettings
        from lab.trajectory.readers import open_series

        output = OutputSettings("same", "5GB", "quick", self._settings.workers)
        started = time.perf_counter()
        series = open_series(self._files[0].parent.parent)
        write_model(prepare(series, default_method("two_point"), TARGET_STEP, NO_RULES, output), self._out)
        return {"seconds": time.perf_counter() - started}

    def _command(self) -> dict[str, float]:
        words = [
            f"checkpoints='{self._files[0].parent.parent}'",
            f"target={TARGET_STEP:g}",
            f"output='{self._out}'",
            f"runs_dir='{self._place / 'runs'}'",
            "copy=[]",
            f"workers={self._settings.workers}",
            f"threads={self._threads}",
        ]
        root = str(Path(lab.__file__).resolve().parents[1])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        return self._timed([sys.executable, "-m", "lab", "extrapolate", *words], PYTHONPATH=paths)

    def _mergekit(self) -> dict[str, float]:
        first, second = (str(file.parent) for file in self._files)
        recipe = {
            "merge_method": "task_arithmetic",
            "base_model": first,
            "models": [{"model": second, "parameters": {"weight": TARGET_STEP / STEPS_APART}}],
            "dtype": self._dtype,
        }
        write_json(self._place / "recipe.yaml", recipe)  # JSON is YAML
        python = Path(self._settings.peers).expanduser().absolute() / "bin" / "python"
        command = [
            str(python),
            "-m",
            "mergekit.scripts.run_yaml",
            str(self._place / "recipe.yaml"),
            str(self._out),
        ]
        return self._timed([*command, "--quiet", "-j", str(self._threads)])

    def _timed(self, command: list[str], **variables: str) -> dict[str, float]:
        """Run a command, with some variables of the environment changed; return its seconds and peak memory.

        Raises:
            RunFailed: it did not end well; the message has its last words.
        """
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads),
            "HF_HUB_OFFLINE": "1",
            **variables,
        }
        log = self._place / "command.log"
        with open(log, "wb") as said:
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            words = log.read_text(encoding="utf-8", errors="replace").strip()[-1000:]
            raise RunFailed(f"{' '.join(command[:4])} ended with exit code {process.returncode}: {words}")
        kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        return {"seconds": seconds, "peak_rss_mb": kilobytes / 1024}


def compare(found: dict[str, list[dict[str, float]]], files: list[Path]) -> dict[str, Any]:
    """Return seconds, memory, and ratios within rounds with their intervals."""
    seconds = {name: [each["seconds"] for each in rounds] for name, rounds in found.items()}
    pairs = {
        "work_over_cp": (WORK, CP),
        "work_over_cp_synced": (WORK, CP_SYNCED),
        "command_over_cp": (COMMAND, CP),
        "mergekit_over_command": (MERGEKIT, COMMAND),
    }
    return {
        "model_bytes": files[0].stat().st_size,
        "seconds": seconds,
        "ratios": {
            name: ratio_interval(seconds[over], seconds[under])
            for name, (over, under) in pairs.items()
            if over in seconds
        },
        "peak_rss_mb": {
            name: max(each["peak_rss_mb"] for each in rounds)
            for name, rounds in found.items()
            if "peak_rss_mb" in rounds[0]
        },
    }


def result_line(summary: dict[str, Any]) -> str:
    """Return the comparison in one line."""
    parts = []
    for dtype in summary["settings"]["dtypes"]:
        ratios = {name: each["median"] for name, each in summary[dtype]["ratios"].items()}
        part = f"{dtype}: {ratios['work_over_cp']:.2f}x cp ({ratios['work_over_cp_synced']:.2f}x with fsync)"
        if "mergekit_over_command" in ratios:
            part += f", {ratios['mergekit_over_command']:.1f}x faster than mergekit"
        parts.append(part)
    return "; ".join(parts)


def show(summary: dict[str, Any]) -> None:
    """Print seconds, ratios, targets and memory."""
    from statistics import median

    from rich.console import Console
    from rich.table import Table

    names = {
        CP: "cp",
        CP_SYNCED: "cp, fsync",
        WORK: "ours, the work alone",
        COMMAND: "lab extrapolate",
        MERGEKIT: "mergekit task_arithmetic",
    }
    for dtype in summary["settings"]["dtypes"]:
        found = summary[dtype]
        table = Table(f"{dtype}, {found['model_bytes'] / 1e9:.2f} GB each", "seconds", "peak memory (MB)")
        for name, seconds in found["seconds"].items():
            memory = found["peak_rss_mb"].get(name)
            table.add_row(names[name], f"{median(seconds):.2f}", "" if memory is None else f"{memory:.0f}")
        table.add_section()
        for name, ratio in found["ratios"].items():
            interval = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
            target = summary["targets"].get(name)
            table.add_row(
                name.replace("_", " "),
                f"{ratio['median']:.2f}{interval}",
                f"target {target:g}" if target else "",
            )
        Console().print(table)
    if summary["mergekit"].startswith("not run"):
        Console().print(f"mergekit {summary['mergekit']}")
