"""The seed: an ISO that cloud-init recognises, with four files and nothing else."""

from __future__ import annotations

import io

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armvm.guest.cloudinit.documents import Documents
from armvm.guest.cloudinit.seed import LABEL, read_seed, seed_image

NAMES = ["meta-data", "network-config", "user-data", "vendor-data"]
DOCUMENTS = Documents(
    user_data="#cloud-config\nhostname: é\n",
    meta_data="instance-id: iid-1\n",
    network_config="version: 2\n",
    vendor_data="#cloud-config\n{}\n",
)


@pytest.fixture(scope="module")
def image() -> bytes:
    return seed_image(DOCUMENTS)


def test_a_seed_is_read_back(image: bytes) -> None:
    assert read_seed(image) == DOCUMENTS.files()


def test_the_volume_descriptor_says_cidata(image: bytes) -> None:
    """Straight from the bytes, as blkid reads them: ECMA-119, 8.4."""
    descriptor = image[16 * 2048 : 17 * 2048]
    assert descriptor[0] == 1
    assert descriptor[1:6] == b"CD001"
    assert descriptor[40:72].rstrip(b" ") == LABEL.encode() == b"cidata"
    assert int.from_bytes(descriptor[128:130], "little") == 2048
    blocks = int.from_bytes(descriptor[80:84], "little")
    assert blocks * 2048 == len(image)


@pytest.mark.parametrize("way", ["rr_path", "joliet_path"])
def test_both_trees_have_the_names_that_cloud_init_opens(image: bytes, way: str) -> None:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    found = []
    for child in iso.list_children(**{way: "/"}):
        if child.is_file():
            name = child.file_identifier()
            found.append(
                child.rock_ridge.name().decode() if way == "rr_path" else name.decode("utf-16-be")
            )
    iso.close()
    assert sorted(found) == NAMES


def test_a_seed_is_small(image: bytes) -> None:
    assert len(image) < 400 << 10


@settings(max_examples=20)
@given(st.text(), st.text(max_size=5000))
def test_any_text_arrives(user_data: str, vendor_data: str) -> None:
    documents = Documents(
        user_data=user_data, meta_data="", network_config="x" * 2048, vendor_data=vendor_data
    )
    assert read_seed(seed_image(documents)) == documents.files()
