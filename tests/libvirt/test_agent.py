"""The guest agent is asked only while it is connected: libvirt logs each question as an error."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from armvm.base.errors import DomainError
from armvm.host.agent import agent
from armvm.host.domain.instance import find_domain
from armvm.host.network.addresses import all_addresses
from armvm.host.network.networks import addresses
from tests.libvirt.world import Steps, World


def test_an_agent_that_is_not_connected_is_not_asked(world: World, image: Path, name: str) -> None:
    world.held(name, image)
    find_domain(world.connection, name).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    for ask, questions in (
        (lambda domain: addresses(domain), 2),  # leases, ARP table
        (lambda domain: addresses(domain, by_agent=True), 0),
        (lambda domain: all_addresses(domain), 2),
    ):
        steps = Steps()
        assert ask(steps.watch(find_domain(world.connection, name))) == []
        assert steps.calls.count("interfaceAddresses") == questions
    with pytest.raises(DomainError, match="does not answer"):
        agent.ensure_answers(find_domain(world.connection, name))
