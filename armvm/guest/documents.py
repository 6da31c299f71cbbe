"""The cloud-init documents of a machine, merged as data from ``cloud-init/*.yaml``.

Source of the formats: cloud-init's documentation, "NoCloud", "User-data formats", "Network
config version 2".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from armvm.errors import ConfigError
from armvm.guest.identity import Identity
from armvm.guest.preset_documents import preset_documents
from armvm.paths import resources
from armvm.spec.machine import Machine
from armvm.spec.system import OperatingSystem

#: The first characters of user-data that cloud-init takes and that is no cloud-config.
_OTHER_FORMATS = (
    "#!",
    "#include",
    "#cloud-boothook",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "#part-handler",
    "## template:",
    "Content-Type:",
    "MIME-Version:",
)
#: The largest user-data armvm takes, in characters: real documents have a thousandth of it.
MAX_USER_DATA = 1 << 20
#: Lists that grow when two documents are merged; all other lists are replaced.
_GROWING = frozenset(
    {"users", "packages", "write_files", "runcmd", "bootcmd", "ssh_authorized_keys"}
)
#: Keys of a user's document under which modules.yaml does what the image's own lists do. Any
#: other (``swap``, ``cloud_init_modules``, a distribution's own) leaves the image's lists alone.
_ORDERABLE = _GROWING | set(
    "hostname fqdn prefer_fqdn_over_hostname preserve_hostname manage_etc_hosts timezone locale "
    "keyboard ntp apt ca_certs groups user chpasswd password ssh_pwauth disable_root ssh ssh_keys "
    "ssh_deletekeys ssh_genkeytypes ssh_import_id growpart resize_rootfs package_update "
    "package_upgrade package_reboot_if_required phone_home power_state final_message "
    "random_seed no_ssh_fingerprints output".split()
)
#: Keys of a user's document that are of use before there is a network, or long after.
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
        """Return the seed's files by the names that NoCloud looks for."""
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
) -> Documents:
    """Return the documents of *machine*, whose user is called *user*.

    *system* is what is in the image. One that is not known is taken to be like Debian and
    Ubuntu: systemd, netplan's patterns, their cloud-init modules.

    Those for a *clone* that runs already keep cloud-init from removing the ssh host key before
    it writes it again: somebody may be logging in.

    The user's own cloud-config is merged on top. Another kind of user-data (a script, an
    #include) is passed on as it is, and what armvm has to say goes into vendor-data, which
    cloud-init merges below it. Raises ConfigError when the user-data is neither.
    """
    family = system.family if system else None
    netplan = system is None or system.netplan
    debian_like = family is None or family.debian_like
    ours = _cloud_config(machine, identity, user, system)
    if clone:
        ours["ssh_deletekeys"] = False
    else:  # a clone's golden has what its preset installs
        for document in preset_documents(machine.preset, user, system):
            if machine.tuned:  # they are in its image
                document.pop("packages", None)
            ours = merge(ours, document)
    theirs = None if machine.user_data is None else read_user_data(machine.user_data)
    orderable = theirs is None or (isinstance(theirs, dict) and _ORDERABLE.issuperset(theirs))
    if debian_like and orderable:
        ours = merge(ours, _read("modules"))
    offline = theirs is None or (isinstance(theirs, dict) and _OFFLINE.issuperset(theirs))
    local = debian_like and offline
    if local:
        ours = merge(ours, _read("local"))
    if isinstance(theirs, str):
        user_data, vendor_data = theirs, _dump_config(ours)
    else:
        user_data, vendor_data = _dump_config(merge(ours, theirs or {})), _dump_config({})
    return Documents(
        user_data=user_data,
        meta_data=dump(
            {
                "instance-id": identity.instance_id,
                "local-hostname": machine.name,
                **({"dsmode": "local"} if local else {}),
            }
        ),
        network_config=dump(_read("network-config")) if netplan else None,
        vendor_data=vendor_data,
    )


def read_user_data(text: str) -> dict[str, Any] | str:
    """Return a cloud-config document as a mapping, or text of another format unchanged.

    Raises ConfigError for anything that cloud-init would not take, with the line.
    """
    import yaml

    if len(text) > MAX_USER_DATA:
        raise ConfigError(f"--user-data is larger than {MAX_USER_DATA >> 20} MiB")
    text = text.removeprefix("\ufeff")  # cloud-init knows no format behind a byte order mark
    first = text.split("\n", 1)[0].strip()
    if first != "#cloud-config":
        if text.startswith(_OTHER_FORMATS):
            return text
        raise ConfigError(
            "--user-data is nothing that cloud-init takes",
            detail=f"its first line is {first[:80]!a}",
            hint="begin the file with the line #cloud-config, or with #! for a script",
        )
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(
            f"--user-data is not YAML: {where}{error.problem or error}",
            hint="check its indentation and quotes",
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"--user-data is not YAML: line {line}: {error.character:#04x} is no character for it"
        ) from error
    # PyYAML lets nonsense such as a date of month 13 or very deep nesting through to Python.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--user-data is not YAML: {type(error).__name__}: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError(
            "--user-data is YAML, but not a mapping of cloud-config keys",
            hint="for example: packages: [git]",
        )
    return document


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return *below* with *above* merged in: mappings key by key, known lists appended."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        elif key in _GROWING and isinstance(old, list) and isinstance(value, list):
            merged[key] = [*old, *value]
        else:
            merged[key] = value
    return merged


def _cloud_config(
    machine: Machine, identity: Identity, user: str, system: OperatingSystem | None
) -> dict[str, Any]:
    account = {"name": user, **_read("user"), "ssh_authorized_keys": list(machine.ssh_keys)}
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
    # Without systemd, the console's getty is set up elsewhere, and systemctl would fail the run.
    if machine.autologin and systemd:
        config = merge(config, _autologin(user))
    return config if machine.motd else merge(config, _read("no-motd"))


def _autologin(user: str) -> dict[str, Any]:
    """Return the autologin document with the user's name in it (checked: no odd characters)."""
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
    """Return a document as YAML that a person can read."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as blocks, so that a person can read the seed."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        # PyYAML folds these as if they were line ends, unless they are escaped.
        odd = any(mark in value for mark in "\x85\u2028\u2029\ufeff")
        style = '"' if odd else "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(dict(document), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _dump_config(document: Mapping[str, Any]) -> str:
    return "#cloud-config\n" + dump(document)
