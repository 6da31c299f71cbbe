"""Every error a user can meet, and the exit code each one ends the program with.

::

    ArmvmError                     1   a bug of ours, when nothing below fits
    ├── OutputFailed               1   standard output cannot be written
    ├── UsageError                 2   the command line makes no sense
    ├── ConfigError                3   a value or a file that configures a machine is wrong
    ├── NotFound                   4   no such machine, image, network, …
    ├── Conflict                   5   the name is taken, the thing is in use
    ├── HostError                  6   the host cannot do it
    │   ├── ConnectFailed          6   libvirt does not answer
    │   └── MissingCapability      6   a program, emulator or feature is missing
    ├── PermissionDenied           7   libvirt or the file system refuses this user
    ├── ImageError                 8   an image cannot be had or cannot be trusted
    │   ├── FetchFailed            8   the server answered, but not with the image
    │   ├── Unreachable            8   the server did not answer
    │   ├── DigestMismatch         8   the bytes are not the ones promised
    │   ├── SignatureInvalid       8   the signature does not hold
    │   ├── NotVerified            8   less vouches for the image than is asked for
    │   ├── HostileImage           8   the image would reach outside itself
    │   └── BuildFailed            8   a local build stopped
    ├── StorageError               9   pool, volume, no space
    ├── DomainError               10   libvirt or QEMU refused the machine
    ├── NotReady                  11   time ran out before the guest was ready
    └── CommandFailed             12   a program armvm ran failed

A signal ends the program with 128 + its number.
"""

from __future__ import annotations

from typing import ClassVar


class ArmvmError(Exception):
    """An error told to the user as *message*, with what is known and what to do next.

    *detail* is evidence (another program's words, a log's tail), *hint* is the next step.
    ``reference`` is a stable kebab-case name, used in ``--json`` output and in the docs.
    """

    reference: ClassVar[str] = "internal-error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint


class OutputFailed(ArmvmError):
    """Standard output cannot be written."""

    reference = "output-failed"


class UsageError(ArmvmError):
    """The command line cannot be understood."""

    reference = "usage"
    exit_code = 2


class ConfigError(ArmvmError):
    """A value given for a machine, or a file that configures one, is wrong."""

    reference = "config-invalid"
    exit_code = 3


class NotFound(ArmvmError):
    """Something named does not exist."""

    reference = "not-found"
    exit_code = 4


class Conflict(ArmvmError):
    """A name is taken, or a thing is still in use."""

    reference = "conflict"
    exit_code = 5


class HostError(ArmvmError):
    """The host cannot do what was asked."""

    reference = "host-error"
    exit_code = 6


class ConnectFailed(HostError):
    """libvirt does not answer at the connection URI."""

    reference = "connect-failed"


class MissingCapability(HostError):
    """A program, an emulator, a firmware or a feature is missing on the host."""

    reference = "missing-capability"


class PermissionDenied(ArmvmError):
    """libvirt or the file system refuses this user."""

    reference = "permission-denied"
    exit_code = 7


class ImageError(ArmvmError):
    """An image cannot be had, or cannot be trusted."""

    reference = "image-error"
    exit_code = 8


class FetchFailed(ImageError):
    """The server answered, but not with the image (404, cut short, nonsense)."""

    reference = "fetch-failed"


class Unreachable(ImageError):
    """The server did not answer."""

    reference = "image-host-unreachable"


class DigestMismatch(ImageError):
    """The bytes are not the ones that were promised."""

    reference = "digest-mismatch"


class SignatureInvalid(ImageError):
    """A signature is missing, does not hold, or is by a key that is not pinned."""

    reference = "signature-invalid"


class NotVerified(ImageError):
    """What vouches for an image is weaker than the configuration asks for."""

    reference = "not-verified"


class HostileImage(ImageError):
    """The image would make QEMU open files outside itself, or is not what it says it is."""

    reference = "hostile-image"


class BuildFailed(ImageError):
    """A local image build stopped."""

    reference = "build-failed"


class StorageError(ArmvmError):
    """A pool or a volume cannot be made, filled or removed."""

    reference = "storage-error"
    exit_code = 9


class DomainError(ArmvmError):
    """libvirt or QEMU refused to define, start or stop a domain."""

    reference = "domain-error"
    exit_code = 10


class NotReady(ArmvmError):
    """Time ran out before the guest was ready."""

    reference = "not-ready"
    exit_code = 11


class CommandFailed(ArmvmError):
    """A program that armvm ran, here or in the guest, failed."""

    reference = "command-failed"
    exit_code = 12
