"""Whether a domain's CPUs run, and how much: what tells a slow guest from one that hangs."""

from __future__ import annotations

import libvirt

from armvm.host.connection import Domain
from armvm.host.domain.instance import STATES

#: Why a domain is paused (virDomainPausedReason), where that says what to do.
_REASONS = {libvirt.VIR_DOMAIN_PAUSED_IOERROR: "ioerror"}


def look(domain: Domain) -> tuple[str, str | None, float | None]:
    """Return a domain's state in virsh's words, the reason where one matters, its CPU seconds.

    The seconds are of all vCPUs together: what they ran, and what they were kept waiting for a
    CPU of the host (``vcpu.N.delay``, libvirt 7.6 and later), so that a guest on a crowded host
    does not seem idle. None where libvirt does not know.
    """
    wanted = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_VCPU
    # A domain that somebody else has a job on is not waited for.
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    try:
        ((_, told),) = domain.connect().domainListGetStats([domain], wanted, flags)
    except (libvirt.libvirtError, ValueError):  # stopped just now; the next look tells
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
