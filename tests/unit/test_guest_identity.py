"""Identity: what OpenSSH says of our keys is what we say of them."""

from __future__ import annotations

import re
import subprocess
import uuid
from pathlib import Path

import pytest

from armvm.base.errors import ConfigError
from armvm.guest.identity import fingerprint, new_identity, new_key_pair, new_mac, public_key


def ssh_keygen(*args: str | Path) -> str:
    done = subprocess.run(["ssh-keygen", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_openssh_reads_both_halves_and_agrees_on_the_fingerprint(tmp_path: Path) -> None:
    pair = new_key_pair(comment="root@arm64-01")
    public, private = tmp_path / "key.pub", tmp_path / "key"
    public.write_text(pair.public + "\n")
    private.write_text(pair.private)
    private.chmod(0o600)
    listed = ssh_keygen("-l", "-f", public).split()
    assert listed[0] == "256"
    assert listed[1] == fingerprint(pair.public)
    assert listed[2:] == ["root@arm64-01", "(ED25519)"]
    # Without a passphrase, ssh-keygen derives the public half from the private one.
    assert ssh_keygen("-y", "-f", private).split()[:2] == pair.public.split()[:2]


def test_the_public_half_is_found_from_the_private_one() -> None:
    pair = new_key_pair(comment="armvm")
    assert public_key(pair.private, comment="armvm") == pair.public


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_private_key_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="ssh key"):
        public_key(text, comment="x")


def test_no_two_identities_share_anything() -> None:
    found = [new_identity("arm64-01") for _ in range(50)]
    for values in (
        {one.uuid for one in found},
        {one.instance_id for one in found},
        {one.mac for one in found},
        {one.host_key.public for one in found},
        {one.host_key.private for one in found},
    ):
        assert len(values) == len(found)


def test_an_identity_is_well_formed() -> None:
    identity = new_identity("arm64-01")
    assert str(uuid.UUID(identity.uuid)) == identity.uuid
    assert identity.instance_id == f"iid-{identity.uuid}"
    assert identity.host_key.public.endswith(" root@arm64-01")


def test_mac_addresses_are_qemus_and_unicast() -> None:
    for _ in range(20):
        assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", new_mac())
