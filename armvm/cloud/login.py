"""Log in to a server of a cloud by ssh, and copy files, with a strict host key check.

armvm makes the host key; its public half is in the server's metadata.
"""

from __future__ import annotations

from collections.abc import Sequence

from armvm.base import process
from armvm.base.errors import ArmvmError, CommandFailed, DomainError, NotReady
from armvm.base.paths import data_dir
from armvm.cloud.connection import Connection
from armvm.cloud.server import Server, require_running
from armvm.guest.agents.ssh_script import FAILED, shell_line
from armvm.guest.boot.ready import answers_ssh
from armvm.guest.cloudinit.credentials import own_key
from armvm.guest.ssh import known_hosts, options
from armvm.guest.ssh.scp import Copy, check_folders, scp_words

PORT = 22


def uses_own_key(server: Server) -> bool:
    """Return whether the server's key is armvm's own key of this user."""
    if server.login_key is None:
        return False
    return " ".join(own_key(data_dir())[1].split()[:2]) == server.login_key


def ssh_options(server: Server, address: str, *, batch: bool = False) -> dict[str, str]:
    """Return the options for ssh. Raises DomainError without a valid user or host key."""
    if server.host_key is None or server.user is None:
        raise DomainError(
            f"{server.name} has no valid ssh host key and user in its metadata",
            hint=f"look at it: openstack server show {server.id}",
        )
    told = options.verified(
        user=server.user,
        host_key=server.host_key,
        alias=known_hosts.alias_of(server.id),
        known_hosts=known_hosts.write(server.id, server.host_key),
        identity=own_key(data_dir())[0] if uses_own_key(server) else None,
    )
    return options.at_address(told, address, PORT, batch=batch)


def ssh_command(
    server: Server, address: str, command: Sequence[str] = (), *, batch: bool = False
) -> list[str]:
    """Return ssh's argument list. With *batch*, ssh never prompts."""
    told = options.words(ssh_options(server, address, batch=batch))
    return ["ssh", *told, address, *(["--", *command] if command else [])]


def run(server: Server, address: str, command: Sequence[str], timeout: float) -> process.Completed:
    """Run a command without prompts, and return its result. Raises CommandFailed at the timeout."""
    return process.run(
        ssh_command(server, address, command, batch=True),
        check=False,
        timeout=timeout,
        most=process.ANSWER,
    )


def output(server: Server, address: str, command: str) -> str | None:
    """Return a command's output; None if it failed or the guest accepts none of our keys."""
    try:
        done = run(server, address, [command], 60)
    except CommandFailed:
        return None
    return done.text if done.returncode == 0 else None


def ssh(connection: Connection, server: Server, command: Sequence[str]) -> tuple[int, str | None]:
    """Run ssh on the terminal; return its exit code, and a hint if no ssh server answers."""
    address = reach(connection, server)
    words = [shell_line(" ".join(command))] if command else []
    code = process.passthrough(ssh_command(server, address, words), interruptible=True)
    if code == FAILED and not answers_ssh(address, PORT):
        return code, no_answer(connection, server)
    return code, None


def copy(
    connection: Connection, server: Server, wanted: Copy, *, recursive: bool, quiet: bool
) -> int:
    """Copy files with scp; return 0, or 128 + n if signal n ended scp. Raises CommandFailed."""
    if not recursive:
        check_folders(wanted)
    address = reach(connection, server)
    told = ssh_options(server, address)
    code = process.passthrough(
        scp_words(wanted, told, address, recursive=recursive, quiet=quiet), interruptible=True
    )
    if code == 0 or (code > 128 and code != FAILED):
        return code
    raise CommandFailed(
        f"scp failed with exit code {code}",
        hint="see scp's messages above" if code != FAILED else no_answer(connection, server),
    )


def reach(connection: Connection, server: Server) -> str:
    """Return a running server's address. Raises DomainError, NotReady."""
    require_running(server, connection.cloud.name)
    if server.address is None:
        raise NotReady(
            f"{server.name} has no address yet",
            hint=f"wait until it is ready: armvm wait {server.name} --on {connection.cloud.name}",
        )
    return server.address


def no_answer(connection: Connection, server: Server) -> str:
    """Return a hint for an ssh server that does not answer."""
    return (
        f"no ssh server answers at {server.address}: allow TCP port {PORT} in its security group, "
        "and check that this computer reaches the network; while it boots: "
        f"armvm wait {server.name} --on {connection.cloud.name}"
    )


def log_in(server: Server, address: str) -> str | None:
    """Log in once without prompts; return ssh's message if that fails."""
    try:
        done = run(server, address, ["true"], 90)
    except ArmvmError as error:
        return error.message
    if done.returncode == 0:
        return None
    from armvm.guest.boot.serial import clean, tail

    words = tail(clean(done.stderr + done.stdout).strip(), 5)
    return words or f"ssh failed with exit code {done.returncode}"
