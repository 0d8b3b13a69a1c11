"""Figures from stored results: one module a figure, each with `SOURCE` (the file it reads) and `draw(results)`."""

from __future__ import annotations

FIGURES: dict[str, str] = {
    "snr_curve": "paper_figs.snr_curve",
    "snr_synthetic": "paper_figs.snr_synthetic",
    "phase_diagram": "paper_figs.phase_diagram",
    "noise_and_straightness": "paper_figs.noise_and_straightness",
    "sources": "paper_figs.sources",
    "extrapolation_targets": "paper_figs.extrapolation_targets",
    "output_space": "paper_figs.output_space",
    "mechanism": "paper_figs.mechanism",
    "precision": "paper_figs.precision",
    "noise_surface": "paper_figs.noise_surface",
    "horizon": "paper_figs.horizon",
    "regrounding": "paper_figs.regrounding",
}
"""Name to module. To add a figure: its module, and a row here."""
