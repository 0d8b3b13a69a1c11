"""Sweeps: Optuna studies over Hydra configurations, resumable, with any number of workers.

`space` and `points` say which points there are, `configs` what a point means as a configuration, `trials` how one
seed of a point is run, `study` who runs which point next, `worker` is the loop around it, `launchers` place workers,
`results` puts it all into one dataset.
"""
