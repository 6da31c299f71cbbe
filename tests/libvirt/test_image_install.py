"""Packages added to an image by user-mode emulation: no guest runs.

The image is a small Debian's, the archive one of two packages on the loopback.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from armvm.base.errors import BuildFailed, NotFound
from armvm.base.progress import Quiet
from armvm.images.board import BoardRoot, find_root
from armvm.images.cache.store import Cache
from armvm.images.check.formats import DiskFormat
from armvm.images.check.guest_disk import GuestDisk, opened
from armvm.images.digest import hash_file
from armvm.images.model import FromImage, Image
from armvm.provision.image import workspace
from armvm.provision.rootfs.install import Refused, installed
from armvm.usermode.rootfs import apt, deb
from tests import board_tools
from tests.board_tools import MIB
from tests.boot.conftest import OrdinaryUser, ordinary_user  # noqa: F401
from tests.build_tools import can_build, served
from tests.libvirt.test_rootfs_real import debian  # noqa: F401
from tests.openpgp_tools import Gpg

pytestmark = [can_build, pytest.mark.timeout(900)]

#: Shows which machine ran it, whether services would start, and whether manual pages are read.
POSTINST = """\
#!/bin/sh
set -e
/usr/sbin/policy-rc.d tool start || echo "policy $?" > /etc/tool
uname -m >> /etc/tool
"""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image, its files, and what was asked of the archive in its sources."""

    image: Image
    root: Path
    asked: list[str]


def package(home: Path, name: str, *, depends: str = "", postinst: str = "") -> Path:
    """Return a package with one file and a script."""
    tree = home / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1:2-3\nArchitecture: arm64\nMaintainer: T <t@example.org>\n"
        f"Installed-Size: 10\n{depends}Description: none\n"
    )
    if postinst:
        (tree / "DEBIAN/postinst").write_text(postinst)
        (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "usr/share" / name).mkdir(parents=True)
    (tree / "usr/share" / name / "file").write_text(f"{name}\n")
    deb = home / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True)
    return deb


def publish(home: Path, gpg: Gpg, key: str, files: list[Path]) -> None:
    """Lay out a signed archive of *files* below *home*."""
    stanzas = []
    for file in files:
        told = subprocess.run(["dpkg-deb", "-f", file], check=True, capture_output=True, text=True)
        stanzas.append(
            f"{told.stdout}Filename: {file.name}\nSize: {file.stat().st_size}\n"
            f"SHA256: {hash_file(file).removeprefix('sha256:')}\n"
        )
    place = home / "dists/own/main/binary-arm64"
    place.mkdir(parents=True)
    data = "\n".join(stanzas).encode()
    (place / "Packages").write_bytes(data)
    release = (
        "Origin: Test\nSuite: own\nCodename: own\nArchitectures: arm64\nComponents: main\n"
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
        f" {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-arm64/Packages\n"
    )
    (home / "dists/own/InRelease").write_bytes(gpg.clear(key, release.encode()))


@pytest.fixture(scope="module")
def made(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:  # noqa: F811
    """A board's disk with Debian, whose sources are the archive."""
    home = tmp_path_factory.mktemp("install")
    archive, root = home / "archive", home / "root"
    archive.mkdir()
    subprocess.run(["cp", "--archive", debian, root], check=True)
    with Gpg() as gpg, served(archive) as (url, asked):
        key = gpg.key("Own")
        publish(
            archive,
            gpg,
            key,
            [
                package(archive, "tool", depends="Depends: tool-data\n", postinst=POSTINST),
                package(archive, "tool-data"),
                package(archive, "broken", postinst="#!/bin/sh\necho in vain\nexit 3\n"),
                package(archive, "linux-image-6.1-test"),
            ],
        )
        (root / "usr/share/keyrings/own.asc").write_bytes(gpg.export(key, armor=True))
        (root / "etc/apt/sources.list").write_text(
            f"deb [signed-by=/usr/share/keyrings/own.asc] {url} own main\n"
            "deb file:/etc bookworm main\n"
        )
        # What would happen on the host if its apt or dpkg read the image's settings.
        mark = home / "mark"
        (root / "etc/apt/apt.conf.d/00hook").write_text(
            f'APT::Update::Pre-Invoke {{ "touch {mark}"; }};\n'
        )
        (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 0\n")
        disk = home / "disk.img"
        board_tools.board(root, disk, 700 * MIB)
        digest = hash_file(disk)
        source = FromImage(reference="/srv/disk.img", location=str(disk), digest=digest)
        size = disk.stat().st_size
        yield Made(
            image=Image(source=source, path=disk, digest=digest, size=size, virtual_size=size),
            root=root,
            asked=asked,
        )
        assert not mark.exists()
    shutil.rmtree(home)


def root_of(path: Path, format: DiskFormat) -> Iterator[BoardRoot]:
    with opened(path) as file:
        yield find_root(GuestDisk(file, format, budget=1 << 60), str(path))


def text(found: BoardRoot, name: str) -> str | None:
    file = found.system.find(name)
    return None if file is None else found.system.read(file, MIB * 8).decode()


def test_a_package_and_its_dependency(made: Made) -> None:
    image = installed(made.image, ("tool",), Quiet())
    assert image.digest == image.source.digest != made.image.digest
    assert image.source.packages == ("tool",)
    old = next(root_of(made.image.path, DiskFormat.RAW))
    for found in root_of(image.path, DiskFormat.QCOW2):
        assert (found.system.uuid, found.partition) == (old.system.uuid, old.partition)
        assert text(found, "etc/tool") == "policy 101\naarch64\n"
        assert text(found, "usr/share/tool-data/file") == "tool-data\n"
        assert text(found, "usr/sbin/policy-rc.d") == "#!/bin/sh\nexit 0\n"
        marked = (text(found, "var/lib/apt/extended_states") or "").splitlines()
        assert [line for line in marked if "tool" in line] == ["Package: tool-data"]
        left = {name for name, _ in found.system.entries(found.system.root)}
        assert not {name for name in left if b"armvm" in name}
        assert found.system.find("usr/bin/mandb") is None
        lists = found.system.find("var/lib/apt/lists")
        assert lists is None or not [n for n, _ in found.system.entries(lists) if b"127.0" in n]
    asked = len(made.asked)
    assert installed(made.image, ("tool",), Quiet()) == image
    assert len(made.asked) == asked, "it is in the cache"


@pytest.mark.slow
def test_nothing_is_left_of_a_failure(made: Made) -> None:
    before = set(workspace.SHARED.glob(f"{workspace.PREFIX}*"))
    with pytest.raises(Refused, match="cannot be installed outside of a running guest") as caught:
        installed(made.image, ("broken",), Quiet())
    assert "in vain" in (caught.value.detail or "")
    assert "with-broken-disk.img" not in [entry.name for entry in Cache.default().entries()]
    assert set(workspace.SHARED.glob(f"{workspace.PREFIX}*")) <= before


def download(made: Made, home: Path, *packages: str) -> list[str]:
    sizes: list[int] = []
    debs = apt.download(
        *(made.root, packages, home),
        title="the image",
        on_phase=lambda text: None,
        on_size=sizes.append,
    )
    assert [sizes[0]] == sizes
    return [deb.name_of(one) for one in debs]


def test_what_apt_is_asked_for(made: Made, tmp_path: Path) -> None:
    assert sorted(download(made, tmp_path, "tool", "dpkg")) == ["tool", "tool-data"]


def test_an_unknown_package(made: Made, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="package 'tolo' not found in the package sources") as caught:
        download(made, tmp_path, "tool", "tolo")
    assert caught.value.detail == "E: Unable to locate package tolo"


def test_an_archive_signed_by_another_key(made: Made, tmp_path: Path) -> None:
    file = made.image.path.parent / "archive/dists/own/InRelease"
    good = file.read_bytes()
    text = good.partition(b"\n\n")[2].partition(b"-----BEGIN PGP SIGNATURE")[0]
    with Gpg() as gpg:
        file.write_bytes(gpg.clear(gpg.key("Other"), text))
        with pytest.raises(BuildFailed, match="cannot download packages for the image") as caught:
            download(made, tmp_path, "tool")
    file.write_bytes(good)
    assert "NO_PUBKEY" in str(caught.value.detail)


def test_no_keys_trust_no_archive(made: Made, tmp_path: Path) -> None:
    keys = made.root / "usr/share/keyrings/own.asc"
    good = keys.read_bytes()
    keys.unlink()
    with pytest.raises(BuildFailed, match="cannot download packages for the image"):
        download(made, tmp_path, "tool")
    keys.write_bytes(good)


#: For an ordinary user: installs a package in the image that the first argument names.
SCRIPT = """\
import sys
from pathlib import Path
from armvm.base.progress import Quiet
from armvm.images.model import FromImage, Image
from armvm.provision.rootfs.install import installed
path, digest = Path(sys.argv[1]), sys.argv[2]
source = FromImage(reference="/srv/disk.img", location=str(path), digest=digest)
image = Image(source=source, path=path, digest=digest, size=0, virtual_size=0)
print(installed(image, ("tool",), Quiet()).path)
"""


@pytest.mark.slow
def test_an_ordinary_user_installs_in_a_user_namespace(
    made: Made,
    ordinary_user: OrdinaryUser,  # noqa: F811
) -> None:
    disk = ordinary_user.home / "disk.img"
    shutil.copy(made.image.path, disk)
    disk.chmod(0o644)
    python = sys._base_executable  # type: ignore[attr-defined]
    done = ordinary_user.run(python, "-c", SCRIPT, disk, made.image.digest, timeout=300).ok()
    for found in root_of(Path(done.out.strip()), DiskFormat.QCOW2):
        assert text(found, "etc/tool") == "policy 101\naarch64\n"
        tool = found.system.find("usr/share/tool/file")
        assert tool is not None
        assert (tool.uid, tool.gid) == (0, 0)
