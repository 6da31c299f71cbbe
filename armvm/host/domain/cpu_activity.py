"""Whether a domain's CPUs run, and how much: distinguishes a slow guest from a hung one."""

from __future__ import annotations

import libvirt

from armvm.host.connection import Domain
from armvm.host.domain.instance import STATES

#: Reasons for a pause (virDomainPausedReason) that the user can act on.
_REASONS = {libvirt.VIR_DOMAIN_PAUSED_IOERROR: "ioerror"}


def look(domain: Domain) -> tuple[str, str | None, float | None]:
    """Return a domain's state in virsh's words, the reason if relevant, and its CPU seconds.

    The seconds are the sum over all vCPUs: their run time plus the time they waited for a host
    CPU (``vcpu.N.delay``, libvirt 7.6 and later), so that a guest on a busy host does not seem
    idle. None if libvirt does not report them.
    """
    wanted = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_VCPU
    # Does not wait for a domain on which another client runs a job.
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    try:
        ((_, told),) = domain.connect().domainListGetStats([domain], wanted, flags)
    except (libvirt.libvirtError, ValueError):  # just stopped; the next sample shows it
        return "unknown", None, None
    state = STATES.get(told.get("state.state", 0), "unknown")
    paused = state == STATES[libvirt.VIR_DOMAIN_PAUSED]
    spent = [
        told[key]
        for number in range(told.get("vcpu.maximum", 0))
        for key in (f"vcpu.{number}.time", f"vcpu.{number}.delay")
        if key in told
    ]
    reason = _REASONS.get(told.get("state.reason", 0)) if paused else None
    return state, reason, sum(spent) / 1e9 if spent else None
