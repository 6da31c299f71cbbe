"""Session mode: an ordinary user's own machine, reached through a port of the loopback."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.boot.conftest import BOOT_TIMEOUT, OrdinaryUser


def test_an_ordinary_users_machine(ordinary_user: OrdinaryUser, debian_image: Path) -> None:
    user, name = ordinary_user, "mine"
    image = user.home / "debian-12-arm64.qcow2"
    shutil.copyfile(debian_image, image)
    image.chmod(0o644)

    # QEMU runs as him here, and what he imports is his own: the base is the cached file itself.
    user.armvm("image", "import", image, "--as", "imported").ok()
    user.armvm("create", "--no-start", "--name", "held", "--image", "local:imported").ok()
    (cached,) = (user.home / ".cache/armvm/images/local").glob("imported-*.qcow2")
    (base,) = (user.home / ".local/share/armvm/pool").glob("base-*.qcow2")
    assert base.stat().st_ino == cached.stat().st_ino
    user.armvm("delete", "--yes", "held").ok()

    created = user.armvm(
        *("create", "--name", name, "--mem", "1G", "--image", image),
        *("--json", "--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 120,
    ).ok()  # fmt: skip
    facts = created.json
    assert facts["network"] == "user"
    assert facts["ssh"]["host"] == "127.0.0.1"
    assert facts["user"] == "debian", "the distribution's own user, told by the file's name"
    pool = user.home / ".local/share/armvm/pool"
    assert Path(facts["overlay"]).parent == pool
    assert list(pool.glob("base-*.qcow2")) == [base], "one of the same bytes was there"

    def ssh(command: str) -> str:
        return user.armvm("ssh", "--", command).ok().out

    assert ssh("uname -m; hostname; whoami; sudo -n whoami").split() == [
        "aarch64", name, "debian", "root",
    ]  # fmt: skip
    assert "status: done" in ssh("cloud-init status")

    # The key is one that armvm made for him, on first use.
    key = user.home / ".local/share/armvm/id_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600

    before = ssh("cat /etc/machine-id; touch kept")
    user.armvm("stop", timeout=700).ok()
    user.armvm("start", "--wait", timeout=BOOT_TIMEOUT).ok()
    assert ssh("cat /etc/machine-id; rm kept") == before, "the same machine, with its files"
    assert user.armvm("show", "--json").ok().json["ssh"] == facts["ssh"], "the port is kept"

    user.armvm("delete", "--yes", name).ok()
    assert [file.name for file in pool.iterdir() if not file.name.startswith("base-")] == []
    assert user.armvm("list", "--json").ok().json == []
    nvram = user.home / ".config/libvirt/qemu/nvram"
    assert not nvram.exists() or not list(nvram.glob(f"{name}*"))
