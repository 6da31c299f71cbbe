"""Ubuntu's supported LTS releases, from its catalog.

The list only says which images to request: each is then resolved and verified separately.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from armvm.base.errors import FetchFailed
from armvm.images.fetch import json_document

_LTS = re.compile(r"([0-9]{2}\.04) LTS\Z")


def supported_lts(products: bytes, *, arch: str = "arm64") -> list[str]:
    """Return the versions (``24.04``) of the supported LTS releases for *arch*, newest first.

    Raises FetchFailed for an invalid document, or one without such a release.
    """
    try:
        entries = list(json_document.load(products)["products"].values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FetchFailed("the image catalog is invalid", detail=str(error)[:200]) from error
    found = set()
    for product in entries:
        if not isinstance(product, Mapping) or product.get("arch") != arch:
            continue
        title = product.get("release_title")
        named = _LTS.match(title) if isinstance(title, str) else None
        # "supported" ends with standard support, years before paid support (support_esm_eol).
        if named and product.get("supported") is True and product.get("versions"):
            found.add(named[1])
    if not found:
        raise FetchFailed(
            f"no supported LTS release for {arch} in the image catalog",
            hint="if ARMVM_MIRROR_UBUNTU is set, check that it is a mirror of the releases tree",
        )
    return sorted(found, reverse=True)
