"""Golden files for tests: read into parts, and written again with some of them changed."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from armvm.host import facts
from armvm.host.connection import connect
from armvm.images.oci import archive
from armvm.images.oci.document import MANIFEST, Descriptor, describe, dump, dump_index
from armvm.provision.golden import portable
from armvm.provision.machine.create import Where
from tests.hosts import blank_golden
from tests.support import armvm, fresh_name


@dataclass
class GoldenFile:
    """A golden's documents, and its packed layers by part."""

    config: dict[str, Any]
    layers: dict[str, bytes]
    #: Changes to the manifest after its digests were computed: what makes it lie.
    lies: Callable[[dict[str, Any]], None] = field(default=lambda _manifest: None)

    @classmethod
    def read(cls, path: Path) -> GoldenFile:
        """Read a file that armvm wrote."""
        blobs: dict[str, bytes] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member)
                assert data is not None
                blobs[member.name] = data.read()

        def blob(document: dict[str, Any]) -> bytes:
            return blobs[f"blobs/sha256/{document['digest'].removeprefix('sha256:')}"]

        manifest = json.loads(blob(json.loads(blobs["index.json"])["manifests"][0]))
        return cls(
            config=json.loads(blob(manifest["config"])),
            layers={
                part: blob(layer)
                for layer in manifest["layers"]
                for part in portable.PARTS
                if layer["mediaType"] == portable.media_type(part)
            },
        )

    def write(self, path: Path) -> Path:
        """Write the file, with the digests of what is in it now."""
        config = dump(self.config)
        about = describe(config, portable.CONFIG)
        layers = [
            (describe(data, portable.media_type(part)), data) for part, data in self.layers.items()
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": portable.ARTIFACT,
            "config": about.document(),
            "layers": [layer.document() for layer, _ in layers],
        }
        self.lies(document)
        manifest = dump(document)
        own = describe(manifest, MANIFEST, portable.ARTIFACT)
        blobs: list[tuple[Descriptor, bytes | Path]] = [(own, manifest), (about, config), *layers]
        with path.open("wb") as file:
            archive.write(file, dump_index([own]), blobs)
        return path


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]], **options: Any) -> bytes:
    """Return a tar archive, which need not be a layout."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", **options) as tar:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Return the header of a tar entry."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def exported(image: Path, file: Path, route: str) -> str:
    """Export a golden of a blank disk to a file, and remove it; return its name."""
    name, uri = fresh_name("armvm-travels"), "qemu:///system"
    connection = connect(uri)
    where = Where(connection=connection, facts=facts.observe(connection))
    blank_golden.saved(where, name, str(image), route)
    try:
        armvm("golden", "export", name, file, env={"ARMVM_CONNECT": uri}).ok()
    finally:
        blank_golden.removed(where, name)
        connection.close()
    return name
