"""Ubuntu's supported LTS releases, read from its catalog.

The list says only what to ask for: each image is then resolved and verified by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from armvm.base.errors import FetchFailed
from armvm.images.fetch import json_document

_LTS = re.compile(r"([0-9]{2}\.04) LTS\Z")


def supported_lts(products: bytes, *, arch: str = "arm64") -> list[str]:
    """Return the versions (``24.04``) of the LTS releases for *arch* that are supported, newest
    first. Raises FetchFailed for a document that makes no sense, or has none.
    """
    try:
        entries = list(json_document.load(products)["products"].values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FetchFailed(
            "the image catalog cannot be understood", detail=str(error)[:200]
        ) from error
    found = set()
    for product in entries:
        if not isinstance(product, Mapping) or product.get("arch") != arch:
            continue
        title = product.get("release_title")
        named = _LTS.match(title) if isinstance(title, str) else None
        # "supported" ends with the standard support, years before the paid one (support_esm_eol).
        if named and product.get("supported") is True and product.get("versions"):
            found.add(named[1])
    if not found:
        raise FetchFailed(
            f"the image catalog has no supported LTS release for {arch}",
            hint="if ARMVM_MIRROR_UBUNTU is set, check that it names a mirror of the releases tree",
        )
    return sorted(found, reverse=True)
