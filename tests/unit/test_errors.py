"""The errors users meet: their codes, their names, and the translation of libvirt's."""

from __future__ import annotations

import errno
import inspect
import re
from pathlib import Path
from typing import Any

import libvirt
import pytest

from armvm.base import errors
from armvm.base.errors import (
    ArmvmError,
    Conflict,
    ConnectFailed,
    DomainError,
    HostError,
    MissingCapability,
    NotFound,
    PermissionDenied,
    StorageError,
    UsageError,
)
from armvm.host import connection as connecting

CLASSES = {
    name: one
    for name, one in vars(errors).items()
    if inspect.isclass(one) and issubclass(one, ArmvmError)
}

#: The table of the design, in words of its own: a change of a code must be made twice.
CODES = {
    "OutputFailed": 1,
    "ArmvmError": 1,
    "UsageError": 2,
    "ConfigError": 3,
    "NotFound": 4,
    "Conflict": 5,
    "HostError": 6,
    "ConnectFailed": 6,
    "MissingCapability": 6,
    "PermissionDenied": 7,
    "ImageError": 8,
    "FetchFailed": 8,
    "Unreachable": 8,
    "DigestMismatch": 8,
    "SignatureInvalid": 8,
    "NotVerified": 8,
    "HostileImage": 8,
    "BuildFailed": 8,
    "StorageError": 9,
    "DomainError": 10,
    "NotReady": 11,
    "CommandFailed": 12,
}


def libvirt_error(
    code: int, domain: int = 0, message: str | None = "words", int1: int = 0
) -> libvirt.libvirtError:
    """Return a libvirtError as libvirt-python makes it: an exception with its C fields."""
    error = libvirt.libvirtError("")
    error.err = (code, domain, message, 2, None, None, None, int1, -1)
    return error


def codes_of(prefix: str) -> list[int]:
    return sorted({value for name, value in vars(libvirt).items() if name.startswith(prefix)})


def test_every_class_has_the_exit_code_of_the_design() -> None:
    assert {name: one.exit_code for name, one in CLASSES.items()} == CODES


def test_references_are_unique_and_kebab_case() -> None:
    references = [one.reference for one in CLASSES.values()]
    assert len(set(references)) == len(references)
    for reference in references:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", reference)


def test_the_docstring_shows_the_whole_tree() -> None:
    """Name, code and place of every class: the docstring is what is read first."""
    shown: dict[str, tuple[int, str]] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r" {4}([│├└─ ]*)([A-Z]\w+)\s+(\d+)\s+\S.*", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            shown[match[2]] = (int(match[3]), parents[depth - 1] if depth else "Exception")
    expected = {name: (one.exit_code, one.__mro__[1].__name__) for name, one in CLASSES.items()}
    assert shown == expected


def test_an_error_carries_message_detail_and_hint() -> None:
    error = NotFound("there is none", detail="evidence", hint="make one")
    assert (str(error), error.message) == ("there is none", "there is none")
    assert (error.detail, error.hint) == ("evidence", "make one")


@pytest.mark.parametrize("code", codes_of("VIR_ERR_"))
def test_every_code_of_libvirt_becomes_an_error_of_ours(code: int) -> None:
    error = connecting.translate(libvirt_error(code, message="some words"), "doing this")
    assert isinstance(error, ArmvmError)
    assert type(error) is not ArmvmError, "1 is the code of our own bugs"
    assert error.message == "doing this: some words"


@pytest.mark.parametrize("domain", codes_of("VIR_FROM_"))
def test_every_domain_of_libvirt_becomes_an_error_of_ours(domain: int) -> None:
    error = connecting.translate(libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, domain), "")
    assert error.exit_code in (6, 7, 9, 10)
    assert error.message == "words"


@pytest.mark.parametrize(
    ("code", "domain", "message", "int1", "kind"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, "Domain not found", 0, NotFound),
        (libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_FROM_STORAGE, "no volume", 0, NotFound),
        (libvirt.VIR_ERR_DOM_EXIST, libvirt.VIR_FROM_DOM, "exists", 0, Conflict),
        (libvirt.VIR_ERR_STORAGE_VOL_EXIST, libvirt.VIR_FROM_STORAGE, "exists", 0, Conflict),
        (
            libvirt.VIR_ERR_OPERATION_FAILED,
            libvirt.VIR_FROM_QEMU,
            "domain 'a' already exists with uuid 5",
            0,
            Conflict,
        ),
        (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_QEMU, "failed", 0, DomainError),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            libvirt.VIR_FROM_RPC,
            "Failed to connect socket: Permission denied",
            errno.EACCES,
            PermissionDenied,
        ),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            libvirt.VIR_FROM_STORAGE,
            "cannot open volume: Operation not permitted",
            errno.EPERM,
            PermissionDenied,
        ),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            libvirt.VIR_FROM_STREAMS,
            "cannot write to stream: No space left on device",
            errno.ENOSPC,
            StorageError,
        ),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            libvirt.VIR_FROM_NONE,
            "cannot write: Disk quota exceeded",
            errno.EDQUOT,
            StorageError,
        ),
        (libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_FROM_POLKIT, "no", 0, PermissionDenied),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, "exited", 0, DomainError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_NETWORK, "no bridge", 0, HostError),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_FROM_QEMU, "no", 0, MissingCapability),
        (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_FROM_NONE, "no", 0, ConnectFailed),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, "reset", 104, ConnectFailed),
    ],
)
def test_what_libvirt_says_decides_the_class(
    code: int, domain: int, message: str, int1: int, kind: type[ArmvmError]
) -> None:
    error = connecting.translate(libvirt_error(code, domain, message, int1), "doing")
    assert type(error) is kind
    assert message in error.message


def test_refusals_and_full_disks_come_with_a_hint() -> None:
    refused = connecting.translate(libvirt_error(libvirt.VIR_ERR_AUTH_FAILED), "")
    full = connecting.translate(libvirt_error(38, message="No space left on device"), "")
    assert refused.hint is not None
    assert "group libvirt" in refused.hint
    assert full.hint is not None
    assert "--pool" in full.hint


def test_a_pool_that_cannot_be_written_to_says_what_helps() -> None:
    storage, system = libvirt.VIR_FROM_STORAGE, libvirt.VIR_ERR_SYSTEM_ERROR
    words = "cannot create path '/p/x': Read-only file system"
    read_only = connecting.translate(libvirt_error(system, storage, words, errno.EROFS), "making x")
    assert isinstance(read_only, StorageError)
    assert "read-only" in str(read_only.hint)
    words = "cannot create path '/p/x': Permission denied"
    closed = connecting.translate(libvirt_error(system, storage, words, errno.EACCES), "making x")
    assert isinstance(closed, PermissionDenied)
    assert "owner and mode" in str(closed.hint)
    assert all("--pool" in str(one.hint) for one in (read_only, closed))


def test_an_error_without_fields_is_translated_too() -> None:
    """libvirt-python raises those when a call failed and libvirt kept no error."""
    error = libvirt.libvirtError("virDomainCreate() failed")
    error.err = None
    translated = connecting.translate(error, "starting it")
    assert isinstance(translated, HostError)
    assert translated.message == "starting it: virDomainCreate() failed"


def test_real_errors_of_a_real_driver() -> None:
    """libvirt's own test driver, which needs no daemon, says no to several things."""
    connection: Any = connecting.connect("test:///default")
    with pytest.raises(NotFound, match="looking"), connecting.errors("looking"):
        connection.lookupByName("not-there")
    with pytest.raises(NotFound), connecting.errors("looking"):
        connection.storagePoolLookupByName("not-there")
    with pytest.raises(ArmvmError), connecting.errors("defining"):
        connection.defineXML("<domain")
    with pytest.raises(MissingCapability), connecting.errors("asking"):
        connection.lookupByName("test").managedSaveDefineXML("<x/>", 0)
    connection.close()


def test_other_errors_pass_the_translator() -> None:
    with pytest.raises(ZeroDivisionError), connecting.errors("doing"):
        raise ZeroDivisionError


@pytest.mark.parametrize("uri", ["", "nonsense", "qemu:///sys\ntem", "\x1b[31m:"])
def test_what_is_no_uri_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        connecting.connect(uri)
    assert "\x1b" not in caught.value.message
    assert caught.value.hint


def test_a_driver_without_machines_like_ours_is_refused() -> None:
    with pytest.raises(ArmvmError) as caught:
        connecting.connect("nosuchdriver:///system")
    assert caught.value.exit_code in (2, 6)


def test_a_uri_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed) as caught:
        connecting.connect(f"qemu+unix:///system?socket={tmp_path}/none&mode=direct")
    assert caught.value.hint is not None
    assert "armvm doctor" in caught.value.hint
