"""The seed: a NoCloud ISO image labelled ``cidata``, made by pycdlib.

Source: cloud-init's documentation, "NoCloud": the label is ``cidata`` or ``CIDATA``; the files
are in the root directory. Linux reads the real names from Rock Ridge, others from Joliet.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from armvm.guest.cloudinit.documents import Documents

LABEL = "cidata"
#: Bytes of a golden's seed: until its clones boot again, their seeds cannot be larger. The largest
#: user-data (user_data.MAX_USER_DATA) fits, unless it has many multi-byte characters.
SEED_ROOM = 2 << 20


def seed_image(documents: Documents) -> bytes:
    """Return the ISO image with the four documents, a few hundred KiB."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for name, data in documents.files().items():
        iso.add_fp(
            io.BytesIO(data),
            len(data),
            iso_path=f"/{name.replace('-', '').upper()}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


def read_seed(image: bytes) -> Mapping[str, bytes]:
    """Return a seed's files by their Rock Ridge names: the inverse of `seed_image`."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    files = {}
    for child in iso.list_children(rr_path="/"):
        if child.is_file():
            name = child.rock_ridge.name().decode()
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, rr_path=f"/{name}")
            files[name] = out.getvalue()
    iso.close()
    return files
