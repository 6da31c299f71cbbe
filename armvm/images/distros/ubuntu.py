"""Ubuntu's cloud images: released (default), ``@daily`` and ``@minimal``."""

from __future__ import annotations

from armvm.images.distros.simplestreams import RELEASED
from armvm.images.distros.streams import USUAL, Streams
from armvm.images.trust.openpgp import Key
from armvm.images.trust.pinned import UBUNTU

#: Released images. The daily and minimal trees are beside it.
BASE = "https://cloud-images.ubuntu.com/releases/"

#: The content id of the daily products file. The minimal one has the same id and file name as the
#: released one (https://cloud-images.ubuntu.com/minimal/releases/streams/v1/).
DAILY = "com.ubuntu.cloud:daily:download"


def catalog(base: str = BASE, keys: tuple[Key, ...] = UBUNTU) -> Streams:
    """Return the catalog on the server with the releases tree *base*, signed by *keys*.

    If *base* ends in ``releases``, the other trees are expected beside it, as on Ubuntu's own
    server; otherwise below it.
    """
    root = base[: -len("releases/")] if base.endswith("/releases/") else base
    return Streams(
        name="ubuntu",
        trees={USUAL: base, "daily": f"{root}daily/", "minimal": f"{root}minimal/releases/"},
        distro="ubuntu",
        keys=keys,
        contents={USUAL: RELEASED, "daily": DAILY, "minimal": RELEASED},
    )
