"""Ubuntu's cloud images: released (the usual), ``@daily`` and ``@minimal``."""

from __future__ import annotations

from armvm.images.openpgp import Key
from armvm.images.streams import USUAL, Streams

#: Released images. The daily and the minimal tree lie beside it.
BASE = "https://cloud-images.ubuntu.com/releases/"

_KEYRING = "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg"

#: Who signs SHA256SUMS. The keys are in Ubuntu's package ubuntu-cloudimage-keyring.
KEYS = (
    Key(
        fingerprint="D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81",
        owner="UEC Image Automatic Signing Key",
        keyrings=(_KEYRING,),
    ),
    Key(
        fingerprint="4A3CE3CD565D7EB5C810E2B97FF3F408476CF100",
        owner="Ubuntu Cloud Image Builder",
        keyrings=(_KEYRING,),
    ),
)


def catalog(base: str = BASE) -> Streams:
    """Return the catalog on the server with the releases tree *base*.

    Where *base* is called ``releases``, the other trees are looked for beside it, as on
    Ubuntu's own server; otherwise below it.
    """
    root = base[: -len("releases/")] if base.endswith("/releases/") else base
    return Streams(
        name="ubuntu",
        trees={USUAL: base, "daily": f"{root}daily/", "minimal": f"{root}minimal/releases/"},
        distro="ubuntu",
        keys=KEYS,
        sums=True,
    )
