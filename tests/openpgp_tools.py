"""Real keys and signatures for tests: made by gpg in a home of its own, which goes afterwards.

::

    with Gpg() as gpg:
        key = gpg.key("Ubuntu")
        sign_tree(root, gpg, key)          # .sjson files, and SHA256SUMS.gpg beside each image
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from armvm.base import process
from armvm.images.trust.openpgp import Key


class Gpg:
    """A gpg with an empty home; its agent ends with the context."""

    def __init__(self) -> None:
        # Short, for the agent's socket lies in it, and its path may have 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="agpg-", dir="/tmp"))

    def __enter__(self) -> Gpg:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        env = {"GNUPGHOME": str(self.home)}
        process.run(["gpgconf", "--kill", "all"], env=env, check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *words: str | Path, input: bytes = b"", at: str | None = None) -> bytes:
        """Run gpg, as if it were *at* (``20200101T000000``); return its standard output."""
        fixed: list[str | Path] = ["gpg", "--batch", "--quiet", "--passphrase", ""]
        fixed += ["--pinentry-mode", "loopback", "--trust-model", "always"]
        fixed += ["--faked-system-time", f"{at}!"] if at else []
        env = {"GNUPGHOME": str(self.home), "LC_ALL": "C"}
        return process.run([*fixed, *words], input=input, env=env, timeout=60).stdout

    def key(
        self,
        name: str,
        *,
        algorithm: str = "ed25519",
        expires: str = "never",
        at: str | None = None,
        digest: str = "SHA512",
    ) -> str:
        """Make a key that signs; return its fingerprint."""
        before = set(self._fingerprints())
        words = ["--cert-digest-algo", digest, "--quick-gen-key", f"{name} <{name}@example.org>"]
        self.run(*words, algorithm, "sign", expires, at=at)
        (made,) = set(self._fingerprints()) - before
        return made

    def subkey(self, fingerprint: str) -> None:
        """Give a key a signing subkey, by which it signs from now on."""
        self.run("--quick-add-key", fingerprint, "ed25519", "sign", "never")

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key by the certificate that gpg put aside when it was made."""
        text = (self.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text()
        self.run("--import", input=text.replace(":-----BEGIN", "-----BEGIN").encode())

    def export(self, *fingerprints: str, armor: bool = False) -> bytes:
        """Return public keys as a key file."""
        return self.run(*(["--armor"] if armor else []), "--export", *fingerprints)

    def detached(
        self, fingerprint: str, data: bytes, *options: str, at: str | None = None
    ) -> bytes:
        """Return a detached signature of *data*."""
        return self.run("-u", fingerprint, *options, "--detach-sign", input=data, at=at)

    def clear(self, fingerprint: str, data: bytes, *options: str, at: str | None = None) -> bytes:
        """Return *data* clear-signed."""
        return self.run("-u", fingerprint, *options, "--clear-sign", input=data, at=at)

    def _fingerprints(self) -> list[str]:
        listed = self.run("--with-colons", "--list-keys").decode().splitlines()
        primary = False
        found = []
        for fields in (line.split(":") for line in listed):
            if fields[0] in ("pub", "sub"):
                primary = fields[0] == "pub"
            elif fields[0] == "fpr" and primary:
                found.append(fields[9])
        return found


def pin(fingerprint: str, owner: str = "Ubuntu", *keyrings: Path) -> Key:
    """Return a key as the product pins it."""
    return Key(fingerprint=fingerprint, owner=owner, keyrings=tuple(map(str, keyrings)))


def sign_tree(
    root: Path, gpg: Gpg, fingerprint: str, *, streams: bool = True, sums: bool = True
) -> None:
    """Sign a tree of ubuntu_tree(): its streams (clear-signed twins) and its checksum files."""
    if streams:
        index = root / "streams/v1/index.json"
        document = json.loads(index.read_text())
        for entry in document["index"].values():
            products = root / entry["path"]
            signed = products.with_suffix(".sjson")
            signed.write_bytes(gpg.clear(fingerprint, products.read_bytes()))
            entry["path"] = str(signed.relative_to(root))
        text = json.dumps(document, indent=1).encode() + b"\n"
        index.with_suffix(".sjson").write_bytes(gpg.clear(fingerprint, text))
    if sums:
        for file in root.rglob("SHA256SUMS"):
            file.with_name("SHA256SUMS.gpg").write_bytes(
                gpg.detached(fingerprint, file.read_bytes())
            )


def serve_keys(root: Path, data: bytes) -> None:
    """Lay a key file out below *root* as what a key server answers, whichever key is asked for."""
    place = root / "pks/lookup"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
