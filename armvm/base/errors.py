"""All errors that users can meet, and the exit code of each.

::

    ArmvmError                     1   a bug in armvm
    ├── OutputFailed               1   standard output cannot be written
    ├── UsageError                 2   invalid command line
    ├── ConfigError                3   invalid setting or configuration file
    ├── NotFound                   4   machine, image, network, … not found
    ├── Conflict                   5   the name already exists, or the object is in use
    ├── HostError                  6   the host cannot do this
    │   ├── ConnectFailed          6   libvirt does not answer
    │   └── MissingCapability      6   a program, emulator or feature is missing
    ├── PermissionDenied           7   libvirt or the file system refuses this user
    ├── ImageError                 8   an image cannot be used
    │   ├── FetchFailed            8   the server answered without the image
    │   ├── Unreachable            8   the server did not answer
    │   ├── DigestMismatch         8   the bytes do not match the digest
    │   ├── SignatureInvalid       8   the signature is missing or invalid
    │   ├── NotVerified            8   the verification is weaker than required
    │   ├── HostileImage           8   the image refers to files outside itself
    │   └── BuildFailed            8   a local build failed
    ├── StorageError               9   pool or volume failed, or no space left
    ├── DomainError               10   libvirt or QEMU refused the machine
    ├── NotReady                  11   timed out before the guest was ready
    └── CommandFailed             12   a program armvm ran failed

A signal ends the program with 128 + the signal's number.
"""

from __future__ import annotations

from typing import ClassVar


class ArmvmError(Exception):
    """An error shown to the user: *message*, evidence (*detail*) and the next step (*hint*).

    *detail* is, for example, another program's output or the end of a log.
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
    """The command line is invalid."""

    reference = "usage"
    exit_code = 2


class ConfigError(ArmvmError):
    """A setting or a configuration file is invalid."""

    reference = "config-invalid"
    exit_code = 3


class NotFound(ArmvmError):
    """A named object does not exist."""

    reference = "not-found"
    exit_code = 4


class Conflict(ArmvmError):
    """A name already exists, or an object is in use."""

    reference = "conflict"
    exit_code = 5


class HostError(ArmvmError):
    """The host cannot do what the user asked for."""

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
    """An image cannot be obtained, or cannot be trusted."""

    reference = "image-error"
    exit_code = 8


class FetchFailed(ImageError):
    """The server answered, but without the image (404, truncated, invalid content)."""

    reference = "fetch-failed"


class Unreachable(ImageError):
    """The server did not answer."""

    reference = "image-host-unreachable"


class DigestMismatch(ImageError):
    """The bytes do not match the expected digest."""

    reference = "digest-mismatch"


class SignatureInvalid(ImageError):
    """A signature is missing, invalid, or made by a key that is not pinned."""

    reference = "signature-invalid"


class NotVerified(ImageError):
    """The verification of an image is weaker than the configuration requires."""

    reference = "not-verified"


class HostileImage(ImageError):
    """The image would make QEMU open other files, or has another format than it claims."""

    reference = "hostile-image"


class BuildFailed(ImageError):
    """A local image build failed."""

    reference = "build-failed"


class StorageError(ArmvmError):
    """A pool or a volume cannot be created, filled or removed."""

    reference = "storage-error"
    exit_code = 9


class DomainError(ArmvmError):
    """libvirt or QEMU refused to define, start or stop a domain."""

    reference = "domain-error"
    exit_code = 10


class NotReady(ArmvmError):
    """The guest was not ready in time."""

    reference = "not-ready"
    exit_code = 11


class CommandFailed(ArmvmError):
    """A program that armvm ran, here or in the guest, failed."""

    reference = "command-failed"
    exit_code = 12
