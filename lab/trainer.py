"""Trainer and logger settings (torch-free), and the Lightning trainer built from them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab.draw import stable_hash
from lab.errors import BadInput
from lab.settings import build, choose, option_name, require

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch


@dataclass(frozen=True)
class TrainerSettings:
    """Where a run is computed."""

    name: str
    """Label of the option: `cpu`, `gpu` or `auto`."""
    accelerator: Literal["cpu", "gpu"]
    """Kind of device."""
    devices: int
    """Number of devices."""
    strategy: Literal["auto", "ddp", "fsdp"]
    """`auto` is one process; `ddp` and `fsdp` have one for each device, each with its share of the prompts and with the
    whole model, or its share of weights, gradients and optimiser state (see `lab.sharded_weights`)."""
    precision: Literal["32-true", "bf16-mixed"]
    """Lightning's precision: float32 throughout, or bfloat16 arithmetic on float32 master weights."""

    def __post_init__(self) -> None:
        require(self.devices >= 1, "devices", f"must be at least 1, got {self.devices}")
        require(
            self.devices == 1 or self.strategy != "auto",
            "strategy",
            f"{self.devices} devices need trainer.strategy=ddp, or fsdp where memory is short",
        )


@dataclass(frozen=True)
class NoLoggerSettings:
    """Only metrics.csv."""

    name: str
    """`none`."""

    def build(self, directory: Path, first_step: int) -> list[Any]:
        """Return Lightning's loggers for a run in `directory` that (re)starts at `first_step`."""
        return []


@dataclass(frozen=True)
class TensorBoardSettings:
    """TensorBoard event files under `tensorboard/` in the run directory."""

    name: str
    """`tensorboard`."""

    def build(self, directory: Path, first_step: int) -> list[Any]:
        """See `NoLoggerSettings`."""
        from pytorch_lightning.loggers import TensorBoardLogger

        purge: dict[str, Any] = {"purge_step": first_step} if first_step > 0 else {}
        return [TensorBoardLogger(directory, name="tensorboard", version="", **purge)]


@dataclass(frozen=True)
class WandbSettings:
    """Weights & Biases, for those who have it installed."""

    name: str
    """`wandb`."""
    project: str
    """Project that the run is shown under."""
    offline: bool
    """Write locally only."""

    def build(self, directory: Path, first_step: int) -> list[Any]:
        """See `NoLoggerSettings`.

        Raises:
            BadInput: wandb is not installed.
        """
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise BadInput("logger=wandb: not installed; pip install 'rlvr-linear-lab[wandb]'") from None
        from pytorch_lightning.loggers import WandbLogger

        # The configuration is written once and kept by a resume, so a resumed run goes on in the same place.
        written = (directory / "config.yaml").stat().st_mtime_ns
        identity = f"{stable_hash(directory.absolute(), written):016x}"
        name = f"{directory.parent.name}/{directory.name}"
        return [
            WandbLogger(
                project=self.project,
                save_dir=str(directory),
                offline=self.offline,
                name=name,
                id=identity,
                resume="allow",
            )
        ]


LoggerSettings = NoLoggerSettings | TensorBoardSettings | WandbSettings
LOGGERS: dict[str, type] = {
    "none": NoLoggerSettings,
    "tensorboard": TensorBoardSettings,
    "wandb": WandbSettings,
}


def build_logger_settings(node: Mapping[str, Any], key: str = "logger") -> LoggerSettings:
    """Build the settings of the logger that the configuration group `node` names.

    Raises:
        BadInput: unknown logger, unknown key or impossible value, named by its full key.
    """
    settings: LoggerSettings = build(choose(LOGGERS, option_name(node, key), f"{key}.name"), node, key)
    return settings


def torch_device(settings: TrainerSettings) -> torch.device:
    """Return the (first) device that a run is computed on.

    Raises:
        BadInput: a GPU is asked for where there is none, or more than there are.
    """
    import torch

    if settings.accelerator == "cpu":
        return torch.device("cpu")
    found = torch.cuda.device_count()
    if found < settings.devices:
        raise BadInput(f"trainer.devices: {settings.devices} GPU asked for, {found} found; use trainer=cpu")
    # cuDNN's attention makes a plan for every shape, tens of milliseconds each, and rows that leave make many shapes.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda", 0)


def arithmetic(settings: TrainerSettings) -> AbstractContextManager[None]:
    """Return a context in which a model computes as it does in training: what is judged is what was trained."""
    import torch

    if settings.precision != "bf16-mixed":
        return nullcontext()
    kind = "cuda" if settings.accelerator == "gpu" else "cpu"
    # Without the cache of weights, which would outlive them.
    return torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False)


def build_trainer(
    settings: TrainerSettings, loggers: list[Any], callbacks: list[Any], directory: Path
) -> pl.Trainer:
    """Return a quiet Lightning trainer for one pass over the steps that are left.

    Raises:
        BadInput: a GPU is asked for where there is none.
    """
    import pytorch_lightning as pl

    torch_device(settings)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    trainer = pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=_strategy(settings),
        precision=settings.precision,
        max_epochs=1,
        use_distributed_sampler=False,  # every process goes through all steps
        logger=loggers or False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
    )
    # Lightning's handler of SIGTERM calls a collective wherever the process happens to be; others are not there, and
    # all wait for ever. A run is stopped between steps, by all processes together (`lab.stopping`, the recorder).
    trainer._signal_connector.register_signal_handlers = _no_handlers  # type: ignore[method-assign]
    return trainer


def _no_handlers() -> None:
    pass


def _strategy(settings: TrainerSettings) -> Any:
    if settings.strategy != "fsdp":
        return settings.strategy
    from lab.sharded_strategy import ShardedStrategy

    return ShardedStrategy()
