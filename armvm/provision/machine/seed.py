"""Write a cloud-init seed to a file (``armvm seed``)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.errors import Conflict, NotFound, PermissionDenied, StorageError
from armvm.base.paths import write_atomic
from armvm.base.result import Doc, Fingerprint, Size
from armvm.guest.cloudinit.documents import compose
from armvm.guest.cloudinit.seed import seed_image
from armvm.guest.identity import Identity, fingerprint, new_identity
from armvm.images.model import ImageSource
from armvm.provision.image.find import guess_system
from armvm.provision.machine.plan import user_of
from armvm.settings.machine import Machine


@dataclass(frozen=True, kw_only=True)
class WrittenSeed:
    """A seed that was written to a file."""

    path: Annotated[Path, Doc("The ISO file.")]
    label: Annotated[str, Doc("The volume's label.", const="cidata")] = "cidata"
    size: Size
    user: Annotated[str, Doc("The guest's user.")]
    hostname: Annotated[str, Doc("The guest's host name.")]
    instance_id: Annotated[str, Doc("cloud-init's instance-id.")]
    host_key: Fingerprint
    host_key_public: Annotated[
        str, Doc("The public ssh host key, as in known_hosts.", pattern="^ssh-ed25519 ")
    ]


def write_seed(machine: Machine, output: Path, *, force: bool) -> WrittenSeed:
    """Write the seed of *machine* to a file that only its owner can read; return the details.

    Raises Conflict if the file exists and *force* is false, and NotFound, PermissionDenied or
    StorageError if it cannot be written.
    """
    data, identity, user = _seed(machine)
    if os.path.lexists(output) and not force:
        raise Conflict(f"{output} already exists", hint="overwrite it with --force")
    try:
        write_atomic(output, data)
    except FileNotFoundError as error:
        raise NotFound(f"directory {output.parent} not found") from error
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot write {output}") from error
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror}") from error
    return WrittenSeed(
        path=output,
        size=len(data),
        user=user,
        hostname=machine.name,
        instance_id=identity.instance_id,
        host_key=fingerprint(identity.host_key.public),
        host_key_public=identity.host_key.public,
    )


def make_seed(machine: Machine) -> bytes:
    """Return the seed of *machine* as an ISO image."""
    return _seed(machine)[0]


def _seed(machine: Machine) -> tuple[bytes, Identity, str]:
    """Return the seed of *machine*, the identity in it and the guest's user."""
    source = ImageSource(reference=machine.image, system=guess_system(machine.image))
    identity = new_identity(machine.name)
    user = user_of(machine.user, source)
    data = seed_image(compose(machine, identity, user, system=source.system))
    return data, identity, user
