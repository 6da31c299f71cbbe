"""Trees like those of Debian's, Fedora's, Alpine's and openSUSE's image servers, for ImageServer.

::

    published = debian_tree(root / "debian", image)
    list_directories(root)                      # index.html everywhere, as the servers write them
    with ImageServer(root) as server:
        create("--image", "debian:12", env={"ARMVM_MIRROR_DEBIAN": f"{server.url}debian/"})

What is real in their shape, and what is made up: tests/data/catalogs/README.md.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.image_server import ubuntu_tree

CODENAMES = {"12": "bookworm", "13": "trixie", "14": "forky", "sid": "sid"}


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An image in a tree: ``path`` and ``sums`` are relative to the tree's base; ``digest`` is
    ``sha256:…`` or ``sha512:…``, whichever the distribution publishes.
    """

    path: str
    sums: str
    digest: str
    size: int


def debian_tree(
    root: Path,
    image: Path,
    version: str = "12",
    serial: str = "20250814-2204",
    *,
    kind: str = "genericcloud",
    daily: bool = False,
) -> Placed:
    """Lay *image* out as a serial of Debian's; the last one that is made is ``latest``."""
    tree = root / CODENAMES[version] / ("daily" if daily else "")
    stem = f"debian-{version}-{kind}-arm64" + ("-daily" if daily else "")
    target = _place(tree / serial / f"{stem}-{serial}.qcow2", image)
    digest = _digest(image, "sha512")
    _append(target.parent / "SHA512SUMS", f"{digest}  {target.name}\n")
    _append(target.parent / "SHA512SUMS", f"{'d' * 128}  {stem}-{serial}.raw\n")
    labels = {"cloud.debian.org/vendor": kind, "cloud.debian.org/version": serial}
    manifest = {
        "apiVersion": "v1",
        "items": [{"data": {}, "kind": "Build", "metadata": {"labels": labels}}],
        "kind": "List",
    }
    latest = tree / "latest" / f"{stem}.json"
    latest.parent.mkdir(parents=True, exist_ok=True)
    latest.write_text(json.dumps(manifest, indent=4))
    return _placed(root, target, target.parent / "SHA512SUMS", f"sha512:{digest}")


def fedora_tree(
    root: Path, image: Path, version: str = "43", compose: str = "1.6", *, name: str | None = None
) -> Placed:
    """Lay *image* out as Fedora's; *name* is another form of the image's name."""
    place = root / "releases" / version / "Cloud/aarch64/images"
    target = _place(
        place / (name or f"Fedora-Cloud-Base-Generic-{version}-{compose}.aarch64.qcow2"), image
    )
    _place(place / f"Fedora-Cloud-Base-UEFI-UKI-{version}-{compose}.aarch64.qcow2", image)
    digest = _digest(image, "sha256")
    sums = place / f"Fedora-Cloud-{version}-{compose}-aarch64-CHECKSUM"
    sums.write_text(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
        f"# {target.name}: {image.stat().st_size} bytes\n"
        f"SHA256 ({target.name}) = {digest}\n"
        "-----BEGIN PGP SIGNATURE-----\n\nbm9uZQ==\n-----END PGP SIGNATURE-----\n"
    )
    return _placed(root, target, sums, f"sha256:{digest}")


def alpine_tree(root: Path, image: Path, release: str = "3.22.1", revision: int = 0) -> Placed:
    """Lay *image* out as a point release of Alpine's."""
    place = root / f"v{release.rpartition('.')[0]}" / "releases/cloud"
    name = f"nocloud_alpine-{release}-aarch64-uefi-cloudinit-r{revision}.qcow2"
    target = _place(place / name, image)
    digest = _digest(image, "sha512")
    sums = target.with_name(f"{name}.sha512")
    sums.write_text(digest)
    return _placed(root, target, sums, f"sha512:{digest}")


def opensuse_tree(
    root: Path, image: Path, version: str = "16.0", serial: str | None = "18.7"
) -> Placed:
    """Lay *image* out as openSUSE's, with its link; without *serial*, the link alone."""
    if version == "tumbleweed":
        place = root / "ports/aarch64/tumbleweed/appliances"
        stem, build = "openSUSE-Tumbleweed-Minimal-VM.aarch64", f"-1.0.0-Cloud-Snapshot{serial}"
    else:
        place = root / "distribution/leap" / version / "appliances"
        old = version.startswith("15")
        stem = f"{'openSUSE-' if old else ''}Leap-{version}-Minimal-VM.aarch64"
        build = f"{f'-{version}.0' if old else ''}-Cloud-Build{serial}"
    digest = _digest(image, "sha256")
    targets = [_place(place / f"{stem}-Cloud.qcow2", image)]
    if serial is not None:
        targets.append(_place(place / f"{stem}{build}.qcow2", image))
    for target in targets:
        sums = target.with_name(f"{target.name}.sha256")
        sums.write_text(f"{digest}  {target.name}\n")
    return _placed(root, targets[-1], sums, f"sha256:{digest}")


def rawhide_tree(root: Path, image: Path, compose: str = "20260912.n.0") -> Placed:
    """Lay *image* out as Fedora's development."""
    place = root / "development/rawhide/Cloud/aarch64/images"
    target = _place(place / f"Fedora-Cloud-Base-Generic-Rawhide-{compose}.aarch64.qcow2", image)
    digest = _digest(image, "sha256")
    sums = place / f"Fedora-Cloud-images-Rawhide-aarch64-{compose}-CHECKSUM"
    sums.write_text(f"SHA256 ({target.name}) = {digest}\n")
    return _placed(root, target, sums, f"sha256:{digest}")


def almalinux_tree(
    root: Path, image: Path, minor: str = "10.2", build: str = "20260526.0"
) -> Placed:
    """Lay *image* out as AlmaLinux's, with the names that do not count beside it."""
    major = minor.partition(".")[0]
    place = root / minor / "cloud/aarch64/images"
    stem = f"AlmaLinux-{major}-GenericCloud"
    target = _place(place / f"{stem}-{minor}-{build}.aarch64.qcow2", image)
    _place(place / f"{stem}-latest.aarch64.qcow2", image)
    _place(place / f"{stem}-ext4-{minor}-{build}.aarch64.qcow2", image)
    digest = _digest(image, "sha256")
    _append(place / "CHECKSUM", f"{digest}  {target.name}\n")
    (root / major).mkdir(exist_ok=True)
    return _placed(root, target, place / "CHECKSUM", f"sha256:{digest}")


def rocky_tree(root: Path, image: Path, minor: str = "10.2", build: str = "20260525.0") -> Placed:
    """Lay *image* out as Rocky Linux's, with the names that do not count beside it."""
    major = minor.partition(".")[0]
    place = root / minor / "images/aarch64"
    stem = f"Rocky-{major}-GenericCloud"
    target = _place(place / f"{stem}-Base-{minor}-{build}.aarch64.qcow2", image)
    _place(place / f"{stem}-Base.latest.aarch64.qcow2", image)
    _place(place / f"{stem}-LVM-{minor}-{build}.aarch64.qcow2", image)
    digest = _digest(image, "sha256")
    sums = target.with_name(f"{target.name}.CHECKSUM")
    sums.write_text(
        f"# {target.name}: {image.stat().st_size} bytes\nSHA256 ({target.name}) = {digest}\n"
    )
    return _placed(root, target, sums, f"sha256:{digest}")


def centos_tree(root: Path, image: Path, release: str = "10", build: str = "20260720.0") -> Placed:
    """Lay *image* out as CentOS Stream's."""
    place = root / f"{release}-stream" / "aarch64/images"
    stem = "CentOS-Stream-GenericCloud"
    target = _place(place / f"{stem}-{release}-{build}.aarch64.qcow2", image)
    _place(place / f"{stem}-{release}-latest.aarch64.qcow2", image)
    digest = _digest(image, "sha256")
    _append(place / "CHECKSUM", f"SHA256 ({target.name}) = {digest}\n")
    (root / "7").mkdir(exist_ok=True)
    return _placed(root, target, place / "CHECKSUM", f"sha256:{digest}")


def oraclelinux_tree(
    root: Path, image: Path, release: str = "10", update: str = "1", build: str = "178"
) -> Placed:
    """Lay *image* out as Oracle Linux's, with its list."""
    name = f"OL{release}U{update}_aarch64-kvm-cloud-b{build}.qcow2"
    target = _place(root / f"OL{release}/u{update}/aarch64/{name}", image)
    digest = _digest(image, "sha256")
    listed = {
        "base_url": f"/templates/OracleLinux/OL{release}/u{update}/aarch64",
        "kvm": {"image": name, "sha256": digest},
    }
    sums = root / f"ol{release}_aarch64-cloud-template.json"
    sums.write_text(json.dumps(listed))
    return _placed(root, target, sums, f"sha256:{digest}")


def amazonlinux_tree(root: Path, image: Path, version: str = "2023.12.20260917.1") -> Placed:
    """Lay *image* out as Amazon Linux's; ``latest`` is the last one that was laid out."""
    place = root / version / "kvm-arm64"
    name = f"al2023-kvm-{version}-kernel-6.1-arm64.xfs.gpt.qcow2"
    target = _place(place / name, image)
    digest = _digest(image, "sha256")
    (place / "SHA256SUMS").write_text(f"{digest}  {name}\n")
    latest = root / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(version)
    return _placed(root, target, place / "SHA256SUMS", f"sha256:{digest}")


def kali_tree(root: Path, image: Path, version: str = "2026.2") -> Placed:
    """Lay *image*, which should be a tar archive in xz, out as a version of Kali's."""
    name = f"kali-linux-{version}-cloud-genericcloud-arm64.tar.xz"
    target = _place(root / f"kali-{version}" / name, image)
    digest = _digest(image, "sha256")
    sums = target.parent / "SHA256SUMS"
    sums.write_text(f"{digest}  {name}\n{'d' * 64}  {name.replace('arm64', 'amd64')}\n")
    return _placed(root, target, sums, f"sha256:{digest}")


def list_directories(root: Path) -> None:
    """Write an index.html into every folder below *root*, in the forms of the real servers."""
    for number, folder in enumerate(sorted(p for p in root.rglob("*") if p.is_dir())):
        entries = sorted(
            f"{p.name}/" if p.is_dir() else p.name
            for p in folder.iterdir()
            if p.name != "index.html"
        )
        (folder / "index.html").write_text(_FORMS[number % len(_FORMS)](entries))


def _apache(entries: list[str]) -> str:
    rows = "".join(
        f'<tr><td><a href="{e}"><img alt="[DIR]"></a></td><td><a href="{e}">{e}</a></td></tr>\n'
        for e in entries
    )
    head = '<a href="?C=N;O=D">Name</a> <a href="/">Parent Directory</a>'
    return f"<html><body><h1>Index</h1><table>{head}\n{rows}</table></body></html>"


def _nginx(entries: list[str]) -> str:
    rows = "".join(f'<a href="{e}">{e[:40]}..&gt;</a>  16-Jul-2025 12:40  128\n' for e in entries)
    return (
        f'<html><body><h1>Index of</h1><hr><pre><a href="../">../</a>\n{rows}</pre></body></html>'
    )


def _mirrorcache(entries: list[str]) -> str:
    rows = "".join(f"<tr><td class='name'><a href='./{e}'>{e}</a></td></tr>\n" for e in entries)
    return f"<!DOCTYPE html><table><tr><td><a href='../'>up</a></td></tr>{rows}</table>"


_FORMS: tuple[Callable[[list[str]], str], ...] = (_apache, _nginx, _mirrorcache)


def _place(target: Path, image: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(image.resolve(), target)
    except OSError:  # another file system
        target.symlink_to(image.resolve())
    return target


def _append(file: Path, text: str) -> None:
    with file.open("a") as out:
        out.write(text)


def _digest(image: Path, kind: str) -> str:
    return hashlib.new(kind, image.read_bytes()).hexdigest()


def _placed(root: Path, target: Path, sums: Path, digest: str) -> Placed:
    return Placed(
        path=str(target.relative_to(root)),
        sums=str(sums.relative_to(root)),
        digest=digest,
        size=target.stat().st_size,
    )


def every_tree(root: Path, image: Path) -> None:
    """Lay *image* out once in the tree of each distribution, in a directory of its name."""
    ubuntu_tree(root / "ubuntu", image)
    debian_tree(root / "debian", image, "13")
    fedora_tree(root / "fedora", image)
    alpine_tree(root / "alpine", image)
    opensuse_tree(root / "opensuse", image)
    almalinux_tree(root / "almalinux", image)
    rocky_tree(root / "rocky", image)
    centos_tree(root / "centos", image)
    oraclelinux_tree(root / "oraclelinux", image)
    amazonlinux_tree(root / "amazonlinux", image)
    kali_tree(root / "kali", image)
