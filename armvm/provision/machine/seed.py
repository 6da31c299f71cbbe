"""Writing a seed to a file, for people who only want that."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from armvm.base.errors import Conflict, NotFound, PermissionDenied, StorageError
from armvm.base.paths import write_atomic
from armvm.guest.cloudinit.documents import compose
from armvm.guest.cloudinit.seed import seed_image
from armvm.guest.identity import fingerprint, new_identity
from armvm.images.model import ImageSource
from armvm.provision.image.find import guess_system
from armvm.provision.machine.plan import user_of
from armvm.settings.machine import Machine


def write_seed(machine: Machine, output: Path, *, force: bool) -> dict[str, Any]:
    """Write the seed of *machine*, readable by its owner only, and return its facts.

    Raises Conflict when the file exists and *force* is not given, PermissionDenied or
    StorageError when it cannot be written.
    """
    data, facts = make_seed(machine)
    if os.path.lexists(output) and not force:
        raise Conflict(f"{output} exists already", hint="--force overwrites it")
    try:
        write_atomic(output, data)
    except FileNotFoundError as error:
        raise NotFound(f"there is no directory {output.parent}") from error
    except PermissionError as error:
        raise PermissionDenied(f"{output} cannot be written: {error.strerror}") from error
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror}") from error
    return {"path": str(output), **facts}


def make_seed(machine: Machine) -> tuple[bytes, dict[str, Any]]:
    """Return the seed of *machine* as an ISO image, and its facts."""
    source = ImageSource(reference=machine.image, system=guess_system(machine.image))
    identity = new_identity(machine.name)
    user = user_of(machine, source)
    data = seed_image(compose(machine, identity, user, system=source.system))
    return data, {
        "label": "cidata",
        "size": len(data),
        "user": user,
        "hostname": machine.name,
        "instance_id": identity.instance_id,
        "host_key": fingerprint(identity.host_key.public),
        "host_key_public": identity.host_key.public,
    }
