"""A cloud's copy of a verified image: uploaded once, named by its digest.

Images of other projects are never used, whatever their names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from armvm.base.errors import ArmvmError, StorageError
from armvm.base.progress import Progress, Task
from armvm.base.signals import shielded
from armvm.cloud.connection import Connection, answers, said
from armvm.images.model import Image

#: How Nova has to run the image. The config drive is a SCSI CD-ROM, and the kernels of cloud images
#: have a driver for virtio-scsi only. Source: Glance's "Useful image properties".
PROPERTIES = {
    "hw_architecture": "aarch64",
    "hw_emulation_architecture": "aarch64",
    "hw_machine_type": "virt",
    "hw_firmware_type": "uefi",
    "hw_scsi_model": "virtio-scsi",
    "hw_qemu_guest_agent": "yes",
}
_CHUNK = 1 << 20
_ID = re.compile(r"[0-9a-fA-F-]{32,36}")


def name_of(digest: str) -> str:
    """Return the name of the copy of an image with *digest*."""
    return f"armvm-{digest.replace(':', '-')}"


def ensure(connection: Connection, image: Image, progress: Progress) -> str:
    """Return the ID of the cloud's copy of *image*; upload it if there is none.

    An incomplete upload is deleted. Raises StorageError if the cloud stored other bytes.
    """
    found = find(connection, image.digest)
    return found if found is not None else _upload(connection, image, progress)


def find(connection: Connection, digest: str) -> str | None:
    """Return the ID of the project's copy of the image with *digest*; None if there is none."""
    api, name = connection.api, name_of(digest)
    with answers(connection.cloud, "listing the images"):
        project = api.current_project_id
        for one in api.image.images(name=name, owner=project):
            document = one.to_dict()
            document |= document.get("properties") or {}
            ours = document.get("name") == name and project in (
                document.get("owner_id"), document.get("owner"),
            )  # fmt: skip
            fits = all(document.get(key) == value for key, value in PROPERTIES.items())
            if ours and fits and document.get("status") == "active" and _ID.fullmatch(str(one.id)):
                return str(one.id)
    return None


def _upload(connection: Connection, image: Image, progress: Progress) -> str:
    name, cloud = name_of(image.digest), connection.cloud
    glance = connection.api.image
    gib = -(-image.virtual_size // (1 << 30))
    document = {
        "name": name,
        "disk_format": "qcow2",
        "container_format": "bare",
        "visibility": "private",
        "min_disk": gib,
        **PROPERTIES,
    }
    with answers(cloud, "creating the image"):
        made = _checked(glance.post("/images", json=document)).json()
        number = str(made["id"])
    if not _ID.fullmatch(number):
        raise StorageError(f"cloud {cloud.name} gave the image an invalid ID")
    try:
        digest = hashlib.sha512()
        with (
            progress.task(
                f"uploading {image.source.reference} to {cloud.name}", total=image.size
            ) as task,
            answers(cloud, "uploading the image"),
        ):
            response = glance.put(
                f"/images/{number}/file",
                data=_read(image.path, digest, task),
                headers={"Content-Type": "application/octet-stream", "Accept": ""},
            )
            _checked(response)
            stored = _checked(glance.get(f"/images/{number}")).json()
            _assert_same(cloud.name, stored, image, digest.hexdigest())
    except BaseException:
        with shielded():
            _discard(connection, number, progress)
        raise
    return number


def _assert_same(cloud: str, stored: Any, image: Image, digest: str) -> None:
    """Raise StorageError unless Glance stored the bytes that armvm sent."""
    state, size = stored.get("status"), stored.get("size")
    if state != "active" or (size is not None and size != image.path.stat().st_size):
        raise StorageError(
            f"cloud {cloud} did not store the image",
            detail=said(f"status {state}, {size} bytes of {image.path.stat().st_size}"),
            hint="try again",
        )
    told = stored.get("os_hash_value")
    if stored.get("os_hash_algo") == "sha512" and told is not None and told != digest:
        raise StorageError(f"cloud {cloud} stored other bytes than the image's", hint="try again")


def _read(path: Path, digest: Any, task: Task) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
            yield data
            done += len(data)
            task.update(done)


def _discard(connection: Connection, number: str, progress: Progress) -> None:
    try:
        with answers(connection.cloud, "deleting the incomplete image"):
            connection.api.image.delete_image(number, ignore_missing=True)
    except ArmvmError as error:
        progress.warn(f"{error.message}; delete it: openstack image delete {number}")


def _checked(response: Any) -> Any:
    """Return a response; raise openstacksdk's error for a status of 400 or more."""
    from openstack import exceptions

    exceptions.raise_from_response(response)
    return response
