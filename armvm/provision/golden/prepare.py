"""Prepare a booted machine to be saved as a golden: idle, small, with warm caches."""

from __future__ import annotations

import json
import time
from typing import Any

from armvm.base.errors import DomainError, NotReady
from armvm.base.poll import until
from armvm.guest.agents import clone_agent, clone_agent_tools, clone_identity
from armvm.host.agent import agent, channel
from armvm.host.connection import Domain
from armvm.host.domain.handle import observed
from armvm.host.network.link import set_link, wait_without_address
from armvm.provision.access.ssh import endpoint, run_in_guest
from armvm.provision.machine.plan import CreatePlan

#: The clone agent in the guest.
AGENT = f"{clone_agent_tools.DIRECTORY}/clone_agent.py"
#: Logins before the memory is saved. They fill the caches that later logins use.
REHEARSALS = 3
#: Seconds for the last session to end and the kernel's background work to finish.
SETTLING = 2.0
#: Seconds for each step of settling. fstrim takes a while in an emulated guest.
STEP_TIMEOUT = 300.0


def prepare(domain: Domain, plan: CreatePlan) -> None:
    """Stop timers, free unused space, rehearse a clone's first steps and start the clone agent.

    Raises DomainError, CommandFailed or NotReady if a step fails in the guest.
    """
    listing = "systemctl list-units --type=timer --state=active --plain --no-legend"
    lines = agent.output(domain, ["/usr/bin/env", *listing.split()]).splitlines()
    timers = [line.split()[0] for line in lines if line.strip()]
    if timers:
        agent.output(domain, ["/usr/bin/env", "systemctl", "stop", *timers], timeout=STEP_TIMEOUT)
    agent.output(domain, ["/bin/mkdir", "-m", "0700", "-p", clone_agent_tools.DIRECTORY])
    agent.write_file(domain, clone_agent.TIMERS, "\n".join(timers).encode())
    # A login waits two seconds for the user's service manager, unless it runs already.
    agent.succeeds(domain, ["/usr/bin/env", "loginctl", "enable-linger", plan.record.user])
    agent.succeeds(domain, ["/usr/bin/env", "fstrim", "-a"], timeout=STEP_TIMEOUT)
    agent.output(domain, ["/bin/sync"], timeout=STEP_TIMEOUT)
    agent.write_file(domain, "/proc/sys/vm/drop_caches", b"3\n")
    _rehearse(domain, plan)
    _start_agent(domain)
    until(
        lambda: any(channel.states(domain).values()),
        timeout=STEP_TIMEOUT,
        interval=0.5,
        late=lambda: NotReady(
            f"timed out after {STEP_TIMEOUT:g} s: the clone agent in {domain.name()} did not start"
        ),
    )
    set_link(domain, up=False)
    wait_without_address(domain, STEP_TIMEOUT)
    time.sleep(SETTLING)
    agent.output(domain, ["/bin/sync"], timeout=STEP_TIMEOUT)


def _start_agent(domain: Domain) -> None:
    """Start the program that clones continue with.

    It has a unit of its own: what it starts must not end with the guest agent's.
    """
    agent.write_file(domain, AGENT, clone_identity.program().encode())
    options = [f"--property={one}" for one in ("TasksMax=infinity", "OOMPolicy=continue")]
    agent.output(
        domain,
        [
            *("/usr/bin/env", "systemd-run", "--quiet", "--collect", "--unit=armvm-clone-agent"),
            *(*options, *clone_identity.PYTHON, AGENT, "wait"),
        ],
        timeout=STEP_TIMEOUT,
    )


def _rehearse(domain: Domain, plan: CreatePlan) -> None:
    """Do the first steps of a clone once in the golden, so that its caches hold the files."""
    order = clone_identity.make_order(
        plan.machine.name,
        plan.identity,
        user=plan.record.user,
        keys=plan.machine.ssh_keys,
        mask_boot_id=False,
    )
    clone_identity.check(order, _guest(domain, "rehearse", order=order))
    machine = observed(domain.connect(), domain)
    where = endpoint(machine)
    for _ in range(REHEARSALS):
        if where is None or run_in_guest(machine.instance, where, "true") is None:
            raise DomainError(f"cannot log in to {domain.name()}")


def _guest(domain: Domain, verb: str, *, order: Any = None) -> dict[str, Any]:
    stdin = b"" if order is None else json.dumps(order).encode()
    pid = agent.start_process(domain, clone_identity.guest_command(verb), stdin=stdin)
    return clone_identity.read_facts(agent.outcome(domain, pid, timeout=STEP_TIMEOUT))
