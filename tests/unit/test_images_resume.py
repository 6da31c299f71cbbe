"""Interrupted downloads and resuming them; servers that send wrong data; concurrent downloads."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from armvm.base import process
from armvm.base.errors import (
    ArmvmError,
    DigestMismatch,
    FetchFailed,
    HostileImage,
    ImageError,
    StorageError,
    Unreachable,
)
from armvm.base.progress import Quiet
from armvm.images.cache.prune import PART_AGE, forget_parts
from armvm.images.cache.store import Cache
from armvm.images.fetch.http import Web
from armvm.images.fetch.part import Origin
from armvm.images.model import FromImage, Image, Verified
from armvm.images.obtain import obtain
from tests.image_server import Fault, ImageServer
from tests.images_tools import Heard, Sleeps, leftovers, qcow2_image, quick
from tests.support import Result, armvm, spawn

pytestmark = pytest.mark.unit

NAME = "disk.img"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qcow2_image(tmp_path_factory.mktemp("image") / NAME)


@pytest.fixture
def server(tmp_path: Path, picture: Path) -> Iterator[ImageServer]:
    root = tmp_path / "www"
    root.mkdir()
    os.link(picture, root / NAME)
    with ImageServer(root) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def digest_of(path: Path, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, path.read_bytes()).hexdigest()}"


def source(server: ImageServer, *, digest: str | None = "", size: int | None = None) -> FromImage:
    """What a catalog says of the picture; *digest* None is a URL that nothing is promised of."""
    if digest == "":
        digest = digest_of(server.root / NAME)
    location = server.url + NAME
    return FromImage(reference="pic", location=location, digest=digest, size=size)


def pull(
    server: ImageServer,
    cache: Cache,
    *,
    digest: str | None = "",
    size: int | None = None,
    web: Web | None = None,
    progress: Heard | None = None,
) -> Image:
    wanted = source(server, digest=digest, size=size)
    return obtain(wanted, cache=cache, progress=progress or Quiet(), web=web or quick())


def fails(
    server: ImageServer,
    cache: Cache,
    *,
    digest: str | None = "",
    size: int | None = None,
    web: Web | None = None,
    kept: bool = False,
) -> ArmvmError:
    """Pull, expect an error, and see whether a part is left: nothing else may be."""
    with pytest.raises(ArmvmError) as caught:
        pull(server, cache, digest=digest, size=size, web=web)
    left = leftovers(cache.root)
    if kept:
        assert [name.rpartition(".part")[2] for name in left] == ["", ".json"]
        assert {(cache.root / name).stat().st_mode & 0o777 for name in left} == {0o600}
    else:
        assert left == []
    return caught.value


def whole(image: Image, cache: Cache, picture: Path) -> None:
    """Hold an image against what was published; nothing besides it is in the cache."""
    assert image.path.read_bytes() == picture.read_bytes()
    assert image.digest == digest_of(picture)
    assert leftovers(cache.root) == [image.path.with_suffix(".json").name, image.path.name]


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_fetch_goes_on_at_every_tenth(
    server: ImageServer, cache: Cache, picture: Path, tenth: int
) -> None:
    at = picture.stat().st_size * tenth // 10
    server.fault(NAME, Fault(cut=at), times=1)
    server.fault(NAME, Fault(reset=True), times=3)
    fails(server, cache, kept=True)
    progress = Heard()
    whole(pull(server, cache, progress=progress), cache, picture)
    # A try that has brought more than a MiB lets the tries begin anew: the last one got through.
    assert server.ranges(NAME)[0] is None
    assert set(server.ranges(NAME)[1:]) == {f"bytes={at}-"}
    assert 206 in server.statuses
    assert progress.done == picture.stat().st_size


def test_one_fetch_goes_on_by_itself(server: ImageServer, cache: Cache, picture: Path) -> None:
    sleeps = Sleeps()
    for cut in (700_000, 1_500_000, 10):
        server.fault(NAME, Fault(cut=cut), times=1)
    whole(pull(server, cache, web=quick(sleeps)), cache, picture)
    assert server.ranges(NAME) == [None, "bytes=700000-", "bytes=2200000-", "bytes=2200010-"]
    # More than a MiB came in between: the tries counted anew.
    assert sleeps == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("how", ["etag", "date"])
def test_a_changed_file_starts_over(
    server: ImageServer, cache: Cache, tmp_path: Path, how: str
) -> None:
    old = Fault(cut=1_000_000, etag=None if how == "etag" else "")
    server.fault(NAME, old, times=1)
    server.fault(NAME, Fault(reset=True), times=3)
    fails(server, cache, digest="sha256:" + "0" * 64, kept=True)
    newer = qcow2_image(tmp_path / "newer.img")
    os.utime(newer, (1_700_000_000, 1_700_000_000))
    newer.replace(server.root / NAME)
    for part in cache.root.glob(".*.part*"):  # as if that had been asked for with this digest
        key = cache.part(digest_of(server.root / NAME)).path.name
        part.rename(cache.root / part.name.replace(part.name.partition(".part")[0] + ".part", key))
    image = pull(server, cache)
    whole(image, cache, server.root / NAME)
    assert server.ranges(NAME)[-1] == "bytes=1000000-"
    assert server.statuses[-1] == 200


def test_a_changed_file_with_an_old_date_is_noticed_by_its_digest(
    server: ImageServer, cache: Cache, picture: Path
) -> None:
    part = cache.part(digest_of(picture))
    date = formatdate(picture.stat().st_mtime, usegmt=True)
    with part.open() as file:
        file.write(random.Random(0).randbytes(500_000))
    part.describe(
        Origin.of(server.url + NAME, total=picture.stat().st_size, etag=None, modified=date)
    )
    progress = Heard()
    server.fault(NAME, Fault(etag=""))
    whole(pull(server, cache, progress=progress), cache, picture)
    assert server.statuses == [206, 200]
    assert "restarting" in progress.warned[0]


def test_a_whole_part_is_not_fetched_again(
    server: ImageServer, cache: Cache, picture: Path
) -> None:
    size = picture.stat().st_size
    part = cache.part(digest_of(picture))
    with part.open() as file:
        file.write(picture.read_bytes())
    part.describe(Origin.of(server.url + NAME, total=size, etag='"x"', modified=None))
    whole(pull(server, cache), cache, picture)
    assert server.requests == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(no_range=True),
        Fault(content_range="bytes 5-9/10"),
        Fault(content_range="nonsense"),
        Fault(content_range="bytes 1000000-99999999999/*"),
        Fault(status=416),
    ],
)
def test_servers_that_cannot_send_the_rest(
    server: ImageServer, cache: Cache, picture: Path, fault: Fault
) -> None:
    server.fault(NAME, Fault(cut=1_000_000), times=1)
    server.fault(NAME, fault, times=1)
    whole(pull(server, cache), cache, picture)
    assert server.ranges(NAME)[:2] == [None, "bytes=1000000-"]
    assert server.statuses[-1] == 200


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_a_fetch_starts_over(
    server: ImageServer, cache: Cache, picture: Path, etag: str
) -> None:
    server.fault(NAME, Fault(cut=1_000_000, etag=etag, no_date=True), times=1)
    whole(pull(server, cache), cache, picture)
    assert server.ranges(NAME) == [None, None]


def test_what_nothing_is_promised_of_goes_on_by_a_strong_etag_only(
    server: ImageServer, cache: Cache, picture: Path
) -> None:
    server.fault(NAME, Fault(cut=500_000), times=1)
    server.fault(NAME, Fault(reset=True), times=3)
    fails(server, cache, digest=None, kept=True)
    pull(server, cache, digest=None)
    assert server.ranges(NAME)[-1] == "bytes=500000-"
    other = Cache(cache.root / "other")
    server.fault(NAME, Fault(cut=500_000, etag=""), times=1)
    server.fault(NAME, Fault(reset=True), times=3)
    fails(server, other, digest=None)
    pull(server, other, digest=None)
    assert server.ranges(NAME)[-1] is None


def test_pieces_that_do_not_fit_together_are_fetched_as_one(
    server: ImageServer, cache: Cache, picture: Path
) -> None:
    """The file is replaced within the second that its date tells, in the middle of one fetch."""
    date = Fault(cut=1_000_000, etag="")
    other = bytes(len(picture.read_bytes()))
    (server.root / NAME).unlink()
    (server.root / NAME).write_bytes(other)
    when = picture.stat().st_mtime_ns
    os.utime(server.root / NAME, ns=(when, when))
    server.fault(NAME, date, times=1)

    class Swap(Heard):
        """Puts the right file there as soon as the first try is known to have failed."""

        def warn(self, text: str) -> None:
            super().warn(text)
            picture_now = server.root / NAME
            picture_now.unlink()
            os.link(picture, picture_now)

    server.fault(NAME, Fault(etag=""))
    progress = Swap()
    whole(pull(server, cache, digest=digest_of(picture), progress=progress), cache, picture)
    assert server.statuses == [200, 206, 200]
    assert "does not match its digest" in progress.warned[1]


def test_after_a_restart_of_the_host_only_a_digest_vouches() -> None:
    told = {"total": 9, "etag": '"e"', "modified": None}
    here = Origin.of("http://a/", total=9, etag='"e"', modified=None)
    before = Origin(url=here.url, boot="another", **told)  # type: ignore[arg-type]
    assert here.continues("http://a/", promised=False)
    assert not before.continues("http://a/", promised=False)
    assert before.continues("http://a/", promised=True)
    assert not before.continues("http://b/", promised=True)


@pytest.mark.parametrize(
    "note", ["", "[]", "null", '{"url": 1}', "{", '{"total": "x"}', "[" * 9999]
)
def test_a_note_that_makes_no_sense(
    server: ImageServer, cache: Cache, picture: Path, note: str
) -> None:
    part = cache.part(digest_of(picture))
    with part.open() as file:
        file.write(b"old")
    part.note.write_text(note)
    whole(pull(server, cache), cache, picture)
    assert server.ranges(NAME) == [None]


def test_a_part_larger_than_the_whole(server: ImageServer, cache: Cache, picture: Path) -> None:
    part = cache.part(digest_of(picture))
    with part.open() as file:
        file.write(picture.read_bytes() + b"more")
    total = picture.stat().st_size
    part.describe(Origin.of(server.url + NAME, total=total, etag='"e"', modified=None))
    whole(pull(server, cache), cache, picture)


def test_a_server_that_lies_about_its_length(server: ImageServer, cache: Cache) -> None:
    size = (server.root / NAME).stat().st_size
    server.fault(NAME, Fault(length=size + 1000))  # and ends after the file
    assert isinstance(fails(server, cache, digest=None), FetchFailed)
    assert server.statuses == [200, 416, 200, 416]  # it fetches the whole again, but not for ever
    server.mend()
    server.fault(NAME, Fault(length=size - 1000))  # what comes behind that is not read
    error = fails(server, cache)
    assert isinstance(error, DigestMismatch)
    server.mend()
    server.fault(NAME, Fault(length=size + 1000))
    assert "longer than expected" in fails(server, cache, size=size).message


def test_a_tampered_body_leaves_nothing(server: ImageServer, cache: Cache, picture: Path) -> None:
    data = bytearray(picture.read_bytes())
    data[2_000_000] ^= 1
    server.fault(NAME, Fault(body=bytes(data)))
    assert isinstance(fails(server, cache), DigestMismatch)
    # Also where it was tampered with between the two halves: the whole is fetched once more.
    server.fault(NAME, Fault(body=bytes(data), etag='"same"', cut=1_000_000), times=1)
    server.fault(NAME, Fault(body=bytes(data), etag='"same"', reset=True), times=3)
    fails(server, cache, kept=True)
    server.fault(NAME, Fault(body=bytes(data), etag='"same"'))
    assert isinstance(fails(server, cache), DigestMismatch)
    assert server.statuses[-2:] == [206, 200]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_gone_takes_its_part_along(
    server: ImageServer, cache: Cache, status: int
) -> None:
    server.fault(NAME, Fault(cut=1_000_000), times=1)
    server.fault(NAME, Fault(status=status))
    assert str(status) in fails(server, cache).message
    assert server.count(NAME) == 2


def test_ctrl_c_keeps_what_has_come(server: ImageServer, cache: Cache, picture: Path) -> None:
    server.fault(NAME, Fault(chunk_delay=0.01), times=1)
    with pytest.raises(KeyboardInterrupt):
        pull(server, cache, progress=Heard(interrupt_at=1 << 20))
    part = cache.part(digest_of(picture))
    have = part.size()
    assert have >= 1 << 20
    whole(pull(server, cache), cache, picture)
    assert server.ranges(NAME)[-1] == f"bytes={have}-"


def test_a_slow_loris_ends_by_a_time_out(server: ImageServer, cache: Cache) -> None:
    server.fault(NAME, Fault(drip=0.05))
    error = fails(server, cache, web=quick(slow_rate=100.0, slow_window=0.5), kept=True)
    assert isinstance(error, Unreachable)
    assert "too slow" in error.message
    assert server.count(NAME) == 4


def test_a_slow_but_honest_server_is_waited_for(
    server: ImageServer, cache: Cache, picture: Path
) -> None:
    server.fault(NAME, Fault(chunk_delay=0.03))
    whole(pull(server, cache, web=quick(slow_rate=1024.0, slow_window=0.8)), cache, picture)
    assert server.count(NAME) == 1


def test_silence_in_the_middle_is_tried_again(
    server: ImageServer, cache: Cache, picture: Path
) -> None:
    server.fault(NAME, Fault(chunk_delay=5.0), times=1)
    whole(pull(server, cache, web=quick(read_timeout=1.0)), cache, picture)
    assert server.ranges(NAME) == [None, "bytes=65536-"]


def test_retry_after_is_kept_to(server: ImageServer, cache: Cache) -> None:
    sleeps = Sleeps()
    late = formatdate(time.time() + 30, usegmt=True)
    for after in ("7", late, "99999"):
        server.fault(NAME, Fault(status=503, retry_after=after), times=1)
    pull(server, cache, web=quick(sleeps))
    assert sleeps[0] == 7
    assert 25 < sleeps[1] <= 30
    assert sleeps[2] == 120  # no longer
    for after in ("nonsense", "-5", "Mon, 99 Foo 2026"):
        server.fault("other", Fault(status=429, retry_after=after), times=1)
    sleeps.clear()
    missing = FromImage(reference="x", location=server.url + "other")
    with pytest.raises(FetchFailed):
        obtain(missing, cache=cache, progress=Quiet(), web=quick(sleeps))
    assert sleeps == [1.0, 2.0, 4.0]


def test_redirects_carry_no_password_to_another_host(
    server: ImageServer, cache: Cache, picture: Path, tmp_path: Path
) -> None:
    with ImageServer(server.root) as other:
        server.fault("moved", Fault(status=302, location=other.url + NAME))
        server.fault("here", Fault(status=307, location=f"/{NAME}"))
        for path, behind in (("moved", other), ("here", server)):
            url = f"{server.url.replace('//', '//me:s3cret@')}{path}"
            wanted = FromImage(reference="x", location=url, digest=digest_of(picture))
            own = Cache(tmp_path / path)
            whole(obtain(wanted, cache=own, progress=Quiet(), web=quick()), own, picture)
            sent = ["Authorization" in headers for headers in server.headers]
            assert sent[0]
            assert ("Authorization" in behind.headers[-1]) == (behind is server)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "data:,x", "gopher://x"])
def test_redirects_to_other_schemes(server: ImageServer, cache: Cache, target: str) -> None:
    server.fault(NAME, Fault(status=302, location=target))
    assert "redirects to" in fails(server, cache).message


# --- digests --------------------------------------------------------------------------------


def test_a_sha512_is_checked_and_found_again(
    server: ImageServer, cache: Cache, picture: Path
) -> None:
    promised = digest_of(picture, "sha512")
    image = pull(server, cache, digest=promised)
    whole(image, cache, picture)
    assert cache.entries()[0].published == promised
    assert pull(server, cache, digest=promised).path == image.path
    assert pull(server, cache).path == image.path
    assert len(server.requests) == 1
    fails_with = "sha512:" + "0" * 128
    assert isinstance(fails(server, Cache(cache.root / "b"), digest=fails_with), DigestMismatch)
    assert cache.find(fails_with) is None


# --- room -----------------------------------------------------------------------------------


def test_only_what_is_missing_needs_room(server: ImageServer, tmp_path: Path) -> None:
    size = (server.root / NAME).stat().st_size
    free = [100 << 20]
    cache = Cache(tmp_path / "cache", free=lambda _: free[0])
    server.fault(NAME, Fault(cut=2_000_000), times=1)
    server.fault(NAME, Fault(reset=True), times=3)
    fails(server, cache, kept=True)
    free[0] = (64 << 20) + size - 2_000_001
    assert isinstance(fails(server, cache, kept=False), StorageError)
    free[0] = 100 << 20
    server.fault(NAME, Fault(cut=2_000_000), times=1)
    server.fault(NAME, Fault(reset=True), times=3)
    fails(server, cache, kept=True)
    free[0] = (64 << 20) + size - 2_000_000
    pull(server, cache)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB: less than the picture."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "armvm-test", place],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("name", [NAME, "disk.img.gz"])
def test_a_full_disk(server: ImageServer, small_disk: Path, name: str) -> None:
    packed(server, "gzip").rename(server.root / "disk.img.gz")
    cache = Cache(small_disk / "cache", free=lambda _: 1 << 40)  # it was full of promises
    wanted = FromImage(reference="x", location=server.url + name)
    with pytest.raises(StorageError) as caught:
        obtain(wanted, cache=cache, progress=Quiet(), web=quick())
    assert os.strerror(errno.ENOSPC) in caught.value.message
    assert "image prune" in (caught.value.hint or "")
    assert leftovers(cache.root) == []
    honest = Cache(small_disk / "cache")
    with pytest.raises(StorageError, match="free"):
        obtain(wanted, cache=honest, progress=Quiet(), web=quick())
    assert leftovers(cache.root) == []


# --- packed images --------------------------------------------------------------------------


def packed(server: ImageServer, tool: str) -> Path:
    """Pack the picture, in two streams after each other, which all three formats allow."""
    data = (server.root / NAME).read_bytes()
    half = len(data) // 2
    streams = [process.run([tool, "-c"], input=one).stdout for one in (data[:half], data[half:])]
    path = server.root / f"{NAME}.{tool}"
    path.write_bytes(b"".join(streams))
    return path


@pytest.mark.parametrize("tool", ["gzip", "xz", "zstd"])
@pytest.mark.parametrize("cut", [None, 0, 3, 1_000_000])
def test_a_packed_image_is_unpacked_on_its_way(
    server: ImageServer, cache: Cache, picture: Path, tool: str, cut: int | None
) -> None:
    file = packed(server, tool)
    if cut is not None:
        server.fault(file.name, Fault(cut=cut), times=1)
    wanted = FromImage(
        reference="x", location=server.url + file.name, digest=digest_of(file, "sha512")
    )
    image = obtain(wanted, cache=cache, progress=Quiet(), web=quick())
    assert image.path.read_bytes() == picture.read_bytes()
    assert image.digest == digest_of(file)
    entry = cache.entries()[0]
    assert (entry.digest, entry.content) == (digest_of(file), digest_of(picture))
    assert len(leftovers(cache.root)) == 2
    assert obtain(wanted, cache=cache, progress=Quiet(), web=quick()).path == image.path
    if cut:
        assert server.ranges(file.name) == [None, f"bytes={cut}-"]


@pytest.mark.parametrize("tool", ["gzip", "xz", "zstd"])
def test_a_packed_part_goes_on_in_another_process(
    server: ImageServer, cache: Cache, picture: Path, tool: str
) -> None:
    file = packed(server, tool)
    wanted = FromImage(reference="x", location=server.url + file.name, digest=digest_of(file))
    server.fault(file.name, Fault(cut=1_000_000), times=1)
    server.fault(file.name, Fault(reset=True), times=3)
    with pytest.raises(ImageError):
        obtain(wanted, cache=cache, progress=Quiet(), web=quick())
    image = obtain(wanted, cache=cache, progress=Quiet(), web=quick())
    assert image.path.read_bytes() == picture.read_bytes()
    assert server.ranges(file.name)[-1] == "bytes=1000000-"


@pytest.mark.parametrize("tool", ["gzip", "xz", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_broken_packing(server: ImageServer, cache: Cache, tool: str, damage: str) -> None:
    file = packed(server, tool)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        del data[-20:]
    else:
        data[len(data) // 4] ^= 0x55
    file.write_bytes(data)
    wanted = FromImage(reference="x", location=server.url + file.name)
    with pytest.raises(HostileImage):
        obtain(wanted, cache=cache, progress=Quiet(), web=quick())
    assert leftovers(cache.root) == []


# --- real processes -------------------------------------------------------------------------


def environment(cache: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(cache), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def url_of(server: ImageServer) -> str:
    digest = digest_of(server.root / NAME).removeprefix("sha256:")
    return f"{server.url}{NAME}#sha256={digest}"


def wait_for_part(images: Path, size: int) -> Path:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for part in images.glob(".*.part"):
            if part.stat().st_size >= size:
                return part
        time.sleep(0.02)
    raise AssertionError("nothing was fetched")


@pytest.mark.parametrize("count", [2, 8])
def test_concurrent_pulls_fetch_once(
    server: ImageServer, tmp_path: Path, picture: Path, count: int
) -> None:
    server.fault(NAME, Fault(chunk_delay=0.15))  # about 7 s: all of them are there by then
    env = environment(tmp_path / "cache")
    pulls = [spawn("image", "pull", url_of(server), "--json", env=env) for _ in range(count)]
    ends = [one.communicate(timeout=110) for one in pulls]
    assert [one.returncode for one in pulls] == [0] * count, ends
    paths = {json.loads(out)["path"] for out, _ in ends}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == picture.read_bytes()
    assert server.count(NAME) == 1
    waited = [err for _, err in ends if "another armvm process that is downloading" in err]
    assert len(waited) == count - 1
    assert any("% of 3." in err for err in waited), waited
    assert len(leftovers(tmp_path / "cache" / "armvm" / "images")) == 2


def test_killed_in_the_middle_the_one_that_waits_goes_on(
    server: ImageServer, tmp_path: Path, picture: Path
) -> None:
    server.fault(NAME, Fault(chunk_delay=0.2), times=1)
    env = environment(tmp_path / "cache")
    images = tmp_path / "cache" / "armvm" / "images"
    first = spawn("image", "pull", url_of(server), env=env)
    wait_for_part(images, 200_000)
    second = spawn("image", "pull", url_of(server), "--json", env=env)
    assert second.stderr is not None
    assert "another armvm process that is downloading" in second.stderr.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    out, err = second.communicate(timeout=90)
    assert second.returncode == 0, err
    assert Path(json.loads(out)["path"]).read_bytes() == picture.read_bytes()
    asked = server.ranges(NAME)
    assert asked[0] is None
    assert asked[1] is not None
    assert int(asked[1].removeprefix("bytes=").rstrip("-")) >= 200_000
    assert len(leftovers(images)) == 2


def pull_again(server: ImageServer, cache: Path) -> Result:
    return armvm("image", "pull", url_of(server), "--json", env=environment(cache))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_by_a_signal_the_next_one_goes_on(
    server: ImageServer, tmp_path: Path, picture: Path, number: signal.Signals
) -> None:
    server.fault(NAME, Fault(chunk_delay=0.2), times=1)
    first = spawn("image", "pull", url_of(server), env=environment(tmp_path / "cache"))
    part = wait_for_part(tmp_path / "cache" / "armvm" / "images", 300_000)
    first.send_signal(number)
    first.communicate(timeout=60)
    assert first.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert part.stat().st_mode & 0o777 == 0o600
    have = part.stat().st_size
    done = pull_again(server, tmp_path / "cache").ok()
    assert Path(done.json["path"]).read_bytes() == picture.read_bytes()
    assert server.ranges(NAME) == [None, f"bytes={have}-"]


# --- what is left half-fetched --------------------------------------------------------------


def test_old_parts_are_forgotten_new_and_held_ones_are_not(cache: Cache) -> None:
    old, new, held = (cache.part(key) for key in ("old", "new", "held"))
    for part in (old, new, held):
        with part.open() as file:
            file.write(b"12345")
        part.describe(Origin.of("http://x/", total=9, etag='"e"', modified=None))
    past = time.time() - PART_AGE - 1
    for part in (old, held):
        os.utime(part.path, (past, past))
        os.utime(part.note, (past, past))
    with cache.lock("held", on_wait=lambda: None):
        assert forget_parts(cache, dry=True) == {old.path: 5}
        assert old.size() == 5
        assert forget_parts(cache) == {old.path: 5}
        assert (old.size(), new.size(), held.size()) == (0, 5, 5)
        assert not old.note.exists()
    assert forget_parts(cache, age=0.0) == {new.path: 5, held.path: 5}
    assert leftovers(cache.root) == []


def test_verified_is_what_the_source_says(server: ImageServer, cache: Cache) -> None:
    image = pull(server, cache, digest=None)
    assert image.source.verified is Verified.NOTHING
