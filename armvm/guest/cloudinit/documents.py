"""The cloud-init documents of a machine, merged as data from ``cloud-init/*.yaml``.

Source of the formats: cloud-init's documentation, "NoCloud", "User-data formats", "Network
config version 2".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from armvm.base.errors import ConfigError
from armvm.base.paths import resources
from armvm.guest.cloudinit.archive import MERGE_HOW, archive, with_ours
from armvm.guest.cloudinit.network_config import read_network_config
from armvm.guest.cloudinit.presets import preset_documents
from armvm.guest.cloudinit.user_data import kind, message, read_user_data
from armvm.guest.identity import Identity
from armvm.settings.machine import Machine
from armvm.settings.system import OperatingSystem

#: Prefixes of user-data that cannot hold a cloud-config.
_SCRIPTS = ("#!", "#cloud-boothook")
#: Lists that grow when two documents are merged; all other lists are replaced.
_GROWING = frozenset(
    {"users", "packages", "write_files", "runcmd", "bootcmd", "ssh_authorized_keys"}
)
#: Keys of a user's document for which modules.yaml does what the image's own lists do. Any other
#: key (``swap``, ``cloud_init_modules``, a distribution's own) leaves the image's lists unchanged.
_ORDERABLE = _GROWING | set(
    "hostname fqdn prefer_fqdn_over_hostname preserve_hostname manage_etc_hosts timezone locale "
    "keyboard ntp apt ca_certs groups user chpasswd password ssh_pwauth disable_root ssh ssh_keys "
    "ssh_deletekeys ssh_genkeytypes ssh_import_id growpart resize_rootfs package_update "
    "package_upgrade package_reboot_if_required phone_home power_state final_message "
    "random_seed no_ssh_fingerprints output".split()
)
#: Keys of a user's document that take effect before there is a network, or long after.
_OFFLINE = _ORDERABLE - {"bootcmd", "write_files"}


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The four files of a NoCloud seed, as text.

    ``network_config`` None leaves the network to cloud-init: DHCP on the first card.
    """

    user_data: str
    meta_data: str
    network_config: str | None
    vendor_data: str

    def files(self) -> dict[str, bytes]:
        """Return the seed's files by the names that NoCloud expects."""
        texts = {
            "user-data": self.user_data,
            "meta-data": self.meta_data,
            "network-config": self.network_config,
            "vendor-data": self.vendor_data,
        }
        return {name: text.encode() for name, text in texts.items() if text is not None}


def compose(
    machine: Machine,
    identity: Identity,
    user: str,
    *,
    system: OperatingSystem | None = None,
    clone: bool = False,
    portable: bool = False,
) -> Documents:
    """Return the documents of *machine*, whose user is called *user*.

    *system* is the image's system. An unknown one is treated like Debian and Ubuntu: systemd,
    netplan's patterns, their cloud-init modules.

    The documents for a *clone*, which is already running, stop cloud-init from removing the ssh
    host key before it rewrites it: a login may be in progress.

    *portable* user-data works with every data source of cloud-init, and needs none of the other
    documents: a script is combined with armvm's part.

    The user's own cloud-config is merged on top. A script is passed on unchanged; armvm's part
    goes into vendor-data, which cloud-init merges below it. But vendor-data's lists are
    replaced, so any other user-data, which may hold a cloud-config, becomes part of an archive
    whose last part is armvm's. Raises ConfigError for user-data that cloud-init would reject or
    that cannot be merged.
    """
    family = system.family if system else None
    netplan = system is None or system.netplan
    debian_like = family is None or family.debian_like
    ours = _cloud_config(machine, identity, user, system)
    if clone:
        ours["ssh_deletekeys"] = False
    else:  # a clone's golden already has its preset's packages
        for document in preset_documents(machine.preset, user, system):
            if machine.tuned:  # the image already has them
                document.pop("packages", None)
            ours = merge(ours, document)
    theirs = None if machine.user_data is None else read_user_data(machine.user_data)
    orderable = theirs is None or (isinstance(theirs, dict) and _ORDERABLE.issuperset(theirs))
    if debian_like and orderable:
        ours = merge(ours, _read("modules"))
    offline = theirs is None or (isinstance(theirs, dict) and _OFFLINE.issuperset(theirs))
    local = debian_like and offline and not portable
    if local:
        ours = merge(ours, _read("local"))
    vendor_data: dict[str, Any] = {}
    if not isinstance(theirs, str):
        usual = system.default_user if system else None
        user_data = _dump_config(merge(*_one_account(ours, theirs or {}, usual)))
    elif _is_script(theirs) and not portable:
        user_data, vendor_data = theirs, ours
    else:
        user_data = with_ours(theirs, _dump_config({**ours, "merge_how": MERGE_HOW}))
    return Documents(
        user_data=user_data,
        meta_data=dump(
            {
                "instance-id": identity.instance_id,
                "local-hostname": machine.name,
                **({"dsmode": "local"} if local else {}),
            }
        ),
        network_config=_network_config(machine, netplan=netplan),
        vendor_data=_dump_config(vendor_data),
    )


def _network_config(machine: Machine, *, netplan: bool) -> str | None:
    if machine.network_config is not None:
        return dump(read_network_config(machine.network_config))
    return dump(_read("network-config")) if netplan else None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return *above* merged into *below*: mappings key by key, known lists appended.

    A null leaves a list or a mapping unchanged.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        elif key in _GROWING and isinstance(old, list) and isinstance(value, list):
            merged[key] = [*old, *value]
        elif value is not None or not isinstance(old, list | dict):
            merged[key] = value
    return merged


def installing(machine: Machine, packages: Sequence[str]) -> Machine:
    """Return the machine with user-data that also installs *packages*."""
    ours = _dump_config({"package_update": True, "packages": list(packages)})
    texts = [ours] if machine.user_data is None else [ours, machine.user_data]
    return replace(machine, user_data=together(texts))


def together(texts: Sequence[str]) -> str:
    """Return several user-data as one: cloud-configs merged in order, then scripts.

    Raises ConfigError as `read_user_data` does, and if cloud-init would merge them by its own
    rules, which replace lists.
    """
    if len(texts) == 1:
        return texts[0]
    config: dict[str, Any] = {}
    parts = []
    for document in map(read_user_data, texts):
        if isinstance(document, str):
            parts.append(document)
        else:
            config = merge(config, document)
    if not parts:
        return _dump_config(config)
    unseen = [part for part in parts if not _is_script(part)]
    if len(unseen) + bool(config) > 1:
        raise ConfigError(
            "--user-data: a template, an include or an archive cannot be used with other files",
            detail="cloud-init would replace the lists of one file with those of the other",
            hint="merge them into one file; cloud-configs and scripts can be combined",
        )
    return archive([_dump_config(config), *parts] if config else parts).as_string()


def _is_script(text: str) -> bool:
    return message(text) is None and kind(text) in _SCRIPTS


#: Keys that allow logging in to an account with its password.
_PASSWORD = ("lock_passwd", "hashed_passwd")


def _one_account(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], usual: str | None
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return two documents of which only one has an entry for armvm's user.

    Of two entries, cloud-init uses the first one's values. Entries for the image's default user,
    called *usual*, which may be the same account, win over both: armvm adds its keys there, and
    the password, which the image's settings would lock (ug_util.normalize_users_groups).
    """
    account, *others = ours["users"]
    keys, entries = account["ssh_authorized_keys"], []
    for entry in theirs.get("users", ()):
        if isinstance(entry, dict):
            entry = _spelled(entry)
            if entry.get("name") == account["name"]:
                account = merge(account, entry)
                continue
            if entry.get("name", "default") == "default":
                entry = _with_keys(entry, keys)
        entries.append(entry)
    changed = {**theirs, "users": entries}
    default = theirs.get("user")
    told = {"name": default} if isinstance(default, str) and default else default or {}
    if isinstance(told, dict) and told.get("name", account["name"]) == account["name"]:
        told = _with_keys(_spelled(told), keys)
        password = {key: account[key] for key in _PASSWORD if "hashed_passwd" in account}
        if (told or any(map(_is_default, entries))) and told.get("name", usual) == account["name"]:
            told = {**password, **told}
        if told:
            changed["user"] = told
    return {**ours, "users": [account, *others]}, changed


def _is_default(entry: Any) -> bool:
    """Return whether an entry of `users` is, or contains, the image's default user."""
    if isinstance(entry, dict):
        return entry.get("name") == "default"
    names = entry.split(",") if isinstance(entry, str) else entry
    return "default" in [str(name).strip() for name in names]


def _spelled(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of `users` with cloud-init's spelling of its keys, and ssh keys as lists."""
    told = {key.replace("-", "_").strip(): value for key, value in entry.items()}
    keys = told.get("ssh_authorized_keys")
    return {**told, "ssh_authorized_keys": [keys]} if isinstance(keys, str) else told


def _with_keys(entry: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    if not isinstance(entry.get("ssh_authorized_keys"), list):
        return entry
    return merge({"ssh_authorized_keys": keys}, entry)


def _cloud_config(
    machine: Machine, identity: Identity, user: str, system: OperatingSystem | None
) -> dict[str, Any]:
    account = {"name": user, **_read("user"), "ssh_authorized_keys": list(machine.ssh_keys)}
    if system is not None and system.family is not None:
        account["groups"] = list(system.family.groups)
    systemd = system is None or system.family is None or system.family.systemd
    if system is not None and system.distro == "alpine":
        account |= _read("user-alpine")
        account["doas"] = [rule % {"user": user} for rule in account["doas"]]
    if machine.password_hash is not None:
        account |= {"lock_passwd": False, "hashed_passwd": machine.password_hash}
    config = merge(
        _read("user-data"),
        {
            "hostname": machine.name,
            "users": [account],
            "ssh_keys": {
                "ed25519_private": identity.host_key.private,
                "ed25519_public": identity.host_key.public,
            },
        },
    )
    # Without systemd, the console's getty is set up elsewhere, and systemctl would fail.
    if machine.autologin and systemd:
        config = merge(config, _autologin(user))
    return config if machine.motd else merge(config, _read("no-motd"))


def _autologin(user: str) -> dict[str, Any]:
    """Return the autologin document for a user (a name that is already checked)."""
    document = _read("autologin")
    for file in document["write_files"]:
        file["content"] = file["content"] % {"user": user}
    return document


def _read(name: str) -> dict[str, Any]:
    import yaml

    document: dict[str, Any] = yaml.safe_load(
        (resources("cloud-init") / f"{name}.yaml").read_text()
    )
    return document


def dump(document: Mapping[str, Any]) -> str:
    """Return a document as readable YAML."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes multi-line strings as blocks, so that the seed is readable."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        # PyYAML treats these as line ends and folds them, unless they are escaped.
        odd = any(mark in value for mark in "\x85\u2028\u2029\ufeff")
        style = '"' if odd else "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(dict(document), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _dump_config(document: Mapping[str, Any]) -> str:
    return "#cloud-config\n" + dump(document)
