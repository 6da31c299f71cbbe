"""Golden files without a host: archive, packed layers, documents, disk headers, signatures."""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import (
    CommandFailed,
    DigestMismatch,
    HostileImage,
    NotFound,
    SignatureInvalid,
    StorageError,
    UsageError,
)
from armvm.base.progress import Quiet
from armvm.host.storage import sparse
from armvm.images.check import qcow2_tables
from armvm.images.check.backing import set_backing
from armvm.images.oci import archive, blobs, document
from armvm.images.oci.document import MANIFEST, Descriptor, Manifest, describe
from armvm.images.oci.packed import PIECE, Packer, unpack
from armvm.provision.golden import portable, signature
from armvm.provision.golden.export import _check_target, _Head
from armvm.provision.golden.fit import differences
from armvm.provision.golden.import_ import _Parts, opened
from armvm.provision.golden.portable import Part, Portable
from tests.golden_files import member, tar_of

DIGEST = "sha256:" + "0" * 64
LAYOUT = (member("oci-layout"), b"{}")
GOLDEN = Portable(
    name="ci",
    created="2026-01-01T00:00:00Z",
    route="cow",
    state_digest=DIGEST,
    user="debian",
    mac="52:54:00:00:00:01",
    network="user",
    firmware="AAVMF_CODE.fd",
    host_key="ssh-ed25519 AAAA",
    instance_id="iid-11111111-1111-4111-8111-111111111111",
    image={"reference": "debian:12", "system": "debian 12"},
    settings={"cpus": 2, "memory_mib": 1024, "disk": 10 << 30, "preset": "default"},
    shape={"image": DIGEST, "memory_mib": 1024, "user": "debian"},
    ground={"QEMU": "7.2.22"},
    hardware=["machine aarch64 virt-7.2"],
    parts={
        "base": Part(size=1 << 20, allocated=1 << 20, content=DIGEST),
        "overlay": Part(size=1 << 20, allocated=1 << 20),
        "seed": Part(size=2 << 20, allocated=4096),
        "state": Part(size=4096, allocated=4096),
        "memory": Part(size=1 << 30, allocated=1 << 20),
    },
)


Scanned = Callable[[bytes], archive.Archive]


@pytest.fixture
def scanned(tmp_path: Path) -> Iterator[Scanned]:
    """Write bytes to a file, and scan it as an archive."""
    with ExitStack() as files:

        def scan(data: bytes) -> archive.Archive:
            path = tmp_path / "file"
            path.write_bytes(data)
            return archive.scan(files.enter_context(path.open("rb")), "file")

        yield scan


# --- the archive ---


def test_an_archive_is_read_as_it_was_written(tmp_path: Path) -> None:
    small, large = b"{}", random.Random(0).randbytes(100_000)
    blobs: list[tuple[Descriptor, bytes | Path]] = [(describe(small, "a/b"), small)]
    (tmp_path / "large").write_bytes(large)
    blobs.append((describe(large, "a/c"), tmp_path / "large"))
    with (tmp_path / "file").open("wb") as file:
        archive.write(file, b"index", blobs)
    with (tmp_path / "file").open("rb") as file:
        found = archive.scan(file, "file")
        assert found.index() == b"index"
        assert found.document(blobs[0][0]) == small
        assert found.open(blobs[1][0]).read() == large
    with tarfile.open(tmp_path / "file") as tar:  # other programs read it too
        assert {one.name for one in tar} >= {"oci-layout", "index.json"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_archives_of_other_programs_are_read(scanned: Scanned, format: int) -> None:
    blob = describe(b"blob", "a/b")
    members = [
        (member("./", tarfile.DIRTYPE), b""),
        (member("./blobs/", tarfile.DIRTYPE), b""),
        (member("./blobs/sha256", tarfile.DIRTYPE), b""),
        (member(f"./{blob.path}"), b"blob"),
        (member("./index.json"), b"index"),
        (member("./oci-layout"), b"{}"),
    ]
    found = scanned(tar_of(members, format=format))
    assert found.index() == b"index"
    assert found.open(blob).read() == b"blob"


@pytest.mark.parametrize(
    "entry",
    [
        member("../../etc/passwd"),
        member("/etc/passwd"),
        member("blobs/sha256/../../../x"),
        member("blobs/sha256/" + "G" * 64),
        member("index.json", tarfile.SYMTYPE, "/etc/passwd"),
        member("index.json", tarfile.LNKTYPE, "oci-layout"),
        member("index.json", tarfile.FIFOTYPE),
        member("index.json", tarfile.CHRTYPE),
        member("home", tarfile.DIRTYPE),
        member("n" * 300),
        member("oci-layout"),
        member("index.json", b"S"),
    ],
    ids=lambda one: f"{one.name[:20]}-{one.type!r}",
)
def test_only_the_files_of_a_layout_are_allowed(scanned: Scanned, entry: tarfile.TarInfo) -> None:
    with pytest.raises(HostileImage):
        scanned(tar_of([LAYOUT, (entry, b"x")]))


def test_extensions_are_rejected(scanned: Scanned) -> None:
    extended = tar_of([LAYOUT], format=tarfile.PAX_FORMAT, pax_headers={"path": "/etc/passwd"})
    with pytest.raises(HostileImage, match="extensions"):
        scanned(extended)


def test_the_number_of_entries_is_limited(scanned: Scanned) -> None:
    many = [(member(f"blobs/sha256/{number:064x}"), b"") for number in range(500)]
    with pytest.raises(HostileImage, match="more than"):
        scanned(tar_of([LAYOUT, *many]))


@pytest.mark.parametrize("size", [1 << 30, (1 << 62) - 1, 1 << 70])
def test_a_size_beyond_the_end_is_rejected(scanned: Scanned, size: int) -> None:
    info = member("index.json")
    info.size = size
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    with pytest.raises(HostileImage):
        scanned(data)


@given(data=st.data())
def test_a_changed_archive_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = tar_of([LAYOUT, (member("index.json"), b"x"), (member("blobs", tarfile.DIRTYPE), b"")])
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.getbasetemp() / "changed"
    for one in (bytes(changed), whole[:cut]):
        path.write_bytes(one)
        with path.open("rb") as file, contextlib.suppress(HostileImage):
            archive.scan(file, "file")


def test_what_is_no_archive_is_refused(scanned: Scanned) -> None:
    for data in (b"", b"x" * 2000, random.Random(1).randbytes(4096), bytes(10240)):
        with pytest.raises(HostileImage):
            scanned(data)


def test_a_blob_of_another_size_than_declared_is_refused(scanned: Scanned) -> None:
    blob = describe(b"blob", "a/b")
    found = scanned(tar_of([LAYOUT, (member(blob.path), b"longer")]))
    with pytest.raises(HostileImage, match="has 6 bytes, but its manifest says 4"):
        found.open(blob)
    with pytest.raises(HostileImage, match="missing"):
        found.open(replace(blob, digest=DIGEST))
    same = scanned(tar_of([LAYOUT, (member(blob.path), b"BLOB")]))
    with pytest.raises(DigestMismatch):
        same.document(blob)


# --- packed layers ---


def packed(data: bytes) -> tuple[bytes, Descriptor]:
    target = io.BytesIO()
    packer = Packer(target)
    packer.feed(data)
    layer = packer.finish("a/b", "part.zst")
    return target.getvalue(), layer


def unpacked(data: bytes, layer: Descriptor, size: int) -> bytes:
    return b"".join(unpack(io.BytesIO(data), layer, size, "file"))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
def test_a_layer_unpacks_to_what_was_packed(size: int) -> None:
    contents = random.Random(size).randbytes(size)
    data, layer = packed(contents)
    assert layer == replace(describe(data, "a/b"), title="part.zst")
    assert unpacked(data, layer, size) == contents


def test_a_hole_is_packed_as_zeros() -> None:
    target = io.BytesIO()
    packer = Packer(target)
    packer.feed(b"x")
    packer.skip(5 * PIECE)
    layer = packer.finish("a/b", "part.zst")
    assert packer.size == 5 * PIECE + 1
    assert unpacked(target.getvalue(), layer, packer.size) == b"x" + bytes(5 * PIECE)


def test_a_bomb_ends_at_the_declared_size() -> None:
    target = io.BytesIO()
    packer = Packer(target)
    packer.skip(512 << 20)
    layer = packer.finish("a/b", "part.zst")
    assert layer.size < 1 << 20
    done = 0
    with pytest.raises(HostileImage, match="more bytes than it declares"):
        for piece in unpack(io.BytesIO(target.getvalue()), layer, 3 * PIECE, "file"):
            done += len(piece)
    assert done == 3 * PIECE


def test_a_layer_that_is_too_short_is_refused() -> None:
    data, layer = packed(b"short")
    with pytest.raises(HostileImage, match="fewer bytes than it declares"):
        unpacked(data, layer, 100)


def test_a_huge_window_is_refused() -> None:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj().compress(b"")
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = stream.compress(random.Random(0).randbytes(4096)) + stream.flush()
    with pytest.raises(HostileImage, match="cannot be unpacked"):
        unpacked(data, describe(data, "a/b"), 4096)


@pytest.mark.parametrize("where", [0, 5, 300, -1])
def test_a_changed_byte_is_found(where: int) -> None:
    contents = random.Random(0).randbytes(2 * PIECE)
    data, layer = packed(contents)
    changed = bytearray(data)
    changed[where] ^= 1
    for bad in (bytes(changed), data[:-1], data + b"x", b""):
        with pytest.raises(DigestMismatch):
            unpacked(bad, layer, len(contents))


# --- documents ---


def test_documents_are_read_as_they_were_written() -> None:
    blob = Descriptor(media_type="a/b", digest=DIGEST, size=5, title="memory.zst")
    manifest = Manifest(artifact_type="a/type", config=blob, layers=(blob, blob), subject=blob)
    assert document.load_manifest(document.dump_manifest(manifest), "file") == manifest
    assert document.load_index(document.dump_index([blob]), "file") == (blob,)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:" + "0" * 63}, {"digest": "md5:" + "0" * 32}, {"digest": 5},
        {"digest": "sha256:../../x"}, {"size": -1}, {"size": True}, {"size": "5"},
        {"size": 1 << 70},
        {"mediaType": "x"}, {"mediaType": None}, {"mediaType": "a/b\n"},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_descriptors_are_refused(change: dict[str, Any]) -> None:
    good = {"mediaType": "a/b", "digest": DIGEST, "size": 5}
    text = json.dumps({"schemaVersion": 2, "config": {**good, **change}, "layers": []})
    with pytest.raises(HostileImage):
        document.load_manifest(text.encode(), "file")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"schemaVersion": 1}', '{"schemaVersion": 2}']
)
def test_invalid_documents_are_refused(text: str) -> None:
    for load in (document.load_manifest, document.load_index):
        with pytest.raises(HostileImage):
            load(text.encode(), "file")


def test_the_number_of_layers_is_limited() -> None:
    blob = Descriptor(media_type="a/b", digest=DIGEST, size=5)
    many = Manifest(artifact_type="", config=blob, layers=(blob,) * 1000)
    with pytest.raises(HostileImage):
        document.load_manifest(document.dump_manifest(many), "file")


# --- the description of a golden ---


def described(**changes: Any) -> bytes:
    return document.dump({**json.loads(portable.dump(GOLDEN)), **changes})


def test_a_description_is_read_as_it_was_written() -> None:
    assert portable.load(portable.dump(GOLDEN), "file") == GOLDEN


def part(name: str = "memory", /, **changes: Any) -> dict[str, Any]:
    """Return the parts of GOLDEN with one changed."""
    parts = json.loads(portable.dump(GOLDEN))["parts"]
    return {**parts, name: {**parts[name], **changes}}


def shape(**changes: Any) -> dict[str, Any]:
    """Return the shape of GOLDEN, changed."""
    return {**GOLDEN.shape, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"format": None}, {"name": 5}, {"name": "a\nb"}, {"name": "x" * 5000},
        {"created": "today"}, {"route": "other"}, {"state_digest": "x"}, {"mac": "../../x"},
        {"mac": "ff:ff:ff:ff:ff:ff"}, {"network": "br0"}, {"firmware": "../../etc/passwd"},
        {"firmware": "/etc/passwd"}, {"instance_id": "x"}, {"image": []}, {"image": {"serial": 5}},
        {"shape": {}}, {"shape": {"image": "x", "memory_mib": 1024}},
        {"shape": {"image": DIGEST, "memory_mib": -1}}, {"ground": {"QEMU": 5}}, {"ground": None},
        {"shape": {"image": DIGEST, "memory_mib": "1024"}}, {"hardware": [5]}, {"hardware": None},
        {"shape": shape(user=5)}, {"shape": shape(user="a\x1b")}, {"shape": shape(disk="x")},
        {"shape": shape(cpus=[1])}, {"shape": shape(headless={})}, {"shape": shape(fast=None)},
        {"shape": {"image": DIGEST, "memory_mib": 1024}}, {"hardware": ["\x1b[2J"]},
        {"parts": part("state", size=1 << 30)},
        {"settings": {"cpus": "2"}}, {"settings": {"cpus": True}}, {"settings": {"disk": None}},
        {"settings": {"headless": 1}}, {"settings": {"preset": "../x"}}, {"settings": None},
        {"parts": None}, {"parts": {}}, {"parts": part(size=0)}, {"parts": part(size=-1)},
        {"parts": part(size=1 << 40)}, {"parts": part(allocated=1 << 40)},
        {"parts": part(allocated=-1)}, {"parts": part(size="1")}, {"parts": part(content="x")},
        {"parts": {**part(), "memory": 5}},
    ],
    ids=lambda one: str(one)[:60],
)  # fmt: skip
def test_invalid_descriptions_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(HostileImage):
        portable.load(described(**changes), "file")


def test_an_image_is_not_verified_because_a_file_says_so() -> None:
    said = {"reference": "ubuntu:24.04", "verified": "signature", "signer": "x"}
    assert portable.load(described(image=said), "file").image == {"reference": "ubuntu:24.04"}


def test_a_name_that_no_machine_can_have_is_refused() -> None:
    for name in ("", "..", "a/b", "localhost", "-x"):
        with pytest.raises(HostileImage):
            portable.check_name(replace(GOLDEN, name=name), "file")
    assert portable.check_name(GOLDEN, "file") == "ci"


def test_layers_must_be_the_parts() -> None:
    def layer(name: str) -> Descriptor:
        return Descriptor(media_type=portable.media_type(name), digest=DIGEST, size=5)

    parts = tuple(layer(name) for name in portable.PARTS)
    assert portable.layers_by_part(parts, GOLDEN, "file").keys() == GOLDEN.parts.keys()
    assert "base" not in portable.layers_by_part(parts[1:], GOLDEN, "file")
    for bad in (parts[:-1], (*parts, parts[0]), (*parts, layer("kernel"))):
        with pytest.raises(HostileImage):
            portable.layers_by_part(bad, GOLDEN, "file")


def test_a_disk_that_packs_too_well_is_refused() -> None:
    def layer(name: str, size: int) -> Descriptor:
        return Descriptor(media_type=portable.media_type(name), digest=DIGEST, size=size)

    for name in ("base", "overlay"):
        parts = {**GOLDEN.parts, name: Part(size=4 << 30, allocated=0)}
        large = replace(GOLDEN, parts=parts)
        for size, refused in ((1 << 20, True), (32 << 20, False)):
            layers = tuple(layer(one, size) for one in portable.PARTS)
            if refused:
                with pytest.raises(HostileImage, match=f"its {name} unpacks to more than 256"):
                    portable.layers_by_part(layers, large, "file")
            else:
                portable.layers_by_part(layers, large, "file")


def test_differences_from_a_strangers_shape_are_printable() -> None:
    [told] = differences({"\x1b[2J": "\x1b]0;x\x07"}, {})
    assert told.isprintable()
    assert differences({"cpus": 2}, {"cpus": 3}) == ["cpus 3 (requested: 2)"]


class OneLayer:
    """A source of layers that has one."""

    name = "file"

    def __init__(self, data: bytes) -> None:
        self.data = data

    def document(self, blob: Descriptor) -> bytes:
        raise NotImplementedError

    def open(self, blob: Descriptor) -> io.BytesIO:
        del blob
        return io.BytesIO(self.data)


def test_data_that_is_not_declared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    size = 40 << 20
    # A byte in each page takes the whole page.
    data, layer = packed((b"x" + bytes(4095)) * (size >> 12))
    for allocated, refused in ((4096, True), (size, False)):
        found = Part(size=size, allocated=allocated)
        wanted = replace(GOLDEN, parts={**GOLDEN.parts, "overlay": found})
        where: Any = None
        parts = _Parts(where, where, OneLayer(data), wanted, {"overlay": layer}, "ci", Quiet())
        if refused:
            with (
                pytest.raises(HostileImage, match="more data than it declares"),
                parts.staged("overlay"),
            ):
                pass
        else:
            with parts.staged("overlay") as path:
                assert path.stat().st_size == size


def test_the_size_of_data() -> None:
    assert sparse.data_size(bytes(PIECE)) == 0
    assert sparse.data_size(bytes(4095) + b"x" + bytes(4096) + b"x") == 4097


# --- the header of a disk ---


@pytest.mark.parametrize("options", ["", "cluster_size=512", "cluster_size=2M", "compat=0.10"])
def test_a_backing_file_is_taken_out_and_put_in(tmp_path: Path, options: str) -> None:
    def qemu_img(*words: str | Path) -> str:
        return subprocess.run(
            ["qemu-img", *words], check=True, capture_output=True, text=True
        ).stdout

    base, disk = tmp_path / "base.qcow2", tmp_path / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", base, "16M")
    extra = ["-o", options] if options else []
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", *extra, disk)
    with pytest.raises(HostileImage, match="backing file"):
        qcow2_tables.check(disk)

    def change(path: Path | None) -> None:
        data = disk.read_bytes()
        size = json.loads(qemu_img("info", "-U", "--output=json", disk))["cluster-size"]
        disk.write_bytes(
            set_backing(data[:size], None if path is None else str(path)) + data[size:]
        )

    change(None)
    assert str(base).encode() not in disk.read_bytes()
    qcow2_tables.check(disk)
    assert "backing file:" not in qemu_img("info", disk)
    other = base.rename(tmp_path / "other.qcow2")
    change(other)
    told = json.loads(qemu_img("info", "--output=json", disk))
    assert (told["backing-filename"], told["backing-filename-format"]) == (str(other), "qcow2")
    qemu_img("check", disk)


@given(data=st.binary(max_size=600))
def test_any_header_is_changed_or_refused(data: bytes) -> None:
    head = b"QFI\xfb\0\0\0\3" + data
    for cluster in (head, head.ljust(512, b"\0"), head[:512]):
        try:
            set_backing(cluster, "/x")
        except HostileImage:
            continue


def test_a_path_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    words = "qemu-img create -q -f qcow2 -o cluster_size=512".split()
    subprocess.run([*words, str(disk), "1M"], check=True)
    for path in ("/" + "x" * 600, "/" + "x" * 2000):
        with pytest.raises(HostileImage):
            set_backing(disk.read_bytes()[:512], path)


# --- signatures ---


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    directory = tmp_path_factory.mktemp("keys")

    def key(name: str) -> Path:
        path = directory / name
        if not path.exists():
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
            subprocess.run(words, check=True)
        return path

    return key


def test_a_signature_is_verified(keys: Callable[[str], Path], tmp_path: Path) -> None:
    ours = keys("ours")
    text = signature.sign(DIGEST, ours)
    other = signature.sign(DIGEST, keys("other"))
    public = ours.with_suffix(".pub")
    assert signature.verify(DIGEST, [other, text], public) == "golden"
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f'# ours\nann@example.org namespaces="armvm-golden" {public.read_text()}')
    assert signature.verify(DIGEST, [text], allowed) == "ann@example.org"
    for signatures in ([], [other], [b""], [b"x" * 1000]):
        with pytest.raises(SignatureInvalid, match="not signed"):
            signature.verify(DIGEST, signatures, public)
    with pytest.raises(SignatureInvalid):
        signature.verify("sha256:" + "1" * 64, [text], public)


def test_a_signature_for_another_purpose_is_refused(
    keys: Callable[[str], Path], tmp_path: Path
) -> None:
    message = tmp_path / "digest"
    message.write_text(f"{DIGEST}\n")
    words = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(keys("ours")), str(message)]
    subprocess.run(words, check=True)
    text = message.with_suffix(".sig").read_bytes()
    with pytest.raises(SignatureInvalid):
        signature.verify(DIGEST, [text], keys("ours").with_suffix(".pub"))


def test_missing_and_empty_keys(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not found"):
        signature.sign(DIGEST, tmp_path / "none")
    with pytest.raises(NotFound):
        signature.verify(DIGEST, [], tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError):
        signature.verify(DIGEST, [], tmp_path / "empty")


def test_a_key_that_cannot_sign_is_found_early(tmp_path: Path) -> None:
    key = tmp_path / "locked"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)]
    subprocess.run(words, check=True)
    with pytest.raises(CommandFailed, match="cannot sign with") as caught:
        signature.check_key(key)
    assert caught.value.hint == f"if it has a passphrase: ssh-add {key}, then --sign {key}.pub"


LONG = Path("a" * 300)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: opened(path, "file").__enter__(),
        lambda path: _check_target(path, force=False),
        lambda path: signature.sign(DIGEST, path),
        lambda path: signature.verify(DIGEST, [], path),
    ],
    ids=["import", "export", "sign", "signed-by"],
)
def test_paths_that_the_file_system_refuses(tmp_path: Path, use: Callable[[Path], object]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for path in (LONG, tmp_path / "loop/x", tmp_path / "file/x"):
        with pytest.raises((StorageError, NotFound)):
            use(path)


def test_a_full_cache_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with (
            pytest.raises(StorageError, match="cannot be used"),
            opened(io.BytesIO(bytes(3 << 20)), "standard input"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError), opened(io.BytesIO(), "standard input"):
        pass
    with pytest.raises(StorageError):
        blobs.directory()


def test_a_header_takes_as_much_of_a_hole_as_it_needs(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"], check=True)
    data, out = disk.read_bytes()[:100_000], io.BytesIO()
    head = _Head(out.write)
    head.feed(data)
    assert (head.waits, out.tell()) == ((2 << 20) - len(data), 0)
    head.feed(bytes(head.waits))
    assert (head.waits, out.getvalue()) == (0, data + bytes((2 << 20) - len(data)))


def test_media_types_are_valid() -> None:
    for kind in (MANIFEST, portable.ARTIFACT, portable.CONFIG, signature.MEDIA_TYPE):
        text = document.dump_index([Descriptor(media_type=kind, digest=DIGEST, size=1)])
        assert document.load_index(text, "x")[0].media_type == kind
