"""Read a fleet file: the machines that `armvm apply` creates on several hosts.

::

    fleet = "lab"

    [machines.db]
    on = "lab1"
    image = "debian:12"
    mem = "4G"

    [machines.job]
    each = ["lab1", "lab2"]
    count = 2
    from = "ci"

A table is one machine with its name; with ``count``, the machines NAME-01, NAME-02, …; with
``each``, NAME-HOST on each host; with both, NAME-HOST-01, …. So names differ on all hosts, and
neither another host nor a larger count changes the name of a machine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from armvm.base.errors import ArmvmError, ConfigError, NotFound, PermissionDenied
from armvm.settings.config_file import ConfigFile, read_toml
from armvm.settings.disks import ExtraDisk, named, read_disk
from armvm.settings.layers import Layer, resolve
from armvm.settings.names import check_machine_name, check_new_name, check_object_name, shown
from armvm.settings.presets import preset_names
from armvm.settings.table import SETTINGS
from armvm.settings.urls import without_login
from armvm.settings.user_path import absolute, given_path

#: Keys of the file above its tables.
_TOP_LEVEL = ("fleet", "[machines.NAME]")
#: Keys of a machine's table beside the settings.
_PLACING = (
    "on", "each", "count", "from", "preset", "pool", "ssh-key", "user-data", "network-config",
    "add-disk",
)  # fmt: skip
MAX_COUNT = 1000
#: What an image reference begins with if it is a path relative to the file.
_RELATIVE = ("./", "../", "~")


@dataclass(frozen=True, kw_only=True)
class Group:
    """A table: what its machines have in common.

    ``values`` are settings by key, not parsed; ``place`` names file and table in errors. ``image``
    in ``values`` and the paths are absolute if they are files.
    """

    table: str
    place: str
    values: Mapping[str, Any]
    golden: str | None = None
    preset: str | None = None
    pool: str | None = None
    ssh_keys: tuple[Path, ...] = ()
    user_data: tuple[Path, ...] = ()
    disks: tuple[ExtraDisk, ...] = ()
    network_config: Path | None = None

    @property
    def layer(self) -> Layer:
        """The settings as a layer."""
        return Layer(origin=self.place, values=self.values, check=True)

    @property
    def source(self) -> str | None:
        """What the machines are made from, as the file says it; None: the default image.

        A URL is without login and query, as other users of the host can read it.
        """
        if self.golden is not None:
            return f"golden {self.golden}"
        image = self.values.get("image")
        return without_login(image) if image is not None and "://" in image else image


@dataclass(frozen=True, kw_only=True)
class FleetMachine:
    """A machine that should exist; ``on`` None means the default connection."""

    name: str
    on: str | None
    group: Group


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A fleet file."""

    name: str
    path: Path
    machines: tuple[FleetMachine, ...] = field(default=())


def read_fleet(path: Path, hosts: Collection[str]) -> Fleet:
    """Return the fleet in a file; *hosts* are the names of the known hosts.

    Raises NotFound and PermissionDenied for the file, ConfigError with file, table and key for its
    content.
    """
    try:
        document = read_toml(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"file {shown(str(path))} not found",
            hint="write a fleet file, or name one: armvm apply FILE",
        ) from error
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot read {path}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return _Reader(ConfigFile(path=path, document=document), hosts).fleet()


class _Reader:
    """The tables of one fleet file."""

    def __init__(self, file: ConfigFile, hosts: Collection[str]) -> None:
        self.file, self.hosts = file, hosts
        self.directory = absolute(file.path).parent

    def fleet(self) -> Fleet:
        document = self.file.document
        for key in document:
            if key not in ("fleet", "machines"):
                self.file.refuse((), key, "unknown entry", _TOP_LEVEL)
        if "fleet" not in document:
            self.file.refuse((), "fleet", 'a name is required, such as fleet = "lab"')
        name = document["fleet"]
        if not isinstance(name, str):
            self.file.refuse((), "fleet", "expected a string")
        self._checked((), "fleet", check_machine_name, name)
        tables = document.get("machines", {})
        if not isinstance(tables, dict):
            self.file.refuse(("machines",), None, "expected tables: [machines.NAME]")
        machines: dict[str, FleetMachine] = {}
        for table, values in tables.items():
            for machine in self._machines(table, values):
                if machine.name in machines:
                    other = machines[machine.name].group.table
                    self.file.refuse(
                        ("machines", table), None, f"{machine.name} is also in [machines.{other}]"
                    )
                machines[machine.name] = machine
        return Fleet(name=name, path=self.file.path, machines=tuple(machines.values()))

    def _machines(self, table: str, values: Any) -> Iterator[FleetMachine]:
        where = ("machines", table)
        if not isinstance(values, dict):
            self.file.refuse(where, None, "expected a table")
        for key in values:
            if key not in SETTINGS and key not in _PLACING:
                self.file.refuse(where, key, "unknown key", [*_PLACING, *SETTINGS])
        group = self._group(where, values)
        for on, name in self._placed(where, values):
            self._checked(where, None, check_new_name, name)
            yield FleetMachine(name=name, on=on, group=group)

    def _placed(self, where: tuple[str, str], values: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the host and the name of each machine of a table."""
        if "on" in values and "each" in values:
            self.file.refuse(where, "each", "on and each cannot be used together")
        name = where[1]
        places: list[tuple[str | None, str]] = [(None, name)]
        if "on" in values:
            places = [(self._host(where, "on", values["on"]), name)]
        elif "each" in values:
            if not isinstance(values["each"], list) or not values["each"]:
                self.file.refuse(where, "each", 'expected a list of hosts, such as ["lab1"]')
            each = [self._host(where, "each", one) for one in values["each"]]
            if len(set(each)) < len(each):
                self.file.refuse(where, "each", "a host is there twice")
            places = [(one, f"{name}-{one}") for one in each]
        count = values.get("count")
        if count is not None and (
            isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_COUNT
        ):
            self.file.refuse(where, "count", f"expected an integer, 0 to {MAX_COUNT}")
        for on, base in places:
            if count is None:
                yield on, base
            else:
                yield from ((on, f"{base}-{number:02d}") for number in range(1, count + 1))

    def _group(self, where: tuple[str, str], values: Mapping[str, Any]) -> Group:
        texts = {key: self._text(where, key, values) for key in ("from", "preset", "pool")}
        if texts["from"] is not None and "image" in values:
            self.file.refuse(where, "from", "image and from cannot be used together")
        if texts["from"] is not None:
            self._checked(where, "from", check_machine_name, texts["from"])
        if texts["preset"] is not None and texts["preset"] not in preset_names():
            self.file.refuse(where, "preset", "unknown preset", preset_names())
        if texts["pool"] is not None:
            self._checked(
                where, "pool", lambda name: check_object_name("pool", name), texts["pool"]
            )
        for key in ("each", "count"):
            if "ip" in values and key in values:
                self.file.refuse(where, "ip", f"ip and {key} cannot be used together")
        if texts["from"] is not None and "network-config" in values:
            why = "network-config and from cannot be used together"
            self.file.refuse(where, "network-config", why)
        settings = {key: values[key] for key in SETTINGS if key in values}
        image = self._text(where, "image", values)
        if image is not None and image.startswith(_RELATIVE):
            settings["image"] = str(self._path(where, "image", image))
        group = Group(
            table=where[1],
            place=f"{self.file.place}: [{'.'.join(where)}]",
            values=settings,
            golden=texts["from"],
            preset=texts["preset"],
            pool=texts["pool"],
            ssh_keys=self._paths(where, "ssh-key", values),
            user_data=self._paths(where, "user-data", values),
            disks=self._disks(where, values),
            network_config=self._path(where, "network-config", values["network-config"])
            if "network-config" in values
            else None,
        )
        resolve([group.layer])
        return group

    def _host(self, where: tuple[str, str], key: str, name: Any) -> str:
        if not isinstance(name, str):
            self.file.refuse(where, key, "expected the name of a host")
        if name not in self.hosts:
            why = f"host {shown(name)} not found"
            if not self.hosts:
                why += ": no host has a name yet (add [hosts] with armvm config edit)"
            self.file.refuse(where, key, why, list(self.hosts))
        return name

    def _text(self, where: tuple[str, str], key: str, values: Mapping[str, Any]) -> str | None:
        value = values.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            self.file.refuse(where, key, "expected a string")
        return value

    def _paths(
        self, where: tuple[str, str], key: str, values: Mapping[str, Any]
    ) -> tuple[Path, ...]:
        value = values.get(key, [])
        return tuple(
            self._path(where, key, one) for one in (value if isinstance(value, list) else [value])
        )

    def _disks(self, where: tuple[str, str], values: Mapping[str, Any]) -> tuple[ExtraDisk, ...]:
        value, found = values.get("add-disk", []), []
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                self.file.refuse(where, "add-disk", 'expected a string or a list, such as "20G"')
            disk: ExtraDisk = self._checked(where, "add-disk", read_disk, text)
            if disk.file is not None:
                if "count" in values or "each" in values:
                    self.file.refuse(where, "add-disk", "several machines cannot share a file")
                if not disk.file.startswith(("/", "~")):
                    disk = replace(disk, file=str(self.directory / disk.file))
            found.append(disk)
        disks: tuple[ExtraDisk, ...] = self._checked(where, "add-disk", named, found)
        return disks

    def _path(self, where: tuple[str, str], key: str, value: Any) -> Path:
        if not isinstance(value, str) or "\0" in value or value == "-":
            self.file.refuse(where, key, "expected the path of a file")
        given: Path = self._checked(where, key, given_path, value)
        return self.directory / given

    def _checked(self, where: tuple[str, ...], key: str | None, check: Any, value: Any) -> Any:
        """Return what *check* returns; its error gets the file and the table."""
        try:
            return check(value)
        except ArmvmError as error:
            self.file.refuse(where, key, f"{error.message}; {error.hint}")
