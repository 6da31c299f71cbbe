"""Images in a registry that exists only as answers: what is verified, refused and recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from armvm.base.errors import Conflict, NotVerified, UsageError
from armvm.base.progress import Quiet
from armvm.images.cache.importing import import_file
from armvm.images.cache.store import Cache
from armvm.images.model import Verified
from armvm.images.oci.document import (
    EMPTY,
    EMPTY_DATA,
    Manifest,
    describe,
    dump_manifest,
)
from armvm.images.oci.reference import parse_target
from armvm.provision.image import registry
from armvm.provision.image.registry import ARTIFACT, DISK, pull
from armvm.settings.verify import Verify
from tests.images_tools import qcow2_image
from tests.support import armvm
from tests.unit import test_oci_registry
from tests.unit.test_oci_registry import Answer, Request, Server

serve = test_oci_registry.serve


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return qcow2_image(tmp_path / "disk.qcow2").read_bytes()


@pytest.fixture
def server(serve: Callable[..., Server], image: bytes) -> Server:
    """A registry with an image."""
    layer = describe(image, DISK)
    manifest = dump_manifest(
        Manifest(artifact_type=ARTIFACT, config=describe(EMPTY_DATA, EMPTY), layers=(layer,))
    )

    def answer(request: Request) -> Answer:
        return 200, {}, manifest if "/manifests/" in request.url else image

    return serve(answer)


def digest_of(server: Server) -> str:
    return server.registry().digest()


def get(place: str, *, policy: Verify | None = None, force: bool = False) -> Verified:
    return pull(place, None, force=force, policy=policy, progress=Quiet()).source.verified


def test_a_tag_does_not_satisfy_a_policy(server: Server) -> None:
    tag, digest = f"oci://{server.host}/tools:v1", digest_of(server)
    asked = len(server.requests)
    for policy in (Verify.SIGNATURE, Verify.DIGEST):
        with pytest.raises(NotVerified, match="has no digest") as caught:
            get(tag, policy=policy)
        assert "@sha256:HEX" in str(caught.value.hint)
        failed = armvm("image", "pull", tag, "--verify", policy.value).failed(8)
        assert "has no digest" in failed.err
    failed = armvm("image", "pull", tag, env={"ARMVM_VERIFY": "signature"}).failed(8)
    assert "verify = signature is required" in failed.err
    assert len(server.requests) == asked
    assert get(tag, policy=Verify.NONE) is Verified.NOTHING
    pinned = f"oci://{server.host}/tools@{digest}"
    # It is in the cache, and now it is verified.
    assert get(pinned, policy=Verify.SIGNATURE) is Verified.GIVEN
    assert get(tag) is Verified.GIVEN


def test_a_changed_image_is_pulled_again(server: Server, image: bytes) -> None:
    place = f"oci://{server.host}/tools@{digest_of(server)}"
    get(place)
    [entry] = Cache.default().entries()
    entry.path.write_bytes(b"x")
    get(place)
    assert entry.path.read_bytes() == image


def test_a_name_that_is_taken_is_found_before_the_download(server: Server, tmp_path: Path) -> None:
    other = qcow2_image(tmp_path / "other.qcow2")
    import_file(other, "tools", cache=Cache.default(), progress=Quiet())
    place = f"oci://{server.host}/tools:v1"
    with pytest.raises(Conflict, match="already exists"):
        get(place)
    assert [one.url for one in server.requests if "/blobs/" in one.url] == []
    get(place, force=True)


def test_a_digest_is_no_place_to_push_to() -> None:
    place = f"oci://ghcr.io/me/tools@sha256:{'0' * 64}"
    with pytest.raises(UsageError, match="cannot push to a digest"):
        parse_target(place)
    with pytest.raises(UsageError, match="cannot push to a digest"):
        registry.push("local:tools", place, Quiet())
    assert parse_target("oci://ghcr.io/me/tools").tag == "latest"
