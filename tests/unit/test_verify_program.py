"""Verification levels for images, with the real program against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image_server import ImageServer, ubuntu_tree
from tests.images_tools import leftovers, qcow2_image
from tests.openpgp_tools import Gpg, sign_tree
from tests.support import Result, armvm

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageServer]:
    """A mirror of Ubuntu's that somebody else has signed."""
    directory = tmp_path_factory.mktemp("mirror")
    root = directory / "www"
    root.mkdir()
    ubuntu_tree(root, qcow2_image(directory / "disk.img", payload=100_000))
    with Gpg() as gpg:
        sign_tree(root, gpg, gpg.key("Ubuntu"))
    with ImageServer(root) as running:
        yield running


def pull(server: ImageServer, home: Path, *words: str, **env: str) -> Result:
    changes = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "ARMVM_MIRROR_UBUNTU": server.url,
        # Nothing answers there: the keys are not Ubuntu's anyway.
        "ARMVM_KEYSERVER": "https://127.0.0.1:1",
        "no_proxy": "127.0.0.1",
        **env,
    }
    return armvm("image", *words, env=changes)


def test_a_mirror_cannot_sign_for_ubuntu(server: ImageServer, tmp_path: Path) -> None:
    """Nor does a setting make it: the keys are part of the program."""
    for words in ([], ["--verify", "signature"]):
        done = pull(server, tmp_path, "pull", "ubuntu:24.04", *words).failed(8)
        assert "UEC Image Automatic Signing Key" in done.err
        assert "--verify digest" in done.err
    assert not (tmp_path / ".gnupg").exists()
    cache = tmp_path / "cache" / "armvm" / "images"
    assert not cache.exists() or leftovers(cache) == []


def test_less_can_be_asked_for_and_is_said(server: ImageServer, tmp_path: Path) -> None:
    done = pull(server, tmp_path, "pull", "ubuntu:24.04", "--verify", "digest", "--json").ok()
    assert done.err.count("the signature is not checked (verify = digest)") == 1
    assert done.json["verified"] == "catalog-digest"
    assert done.json["signer"] is None
    assert "without a signature" in done.json["provenance"]
    (listed,) = pull(server, tmp_path, "list", "--json").ok().json
    assert "without a signature" in listed["provenance"]
    assert "catalog-digest" in pull(server, tmp_path, "list").ok().out
    # What is in the cache now is not enough for the default, which comes back with the next.
    pull(server, tmp_path, "pull", "ubuntu:24.04").failed(8)
    said = pull(server, tmp_path, "pull", "ubuntu:24.04", ARMVM_VERIFY="digest").ok()
    assert "verified by a digest in the distribution's catalog" in said.out


def test_the_configuration_decides_too(server: ImageServer, tmp_path: Path) -> None:
    config = tmp_path / "config" / "armvm" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('verify = "digest"\nkeyserver = "https://127.0.0.1:1"\n')
    pull(server, tmp_path, "pull", "ubuntu:24.04").ok()
    config.write_text('[machine]\nverify = "digest"\n')
    done = pull(server, tmp_path, "pull", "ubuntu:24.04", ARMVM_KEYSERVER="http://x").failed(3)
    assert "ARMVM_KEYSERVER" in done.err
    done = armvm("create", "--dry-run", env={"XDG_CONFIG_HOME": str(tmp_path / "config")}).failed(3)
    assert "config.toml: [machine] verify: belongs above [machine]" in done.err
    config.write_text('verify = "sometimes"\n')
    done = pull(server, tmp_path, "pull", "ubuntu:24.04").failed(3)
    assert "invalid verify value" in done.err
    done = pull(server, tmp_path, "pull", "x.img", "--verify", "1", "--json").failed(3)
    assert json.loads(done.err)["error"]["reference"] == "config-invalid"
