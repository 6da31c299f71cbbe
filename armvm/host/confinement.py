"""How AppArmor and SELinux keep QEMU from a golden's memory, and how to allow access.

libvirt adds rules for every file in a domain's XML. The memory that clones share is named in
``qemu:commandline``, which libvirt does not read, so QEMU may not open it unless a rule or a
label allows it:

- AppArmor: a rule in the local part of libvirt's abstraction. libvirt writes a profile for each
  domain that includes it, so a rule takes effect at the next start. Sources: libvirt's
  src/security/apparmor/libvirt-qemu; apparmor.d(5).
- SELinux: the type ``svirt_image_t`` without categories, libvirt's label for files that several
  machines share. Fedora's policy lets QEMU only read ``virt_image_t``, the type of a pool's files.
  Older policies forbid mapping any file, unless a boolean allows it. Sources: libvirt's
  src/security/security_selinux.c; Fedora's selinux-policy. Not tested.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from armvm.base.errors import ArmvmError
from armvm.base.paths import write_atomic
from armvm.host.facts import HostFacts

APPARMOR, SELINUX = "apparmor", "selinux"

#: The administrator's rules for all of libvirt's QEMU profiles, below the root.
_RULES = Path("etc/apparmor.d/local/abstractions/libvirt-qemu")
_TYPE = "svirt_image_t"
_LABEL = "security.selinux"
#: QEMU's error for a memory file that it may not use (its system/physmem.c, util/mmap-alloc.c).
_DENIAL = re.compile(r"(open|map) backing store\b.*for guest RAM: Permission denied")
#: Special characters in an AppArmor path (apparmor.d(5), "Globbing" and "Quoting").
_SPECIAL = re.compile(r'[\\"*?\[\]{}^@]')


def apparmor_confines(root: Path = Path("/")) -> bool:
    """Return whether a host's kernel enforces AppArmor and its libvirt has profiles for QEMU."""
    try:
        enabled = (root / "sys/module/apparmor/parameters/enabled").read_text().strip()
    except OSError:
        return False
    return enabled == "Y" and (root / "etc/apparmor.d/libvirt").is_dir()


def rule(directory: str) -> str:
    """Return the AppArmor rule that lets QEMU share the memory files in a pool's directory.

    AppArmor sees a path without its symbolic links. A clone maps the file privately, but QEMU
    opens it for writing.
    """
    path = _SPECIAL.sub(lambda match: "\\" + match[0], os.path.realpath(directory))
    pattern = f"{path.rstrip('/')}/*.memory"
    return f'"{pattern}" rwk,' if re.search(r"\s", pattern) else f"{pattern} rwk,"


def is_allowed(directory: str, root: Path = Path("/")) -> bool:
    """Return whether the rule for a pool's directory exists."""
    try:
        return rule(directory) in map(str.strip, _lines(root))
    except OSError:  # only root may read it: unknown
        return False


def allow(directories: Sequence[str], root: Path = Path("/")) -> None:
    """Add the rules that are missing; keep the rest of the file."""
    lines = _lines(root)
    missing = {rule(one): None for one in directories if not is_allowed(one, root)}
    if missing:
        path = root / _RULES
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join([*lines, *missing]) + "\n"
        write_atomic(path, text.encode(errors="surrogateescape"), mode=0o644)


def allowing(directory: str) -> str:
    """Return the shell command that does the same as `allow`."""
    path = Path("/") / _RULES
    line = shlex.quote(rule(directory))
    # The file may end without a newline.
    return f"sudo mkdir -p {path.parent} && printf '\\n%s\\n' {line} | sudo tee -a {path}"


def label(path: str, facts: HostFacts) -> None:
    """Set the label that SELinux requires on a new memory file, if this user may."""
    if SELINUX in facts.security and facts.local:
        with contextlib.suppress(OSError):
            os.setxattr(path, _LABEL, f"system_u:object_r:{_TYPE}:s0\0".encode())


def obstacle(directory: str, facts: HostFacts, root: Path = Path("/")) -> tuple[str, str] | None:
    """Return what keeps QEMU from the memory files in a pool, and the command that fixes it.

    None if no obstacle is known. For local hosts only.
    """
    if APPARMOR in facts.security and not is_allowed(directory, root):
        return "AppArmor denies it", allowing(directory)
    # Only its owner can label a file; in the system's pools that is root.
    mine = facts.session or os.geteuid() == 0
    if SELINUX in facts.security and not mine and _type_of(directory) != _TYPE:
        return "SELinux denies it, unless root creates the golden", _labelling(directory)
    return None


def explain(
    error: ArmvmError, directory: str, facts: HostFacts, root: Path = Path("/")
) -> tuple[str, str | None]:
    """Return why a machine with its memory in a file did not start, and the cure if known.

    *directory* is the pool's.
    """
    told = " ".join(f"{error.message}: {error.detail}".split()) if error.detail else error.message
    denial = _DENIAL.search(told)
    if denial is None:
        return told, None
    if APPARMOR in facts.security and not is_allowed(directory, root):
        return "AppArmor denies QEMU access to its memory file", allowing(directory)
    if SELINUX in facts.security:
        mapping = "sudo setsebool -P domain_can_mmap_files 1"
        cure = mapping if denial[1] == "map" else _labelling(directory)
        return "SELinux denies QEMU access to its memory file", cure
    return (
        f"permission denied: QEMU cannot use its memory file in {directory}",
        "'sudo journalctl -k -g DENIED' shows what a security module denied; if it shows nothing, "
        f"give QEMU's user search permission (x) on {directory} and each directory above it",
    )


def _lines(root: Path) -> list[str]:
    try:
        return (root / _RULES).read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def _type_of(directory: str) -> str:
    try:
        context = os.getxattr(directory, _LABEL).decode(errors="replace")
    except OSError:
        return ""
    return (context.split(":") + [""] * 3)[2]


def _labelling(directory: str) -> str:
    # Files created in the directory inherit its type.
    directory = os.path.realpath(directory)
    pattern = shlex.quote(re.escape(directory) + "(/.*)?")
    command = f"sudo semanage fcontext -a -t {_TYPE} {pattern}"
    return f"{command} && sudo restorecon -R {shlex.quote(directory)}"
