"""A machine's seed rewritten for a copy: with a new host name, and optionally a new identity.

The user's content stays. User-data other than cloud-config is passed on unchanged; armvm's
settings are then in the vendor-data, or in a part of their own, and are changed there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from armvm.base.errors import StorageError
from armvm.guest.cloudinit.archive import with_changed
from armvm.guest.cloudinit.documents import Documents, dump
from armvm.guest.identity import Identity

_CONFIG = "#cloud-config\n"
#: The semaphore name for cloud-init-per(1) that marks the new machine-id as set.
_MARK = "armvm-machine-id"
#: Moves the journal too, whose path contains the machine-id.
_MACHINE_ID = """
old=$(cat /etc/machine-id 2>/dev/null) new={id}
test "$old" != $new || exit 0
echo $new >/etc/machine-id && chmod 444 /etc/machine-id
if test -e /var/lib/dbus/machine-id -a ! -L /var/lib/dbus/machine-id; then
  echo $new >/var/lib/dbus/machine-id
fi
test -z "$old" -o ! -d /var/log/journal/$old || mv /var/log/journal/$old /var/log/journal/$new
"""


def renamed(files: Mapping[str, bytes], old: str, new: str) -> Documents:
    """Return the documents of a seed's *files* for the same machine under another name.

    Raises StorageError for a seed that armvm did not write.
    """

    def config(document: dict[str, Any]) -> None:
        if document.get("hostname") == old:
            document["hostname"] = new

    return _changed(files, config, lambda data: _named(data, new))


def reidentified(files: Mapping[str, bytes], old: str, new: str, identity: Identity) -> Documents:
    """Return the documents of a seed's *files* for a copy of a machine.

    cloud-init treats the copy as a new machine. Its host key is the identity's, and so is its
    machine-id: the UUID, as systemd would choose it. Raises StorageError for a seed that armvm
    did not write.
    """

    def config(document: dict[str, Any]) -> None:
        if document.get("hostname") == old:
            document["hostname"] = new
        if "ssh_keys" not in document:
            return  # the user's part: armvm's is the vendor-data
        document["ssh_keys"] = {
            "ed25519_private": identity.host_key.private,
            "ed25519_public": identity.host_key.public,
        }
        document["ssh_deletekeys"] = True
        script = _MACHINE_ID.format(id=identity.uuid.replace("-", ""))
        ours = ["cloud-init-per", "instance", _MARK, "sh", "-c", script.strip()]
        theirs = [one for one in document.get("bootcmd", []) if _MARK not in one]
        document["bootcmd"] = [ours, *theirs]

    def meta(data: dict[str, Any]) -> None:
        _named(data, new)
        data["instance-id"] = identity.instance_id

    return _changed(files, config, meta)


def _named(data: dict[str, Any], name: str) -> None:
    data["local-hostname"] = name


def _changed(
    files: Mapping[str, bytes],
    config: Callable[[dict[str, Any]], None],
    meta: Callable[[dict[str, Any]], None],
) -> Documents:
    import yaml

    def ours(text: str) -> str:
        document = yaml.safe_load(text) or {}
        config(document)
        return _CONFIG + dump(document)

    try:
        changed = {name: data.decode() for name, data in files.items()}
        for name in ("user-data", "vendor-data"):
            text = changed[name]
            changed[name] = ours(text) if text.startswith(_CONFIG) else with_changed(text, ours)
        data = yaml.safe_load(changed["meta-data"])
        meta(data)
    except (KeyError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise StorageError(
            "cannot read the seed: armvm did not write it", detail=str(error)
        ) from error
    return Documents(
        user_data=changed["user-data"],
        meta_data=dump(data),
        network_config=changed.get("network-config"),
        vendor_data=changed["vendor-data"],
    )
