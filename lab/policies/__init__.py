"""Policies: a causal language model with its tokenizer, and the engine that samples from it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lab.policies.settings import POLICIES, PolicySettings, build_policy_settings

if TYPE_CHECKING:
    from lab.policies.policy import Policy


def load_policy(settings: PolicySettings, seed: int) -> Policy:
    """Load the policy that `settings` names; `seed` matters only to one with random weights.

    Raises:
        BadInput: the model or its tokenizer cannot be used; the message says why.
    """
    module, function = POLICIES[settings.name][1].split(":")
    policy: Policy = getattr(import_module(module), function)(settings, seed)
    return policy


__all__ = ["POLICIES", "PolicySettings", "build_policy_settings", "load_policy"]
