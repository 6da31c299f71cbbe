"""Results that commands print with ``--json``: their fields' meaning, and their plain values.

A result is a frozen, keyword-only dataclass. Each field is ``Annotated`` with a `Doc`, from which
docs/generate.py writes the JSON schemas in docs/schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any


class Doc:
    """What a field means. *rules* are JSON Schema keywords that its type does not imply."""

    def __init__(self, text: str, **rules: Any) -> None:
        self.text, self.rules = text, rules


MachineName = Annotated[
    str, Doc("The machine's name.", pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
]
Cpus = Annotated[int, Doc("Number of vCPUs.", minimum=1)]
MemoryMib = Annotated[int, Doc("Memory in MiB.", minimum=1)]
Size = Annotated[int, Doc("Bytes.", minimum=0)]
Port = Annotated[int, Doc("Port.", minimum=1, maximum=65535)]
Seconds = Annotated[float, Doc("Seconds.", minimum=0)]
FirstNetwork = Annotated[
    str,
    Doc(
        "The first network, through which armvm logs in: a libvirt network's name, user (QEMU user "
        "networking), or bridge=DEVICE."
    ),
]
Networks = Annotated[
    list[str],
    Doc("The network of each card, the first one first; also macvtap=DEVICE."),
]
MacAddress = Annotated[str, Doc("MAC address.", pattern="^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
UtcTime = Annotated[
    str, Doc("Time in UTC.", format="date-time", pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
]
Uuid = Annotated[str, Doc("UUID.", format="uuid")]
Hex = Annotated[str, Doc("Bytes in hexadecimal.", pattern="^([0-9a-f]{2})*$")]
Digest = Annotated[
    str, Doc("The image's digest.", pattern="^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$")
]
Fingerprint = Annotated[
    str, Doc("Fingerprint of an ssh host key.", pattern="^SHA256:[A-Za-z0-9+/]{43}$")
]
AcceleratorName = Annotated[
    str, Doc("kvm: the host's own CPU; tcg: emulated.", enum=["kvm", "tcg"])
]


def as_json(value: Any) -> Any:
    """Return a result as what `json.dumps` takes: its fields in order, enums by their values.

    A field whose name is a Python keyword ends in an underscore, which its key has not.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name.removesuffix("_"): as_json(getattr(value, one.name)) for one in fields(value)
        }
    if isinstance(value, Enum):
        return as_json(value.value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {as_json(key): as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value
