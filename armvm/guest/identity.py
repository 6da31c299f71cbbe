"""A machine's identity: instance-id, UUID, MAC address, ssh host key."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from dataclasses import dataclass

from armvm.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """An ed25519 key pair in OpenSSH's file formats; ``public`` is the one-line form."""

    private: str
    public: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A machine's identity; ``uuid`` is the domain's and the guest's SMBIOS UUID."""

    uuid: str
    instance_id: str
    mac: str
    host_key: KeyPair


def new_identity(name: str) -> Identity:
    """Return a fresh identity for the machine called *name*."""
    domain = str(uuid.uuid4())
    return Identity(
        uuid=domain,
        instance_id=f"iid-{domain}",
        mac=new_mac(),
        host_key=new_key_pair(comment=f"root@{name}"),
    )


def new_mac() -> str:
    """Return a random MAC address with the prefix that KVM and QEMU use, 52:54:00."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in os.urandom(3))


def new_key_pair(comment: str) -> KeyPair:
    """Make an ed25519 key pair without a passphrase."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return KeyPair(private=private.decode(), public=f"{public.decode()} {comment}")


def public_key(private: str, comment: str) -> str:
    """Return the public key, in OpenSSH's one-line form, of an OpenSSH private key.

    Raises ConfigError if the text is not a private key, or if the key has a passphrase.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_ssh_private_key(private.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("cannot read armvm's ssh key", detail=str(error)) from error
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return f"{public.decode()} {comment}"


def fingerprint(public: str) -> str:
    """Return a public key's fingerprint as OpenSSH prints it: ``SHA256:`` and base64.

    Source: ssh-keygen(1), option -E; the digest is over the decoded key blob, without padding.
    """
    blob = base64.b64decode(public.split()[1])
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return "SHA256:" + digest.rstrip("=")
