"""Re-grounding itself: weights, optimiser and schedule at the ends of blocks, whatever training loop calls it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lab.errors import BadInput
from lab.linearity.checks import FloatArray
from lab.regrounding.moments import after_jump
from lab.regrounding.schedule import reward_holds
from lab.regrounding.settings import BlockSettings

PREFIX = "regrounding/"


@dataclass(frozen=True)
class CheckScores:
    """What one pass of the held-out reward check found, and what it cost."""

    scores: FloatArray
    """float64 [problem]: mean reward of each; NaN where not judged."""
    rollouts: int = 0
    """Completions sampled."""
    tokens: int = 0
    """Tokens sampled."""


Check = Callable[[int], CheckScores]
"""Scores the weights as they are; given the step, so that a check before and after a jump has the same randomness."""


Probe = Callable[[], bool]
"""Tells whether the model's outputs are finite at the weights as they are."""


@dataclass(frozen=True)
class Outcome:
    """What became of the end of a block."""

    steps: float
    """Steps by which the run has got ahead of its own: 0 where it stayed, was taken back, or does not extrapolate."""
    metrics: dict[str, float]
    """Scalars for the log, named `regrounding/...`."""
    message: str | None = None
    """What a person should know."""


class Regrounder:
    """Does what the settings say at the end of every block.

    Args:
        settings: of the option.
        parameters: the trained parameters by canonical name; float32 master weights.
        updates_per_step: optimiser updates of a step.
        check: the held-out reward check, for a schedule that judges.
        probe: asked after every move; when it says no, the move is taken back.

    Raises:
        BadInput: there is no check for a schedule that judges; a parameter is of lower precision, in which a jump
            would be rounded away.
    """

    def __init__(
        self,
        settings: BlockSettings,
        parameters: Mapping[str, nn.Parameter],
        updates_per_step: int = 1,
        check: Check | None = None,
        probe: Probe = lambda: True,
    ) -> None:
        if settings.check is not None and check is None:
            raise BadInput(f"regrounding: {settings.name} judges every jump, so it needs a reward check")
        for name, parameter in parameters.items():
            if torch.finfo(parameter.dtype).eps > 1e-6:
                raise BadInput(
                    f"regrounding: {name} is {str(parameter.dtype).removeprefix('torch.')}, in which jumps are "
                    "rounded away; keep the weights in float32 and compute in mixed precision"
                )
        self.settings = settings
        self._parameters = list(parameters.values())
        self._updates_per_step = updates_per_step
        self._check = check
        self._probe = probe
        self._schedule = settings.schedule()
        self._outer = settings.outer_step()
        self._start: list[Tensor] = []
        self._previous: list[Tensor] = []

    @torch.no_grad()
    def begin(self, step: int) -> None:
        """Before the first step of a run, or after `load_state_dict`: make sure that the block has a start."""
        if self._outer is None or self._schedule.over(step):
            return
        if not self._start:
            if step % self.settings.block_steps != 0:
                raise BadInput(
                    f"regrounding: no weights of the start of the block are known at step {step}; go on from a "
                    f"checkpoint at a multiple of {self.settings.block_steps} steps, or from one that has them"
                )
            self._start = [parameter.detach().clone() for parameter in self._parameters]
        pairs = list(zip(self._start, self._parameters, strict=True))
        if any(kept.shape != parameter.shape for kept, parameter in pairs):
            raise BadInput("regrounding: the weights kept of the block's start are of another model")
        self._start = [kept.to(parameter) for kept, parameter in pairs]
        self._previous = [kept.to(like) for kept, like in zip(self._previous, self._start, strict=False)]
        buffers = self._outer.buffers()
        self._outer.load_buffers([kept.to(like) for kept, like in zip(buffers, self._start, strict=False)])

    @torch.no_grad()
    def after_step(self, step: int, optimizer: Optimizer) -> Outcome | None:
        """Call after every step; does something at the ends of blocks only.

        Args:
            step: steps done, a multiple of `block_steps` at the end of a block.
            optimizer: whose state is treated as the settings say.

        Returns:
            None within a block, and once the schedule is over.
        """
        if step % self.settings.block_steps != 0:
            return None
        if self._outer is None:
            return self._reset(step, optimizer)
        if not self._start:
            return None
        skill = self._watch()
        wanted = self._schedule.next_jump(step)
        outcome = Outcome(0.0, {f"{PREFIX}jump_steps": 0.0})
        if wanted is not None:
            outcome = self._step_out(step, wanted, optimizer)
        self._start = [parameter.detach().clone() for parameter in self._parameters]
        if self._schedule.over(step):
            self._start, self._previous = [], []
        if skill is not None:
            outcome.metrics[f"{PREFIX}skill"] = skill
        return outcome

    def _reset(self, step: int, optimizer: Optimizer) -> Outcome | None:
        if self._schedule.next_jump(step) is None:
            return None
        after_jump(optimizer, self.settings.optimizer_state, 0.0)
        return Outcome(0.0, {f"{PREFIX}jump_steps": 0.0})

    def _displacement(self) -> list[Tensor]:
        return [now.detach() - start for now, start in zip(self._parameters, self._start, strict=True)]

    def _watch(self) -> float | None:
        """Tell the schedule how well the last block's displacement, damped, foretold this one's; return it."""
        if not self._schedule.watches_skill:
            return None
        displacement, previous = self._displacement(), self._previous
        self._previous = displacement
        if not previous:
            return None
        damping = getattr(self.settings, "damping", 1.0)
        pairs = list(zip(displacement, previous, strict=True))
        missed = _square_norm([now - damping * before for now, before in pairs])
        moved = _square_norm(displacement)
        if moved == 0:
            return None
        skill = 1 - missed / moved
        self._schedule.observe(skill)
        return skill

    def _step_out(self, step: int, wanted: float, optimizer: Optimizer) -> Outcome:
        """Move, look whether it did good, and take it back exactly where it did not."""
        assert self._outer is not None
        displacement = self._displacement()
        move = self._outer.move(displacement, wanted / self.settings.block_steps)
        length, moved = _square_norm(move) ** 0.5, _square_norm(displacement) ** 0.5
        shortened = self._shorten(move, length)
        metrics = {f"{PREFIX}norm_ratio": shortened * length / moved if moved > 0 else float("nan")}
        judge = self.settings.check
        before = None if judge is None or self._check is None else self._check(step)
        ends = [parameter.detach().clone() for parameter in self._parameters]
        for parameter, part in zip(self._parameters, move, strict=True):
            parameter.add_(part)
        del displacement, move
        finite = math.isfinite(_square_norm(self._parameters)) and self._probe()
        accepted = finite
        if before is not None and self._check is not None and judge is not None:
            after = self._check(step) if finite else CheckScores(np.full(len(before.scores), np.nan))
            accepted = finite and reward_holds(before.scores, after.scores, judge.tolerance)
            metrics |= {
                f"{PREFIX}check_before": float(np.nanmean(before.scores)),
                f"{PREFIX}check_after": float(np.nanmean(after.scores)) if finite else float("nan"),
                f"{PREFIX}check_rollouts": float(before.rollouts + after.rollouts),
                f"{PREFIX}check_tokens": float(before.tokens + after.tokens),
            }
        self._schedule.learn(accepted)
        metrics |= {f"{PREFIX}accepted": float(accepted), f"{PREFIX}not_finite": float(not finite)}
        if not accepted:
            for parameter, end in zip(self._parameters, ends, strict=True):
                parameter.copy_(end)
            message = (
                None if finite else f"step {step}: after the jump numbers were not finite; it was taken back"
            )
            return Outcome(0.0, {f"{PREFIX}jump_steps": 0.0, **metrics}, message)
        self._outer.commit()
        steps = wanted * shortened if self._outer.extrapolates else 0.0
        after_jump(optimizer, self.settings.optimizer_state, wanted * shortened * self._updates_per_step)
        return Outcome(steps, {f"{PREFIX}jump_steps": steps, **metrics})

    def _shorten(self, move: list[Tensor], length: float) -> float:
        """Scale a move that is longer than allowed, in place; return the factor."""
        share = self.settings.largest_move
        if share is None:
            return 1.0
        allowed = share * _square_norm(self._parameters) ** 0.5
        if not length > allowed:
            return 1.0
        for part in move:
            part.mul_(allowed / length)
        return allowed / length

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: tensors and plain numbers."""
        return {
            "start": list(self._start),
            "previous": list(self._previous),
            "buffers": [] if self._outer is None else self._outer.buffers(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned; `begin` puts it on the parameters' device."""
        self._start = list(state["start"])
        self._previous = list(state["previous"])
        if self._outer is not None:
            self._outer.load_buffers(state["buffers"])
        self._schedule.load_state_dict(state["schedule"])


def _square_norm(tensors: Sequence[Tensor]) -> float:
    """Return the sum of squares over all tensors, in double precision, where that of finite float32 cannot overflow."""
    norms = (float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for tensor in tensors)
    return math.fsum(norm**2 for norm in norms)
