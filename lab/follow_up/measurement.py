"""How straight the run is and how well it can be forecast: what `lab measure run=` does, as a follow-up."""

from __future__ import annotations

from typing import Any

from lab.follow_up.follow_up import Findings, FollowUp
from lab.follow_up.settings import MeasurementSettings
from lab.linearity import verdict
from lab.measurement import Measurement, measure
from lab.measurement_report import draw_measurements, measurement_sections
from lab.report import Picture
from lab.trajectory.store import open_store


class MeasurementFollowUp(FollowUp):
    """See the module."""

    def find(self) -> Findings:
        """See `FollowUp`."""
        found = self.trained.pieces.get("measurement", self._measure)
        numbers = found["numbers"]
        return Findings(
            {**numbers, "protocol": self._how.protocol, "verdict": found["verdict"]},
            found["verdict"],
            measurement_sections({"run": Measurement(numbers=numbers)}),
            [Picture(self.trained.path / file, caption) for file, caption in found["pictures"]],
        )

    @property
    def _how(self) -> MeasurementSettings:
        settings = self.trained.settings.follow_up
        assert settings is not None and settings.measurement is not None
        return settings.measurement

    def _measure(self) -> dict[str, Any]:
        how, seed = self._how, self.trained.settings.seed
        measured = measure(open_store(self.trained.path), how.protocol, how.flips, seed, how.fit_share)
        note = f"1 run (seed {seed}), {len(measured.steps)} recorded steps"
        pictures = draw_measurements({"run": measured}, note, self.trained.path / "figures")
        return {
            "numbers": measured.numbers,
            "verdict": verdict(measured.numbers["weights"]),
            "pictures": [
                [picture.path.relative_to(self.trained.path), picture.caption] for picture in pictures
            ],
        }
