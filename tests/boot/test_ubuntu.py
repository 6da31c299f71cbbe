"""The Ubuntu path: simplestreams from a local server, and the honest time-out on the way."""

from __future__ import annotations

from pathlib import Path

from tests.boot.conftest import BOOT_TIMEOUT
from tests.image_server import ImageServer, ubuntu_tree
from tests.support import armvm


def test_ubuntu_boots_from_a_server_with_its_layout(
    debian_image: Path, tmp_path: Path, name: str
) -> None:
    """The bytes are Debian's (Ubuntu's host is not always in reach); all else is the real way.

    Nobody but Ubuntu can sign for Ubuntu, so less is asked for, aloud.
    """
    root = tmp_path / "www"
    published = ubuntu_tree(root, debian_image, version="24.04", serial="20260911")
    with ImageServer(root) as server:
        env = {
            "ARMVM_MIRROR_UBUNTU": server.url,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "no_proxy": "127.0.0.1",
        }
        # Far too short for a boot: the machine stays, and the error says how far it got.
        late = armvm(
            *("create", "--name", name, "--image", "ubuntu:24.04", "--headless"),
            *("--timeout", "25", "--verify", "digest"),
            env=env,
            timeout=300,
        ).failed(11)
    assert late.err.count("the signature is not checked (verify = digest)") == 1
    assert "it got as far as: " in late.err
    assert "the end of its serial log:" in late.err
    assert f"armvm wait {name}" in late.err

    armvm("wait", name, "--timeout", str(BOOT_TIMEOUT), env=env, timeout=BOOT_TIMEOUT + 60).ok()
    shown = armvm("show", name, "--json", env=env).ok().json
    assert shown["image"] == {
        "reference": "ubuntu:24.04",
        "serial": "20260911",
        "digest": f"sha256:{published.digest}",
        "size": str(debian_image.stat().st_size),
        "system": "ubuntu 24.04",
        "verified": "catalog-digest",
    }
    assert "without a signature" in shown["provenance"]
    assert shown["user"] == "ubuntu"
    done = armvm("ssh", name, "--", "uname -m; whoami; ls /dev/dri 2>&1 | wc -l", env=env)
    machine, user, _ = done.ok().out.split(maxsplit=2)
    assert (machine, user) == ("aarch64", "ubuntu")
