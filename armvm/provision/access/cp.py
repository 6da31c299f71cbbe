"""Copy files to and from a machine: through a clone's channel, or by scp over SFTP."""

from __future__ import annotations

from armvm.base import process
from armvm.base.errors import CommandFailed, Conflict
from armvm.base.progress import Progress
from armvm.guest.ssh.scp import Copy, check_folders, scp_words
from armvm.guest.ssh.scp import read_copy as read_copy  # re-exported for the command line
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance
from armvm.provision.access import channel_command, cp_channel
from armvm.provision.access.ssh import Endpoint, connected, machine_options, no_answer


def scp_command(
    wanted: Copy, instance: Instance, where: Endpoint, *, recursive: bool, quiet: bool
) -> list[str]:
    """Return scp's argument list. Paths are literal on both sides, except for a leading ``~/``."""
    told = machine_options(instance, where)
    return scp_words(wanted, told, where.host, recursive=recursive, quiet=quiet)


def copy(
    machine: Handle,
    wanted: Copy,
    *,
    recursive: bool,
    quiet: bool,
    progress: Progress,
    share: bool = True,
) -> int:
    """Copy through a clone's channel, or with scp, which shows its progress on the terminal.

    Returns 0, or 128 + n if signal n ended scp.

    Raises CommandFailed with scp's exit code if it fails, UsageError for a directory without
    *recursive*, and the errors of `connected`.
    """
    if not recursive:
        check_folders(wanted)
    machine.require_running()
    way = channel_command.way(machine)
    if way.usable:
        move = cp_channel.upload if wanted.upload else cp_channel.download
        try:
            move(machine, wanted.sources, wanted.target, recursive=recursive, progress=progress)
            return 0
        except Conflict as error:
            progress.say(f"{error.message}: using scp, which takes longer")
    elif way.reason is not None:
        progress.say(f"{way.reason}: using scp, which takes longer")
    with connected(machine, share=share) as where:
        code = process.passthrough(
            scp_command(wanted, machine.instance, where, recursive=recursive, quiet=quiet),
            interruptible=True,
        )
    if code == 0 or (code > 128 and code != 255):
        return code
    raise CommandFailed(
        f"scp failed with exit code {code}",
        hint="see scp's messages above" if code != 255 else no_answer(machine),
    )
