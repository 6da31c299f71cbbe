"""Signatures of goldens, made and verified by ssh-keygen with ssh keys.

What is signed is the digest of the manifest, which contains the digests of everything else.
Source: ssh-keygen(1), -Y sign and -Y verify, ALLOWED SIGNERS; OpenSSH's PROTOCOL.sshsig.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from armvm.base import process
from armvm.base.errors import CommandFailed, NotFound, SignatureInvalid, UsageError

ARTIFACT = "application/vnd.armvm.golden.signature.v1"
MEDIA_TYPE = "application/vnd.armvm.golden.signature.v1+ssh"
#: The namespace keeps a signature made for another purpose from being used here.
NAMESPACE = "armvm-golden"
#: Maximum size of a signature in bytes.
MAX_SIGNATURE = 64 << 10
#: Seconds for ssh-keygen, which may wait for a hardware key or an agent that asks.
_PATIENCE = 300.0
#: The name under which a bare public key is trusted.
_ANYONE = "golden"
_KEY_TYPE = re.compile(r"(ssh-|ecdsa-|sk-)[a-z0-9@.-]+")


def sign(digest: str, key: Path) -> bytes:
    """Return the signature of a manifest's digest with the ssh key in the file *key*.

    A public key works too, if the ssh agent holds its private key. Raises NotFound and
    CommandFailed.
    """
    try:
        there = key.is_file()
    except OSError as error:
        raise NotFound(f"cannot read {key}: {error.strerror}") from error
    if not there:
        raise NotFound(f"key {key} not found", hint="make one: ssh-keygen -t ed25519 -f KEY")
    with tempfile.TemporaryDirectory() as directory:
        message = Path(directory) / "digest"
        message.write_bytes(_message(digest))
        try:
            process.run(
                ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key.absolute(), message],
                timeout=_PATIENCE,
            )
        except CommandFailed as error:
            raise CommandFailed(
                f"cannot sign with {key}",
                detail=error.detail or error.message,
                # ssh-keygen has no terminal, and cannot ask for it.
                hint=f"if it has a passphrase: ssh-add {key}, then --sign {key}.pub",
            ) from error
        return message.with_suffix(".sig").read_bytes()


def check_key(key: Path) -> None:
    """Raise the error of `sign` if a key cannot sign, before a golden is packed."""
    sign("", key)


def verify(digest: str, signatures: list[bytes], trusted: Path) -> str:
    """Return the name of the trusted signer of a manifest's digest.

    *trusted* is a public key, or a file of allowed signers as ssh-keygen(1) describes. Raises
    SignatureInvalid if no signature is by one of them, NotFound and UsageError.
    """
    allowed = _allowed_signers(trusted)
    for text in signatures:
        if (signer := _signer(digest, text, allowed)) is not None:
            return signer
    raise SignatureInvalid(
        "the golden is not signed"
        if not signatures
        else f"the golden is not signed by a key in {trusted}",
        hint="sign it where it comes from: armvm golden export --sign KEY",
    )


def _signer(digest: str, text: bytes, allowed: bytes) -> str | None:
    with tempfile.TemporaryDirectory() as directory:
        signers, found = Path(directory) / "allowed", Path(directory) / "sig"
        signers.write_bytes(allowed)
        found.write_bytes(text)
        names = process.run(
            ["ssh-keygen", "-Y", "find-principals", "-s", found, "-f", signers],
            timeout=_PATIENCE,
            check=False,
        )
        for name in names.text.splitlines() if names.returncode == 0 else ():
            words: list[str | Path] = [
                "-Y",
                "verify",
                "-f",
                signers,
                "-I",
                name,
                "-n",
                NAMESPACE,
                "-s",
                found,
            ]
            try:
                process.run(["ssh-keygen", *words], input=_message(digest), timeout=_PATIENCE)
            except CommandFailed:
                continue
            return name
    return None


def _allowed_signers(trusted: Path) -> bytes:
    try:
        data = trusted.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {trusted}: {error.strerror}") from error
    words = data.split()
    if not words:
        raise UsageError(f"{trusted} contains no key")
    if _KEY_TYPE.fullmatch(words[0].decode("ascii", "replace")):
        lines = [line for line in data.splitlines() if line.strip()]
        return b"".join(_ANYONE.encode() + b" " + line + b"\n" for line in lines)
    return data


def _message(digest: str) -> bytes:
    return f"{digest}\n".encode()
