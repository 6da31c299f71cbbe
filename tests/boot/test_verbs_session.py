"""The verbs that move files, in an ordinary user's session, whose pool and firmware are his own."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.boot.conftest import OrdinaryUser


def test_a_users_machine_is_renamed_copied_and_put_back(
    ordinary_user: OrdinaryUser, blank_image: Path
) -> None:
    user = ordinary_user
    image = user.home / "blank.qcow2"
    shutil.copy(blank_image, image)
    image.chmod(0o644)
    pool = user.home / ".local/share/armvm/pool"
    variables = user.home / ".config/libvirt/qemu/nvram"

    def ours(name: str) -> set[str]:
        found = {*pool.iterdir(), *(variables.iterdir() if variables.is_dir() else ())}
        return {path.name for path in found if path.name.startswith((f"{name}.", f"{name}_"))}

    user.armvm("create", "--name", "one", "--image", image, "--mem", "512", "--no-start").ok()
    user.armvm("start", "one", "--no-wait").ok()
    assert "your libvirt daemon" in user.armvm("autostart", "one").ok().out
    user.armvm("autostart", "one", "--off").ok()
    user.armvm("suspend", "one").ok()
    user.armvm("resume", "one").ok()
    user.armvm("restart", "one", "--force", "--no-wait").ok()
    user.armvm("forward", "add", "one", "18765:80").ok()
    assert "127.0.0.1:18765" in user.armvm("ip", "one").ok().out.splitlines()
    user.armvm("snapshot", "create", "one", "live").ok()
    user.armvm("stop", "--force", "one").ok()
    assert ours("one") >= {"one.qcow2", "one_VARS.fd", "one.snap-live.qcow2"}
    user.armvm("rename", "one", "two").ok()
    assert ours("one") == set()
    assert ours("two") >= {"two.qcow2", "two.nvram", "two.snap-live.qcow2"}
    user.armvm("snapshot", "revert", "two", "live", "--yes").ok()
    user.armvm("clone", "two", "three").ok()
    user.armvm("resize", "three", "--disk", "12G", "--cpus", "1").ok()
    for name in ("two", "three"):
        user.armvm("start", name, "--no-wait").ok()
        user.armvm("delete", "--yes", name).ok()
        assert ours(name) == set()
