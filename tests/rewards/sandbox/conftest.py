"""The tiers of this machine, each as root and as it is for an ordinary user."""

import os

import pytest

from collabllm.rewards.sandbox.bubblewrap import BUBBLEWRAP
from collabllm.rewards.sandbox.landlock import LANDLOCK
from collabllm.rewards.sandbox.run import tier_error
from collabllm.rewards.sandbox.unsafe import UNSAFE

TIERS = {tier.name: tier for tier in (BUBBLEWRAP, LANDLOCK, UNSAFE)}


def available(name):
    """Return a tier, or skip by name where this machine does not have it."""
    error = tier_error(TIERS[name])
    if error:
        pytest.skip(f"tier {name}: {error}")
    return TIERS[name]


@pytest.fixture(params=["bubblewrap", "landlock"])
def tier(request):
    return available(request.param)


@pytest.fixture(
    params=["bubblewrap", "bubblewrap as a user", "landlock", "landlock as a user", "unsafe"]
)
def every_tier(request, monkeypatch):
    """Give each tier, as root has it and as it is without: no user id of its own for a program."""
    name, _, as_user = request.param.partition(" as")
    found = available(name)
    if as_user:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return found
