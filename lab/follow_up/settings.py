"""Settings of the follow-ups, torch-free. To add one: a settings class here, a field, its file, a registry row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from lab.errors import BadInput
from lab.extrapolation.extrapolator import JumpRules
from lab.extrapolation.settings import EXTRAPOLATORS, build_extrapolator, default_method
from lab.measure_settings import MeasureSettings
from lab.objectives.settings import EvaluationSettings
from lab.settings import Invalid, build, choose, option_name, require, suggest

if TYPE_CHECKING:
    from lab.training import TrainSettings

NONE = "none"
PERSISTENCE = "persistence"

FOLLOW_UPS: dict[str, str] = {
    "measurement": "lab.follow_up.measurement:MeasurementFollowUp",
    "extrapolation": "lab.follow_up.extrapolation:ExtrapolationFollowUp",
}
"""Each follow-up by the field of `FollowUpSettings` that asks for it, in the order in which they are done."""


@dataclass(frozen=True)
class MeasurementSettings(MeasureSettings):
    """How straight the run is, as `lab measure run=` says it."""

    fit_share: float
    """Share of the span in steps that forecasts are fitted on; the recorded points after it are held out."""

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except BadInput as error:  # of the protocol, named as a verb's own key is
            raise Invalid("protocol", str(error).removeprefix("protocol: ")) from None
        require(0.0 < self.fit_share < 1.0, "fit_share", f"expected between 0 and 1, got {self.fit_share}")


@dataclass(frozen=True)
class ExtrapolationSettings:
    """Weight-space extrapolation of the run's own checkpoints, each result evaluated on held-out problems."""

    methods: tuple[str, ...]
    """Methods as `lab extrapolate` knows them, with their shipped settings. Standing still is always evaluated."""
    fit_until: float
    """Share of the run's steps: the checkpoints up to there are fitted on."""
    targets: tuple[float, ...]
    """Where to, as shares of the run's steps; above 1 is further than the run was trained."""
    copy: tuple[str, ...]
    """Tensors with one of these words in their name are copied from the last checkpoint fitted on."""
    evaluation: EvaluationSettings
    """The held-out problems of every evaluation, the same for all."""

    def __post_init__(self) -> None:
        require(len(self.methods) > 0, "methods", "name at least one")
        for name in self.methods:
            known = [each for each in EXTRAPOLATORS if each != "expo"]
            hint = "goes as far as its alpha says, not to a step" if name == "expo" else suggest(name, known)
            require(name in known, "methods", f"cannot be {name!r}: {hint}")
        _require_distinct("methods", self.methods)
        require(0 < self.fit_until < 1, "fit_until", f"must lie in (0, 1), got {self.fit_until}")
        require(len(self.targets) > 0, "targets", "name at least one")
        for share in self.targets:
            after = share > self.fit_until
            require(after, "targets", f"must be after fit_until={self.fit_until:g}, got {share:g}")
        JumpRules(self.copy, None, "pooled")

    @property
    def jumping_methods(self) -> tuple[str, ...]:
        """The methods other than standing still."""
        return tuple(name for name in self.methods if name != PERSISTENCE)

    @property
    def completions(self) -> int:
        """Completions of all evaluations, if the run has a checkpoint at every target."""
        models = 1 + len(self.targets) * (1 + len(self.jumping_methods))
        return models * self.evaluation.problems * self.evaluation.rollouts

    def target_steps(self, steps: int) -> list[int]:
        """Return the targets of a run of so many steps, in increasing order."""
        return sorted(round(share * steps) for share in self.targets)

    def fitted_steps(self, steps: int, checkpoint_every: int) -> list[int]:
        """Return the steps of the checkpoints that are fitted on."""
        last = min(int(self.fit_until * steps + 1e-9), steps)
        return list(range(0, last + 1, checkpoint_every))


@dataclass(frozen=True)
class FollowUpSettings:
    """What follows on training."""

    name: str
    """Label of the option."""
    form: str | None
    """What this run is of its study, such as `reduced form (CPU)`; said in the summary and on the page."""
    measurement: MeasurementSettings | None
    """Null for none."""
    extrapolation: ExtrapolationSettings | None
    """Null for none."""

    def check(self, settings: TrainSettings) -> None:
        """Refuse, before anything is trained, what a follow-up could not do with the run.

        Raises:
            BadInput: names the key.
        """
        if not settings.objective.trains_language_model:
            raise BadInput(
                f"follow_up: objective={settings.objective.name} has no language model to follow up; leave it at none"
            )
        points = 1 + -(-settings.steps // settings.recorder.every)
        if self.measurement is not None and points < 3:
            raise BadInput(
                f"recorder.every: {settings.recorder.every} of {settings.steps} steps gives {points} recorded points, "
                "and follow_up.measurement needs at least 3; lower it, or raise steps"
            )
        if self.extrapolation is not None:
            _check_checkpoints(self.extrapolation, settings)


def _check_checkpoints(wanted: ExtrapolationSettings, settings: TrainSettings) -> None:
    every, key = settings.recorder.checkpoint_every, "follow_up.extrapolation"
    if every is None:
        raise BadInput(f"recorder.checkpoint_every: {key} needs full checkpoints; say how often")
    if settings.recorder.keep_last is not None:
        raise BadInput(
            f"recorder.keep_last: {key} fits on early checkpoints; set it to null, which keeps all"
        )
    fitted = wanted.fitted_steps(settings.steps, every)
    for name in wanted.jumping_methods:
        needed = build_extrapolator(default_method(name)).minimum_checkpoints
        if len(fitted) < needed:
            raise BadInput(
                f"recorder.checkpoint_every: {every} leaves {len(fitted)} checkpoints up to {key}.fit_until="
                f"{wanted.fit_until:g} of {settings.steps} steps, and method {name} needs {needed}; lower it"
            )
    targets = wanted.target_steps(settings.steps)
    if len(set(targets)) < len(targets) or targets[0] <= fitted[-1]:
        raise BadInput(
            f"{key}.targets: of {settings.steps} steps they come to {', '.join(map(str, targets))}, which have to be "
            f"different and after the last checkpoint fitted on, {fitted[-1]}"
        )


def build_follow_up_settings(
    node: Mapping[str, Any] | None, key: str = "follow_up"
) -> FollowUpSettings | None:
    """Build the settings of the configuration group `node`; None where nothing follows.

    Raises:
        BadInput: unknown key or impossible value, named by its full key.
    """
    if node is None:
        return None
    name = option_name(node, key)
    choose({NONE: None, "study": None}, name, f"{key}.name")
    if name == NONE:
        # An experiment may have set keys of the study that this option has been chosen against: those are known.
        known = [field.name for field in fields(FollowUpSettings)]
        for extra in node:
            if extra not in known:
                raise BadInput(f"{key}.{extra}: no code reads this key; {suggest(str(extra), known)}")
        return None
    settings: FollowUpSettings = build(FollowUpSettings, node, key)
    return settings


def _require_distinct(field: str, values: tuple[str, ...]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise Invalid(field, f"names {value!r} twice")
