"""Write and parse the line that registers a handler, and check the kernel's rules.

``:name:type:offset:magic:mask:interpreter:flags``, for /proc/sys/fs/binfmt_misc/register and for
files in binfmt.d(5). The rules are from the kernel's admin-guide/binfmt-misc.rst and
fs/binfmt_misc.c: 11 to 1,920 bytes; magic and mask of equal length, within the first 128 bytes of
a file, with ``\\xHH`` as the only escape (and without the delimiter); no ``/`` in the name; at
most 127 characters for the interpreter. armvm also rejects values that the kernel accepts but
that are surely mistakes (control characters, names of binfmt_misc's own files).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from armvm.base.errors import ConfigError
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt.handlers import CONTROLS, Handler

#: P keeps argv[0], O passes an open file, F opens the interpreter at registration, so that it
#: works in other root file systems too. Not C (credentials of the program): with it, any user's
#: setuid program runs QEMU as root, which is why Debian dropped it in 2025.
FLAGS = "POF"
#: All flags, in the order in which the kernel shows them.
KNOWN = "POCF"
SHORTEST, LONGEST = 11, 1920
WINDOW = 128
INTERPRETER = 127


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The contents of a line; *magic* is empty for a rule that matches the file's extension."""

    name: str
    interpreter: str
    flags: str = ""
    offset: int = 0
    magic: bytes = b""
    mask: bytes = b""

    def is_handler(self, handler: Handler, *, whatever_name: bool = False) -> bool:
        """Return whether *handler* is this rule in the kernel, enabled or not."""
        return (
            (whatever_name or handler.name == self.name)
            and (handler.interpreter, handler.offset) == (self.interpreter, self.offset)
            and handler.magic == self.magic
            and handler.full_mask == (self.mask or b"\xff" * len(self.magic))
            and normal_flags(handler.flags) == normal_flags(self.flags)
        )


def normal_flags(flags: str) -> str:
    """Return flags as the kernel shows them: in its order, and with O if C is set."""
    wanted = set(flags) | ({"O"} if "C" in flags else set())
    return "".join(flag for flag in KNOWN if flag in wanted)


def rule_for(
    architecture: Architecture, interpreter: str, *, flags: str = FLAGS, name: str | None = None
) -> Rule:
    """Return the rule for an architecture's programs; the default name is Debian's."""
    return Rule(
        name=name or f"qemu-{architecture.name}",
        interpreter=interpreter,
        flags=flags,
        magic=architecture.magic,
        mask=architecture.mask,
    )


def line(rule: Rule) -> str:
    """Return the line that registers a rule. Raises ConfigError if the kernel would reject it.

    Every byte of magic and mask is escaped, so that none is read as a delimiter or an end.
    """
    _check(rule)
    magic, mask = ("".join(f"\\x{byte:02x}" for byte in part) for part in (rule.magic, rule.mask))
    made = f":{rule.name}:M:{rule.offset}:{magic}:{mask}:{rule.interpreter}:{rule.flags}"
    length = len(made.encode())
    if not SHORTEST <= length <= LONGEST:
        raise ConfigError(
            f"the line for {rule.name} has {length} bytes, which is out of range "
            f"({SHORTEST} to {LONGEST})",
            hint="use a shorter path for the interpreter, such as a link to it",
        )
    return made


def parse_line(text: str) -> Rule | None:
    """Return the rule in a line of binfmt.d(5); None for other lines.

    The first character is the delimiter, whatever it is. Rules of type E (extension) have an
    empty magic.
    """
    parts = text[1:].split(text[:1]) if text else []
    if len(parts) != 7 or parts[1] not in ("M", "E") or not parts[0]:
        return None
    name, kind, offset, magic, mask, interpreter, flags = parts
    if kind == "E":
        return Rule(name=name, interpreter=interpreter, flags=flags)
    value, bits = unescape(magic), unescape(mask)
    if not value or (bits and len(bits) != len(value)) or not re.fullmatch(r"[0-9]{0,4}", offset):
        return None
    return Rule(
        name=name,
        interpreter=interpreter,
        flags=flags,
        offset=int(offset or 0),
        magic=value,
        mask=bits,
    )


def unescape(text: str) -> bytes:
    r"""Return the bytes of an escaped magic: ``\xHH`` is one byte; the rest is literal."""
    return re.sub(
        rb"\\x([0-9a-fA-F]{2})", lambda hit: bytes([int(hit[1], 16)]), text.encode(errors="replace")
    )


def _check(rule: Rule) -> None:
    name, interpreter = rule.name, rule.interpreter
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", name) or name in (".", "..", *CONTROLS):
        raise ConfigError(
            f"invalid handler name {name!r}",
            hint="use letters, digits and . _ + -",
        )
    if not interpreter.startswith("/"):
        raise ConfigError(
            f"the interpreter {interpreter!r} is not an absolute path",
            hint="use its absolute path: the kernel looks it up from /",
        )
    if not interpreter.isprintable() or ":" in interpreter or "\\" in interpreter:
        raise ConfigError(
            f"the interpreter {interpreter!r} contains unsupported characters",
            hint="use a path without ':', '\\' and control characters, such as a link to it",
        )
    if len(interpreter.encode()) > INTERPRETER:
        raise ConfigError(
            f"the interpreter's path is longer than {INTERPRETER} bytes",
            hint="use a link to it with a shorter path",
        )
    if set(rule.flags) - set(KNOWN) or len(set(rule.flags)) != len(rule.flags):
        raise ConfigError(
            f"invalid handler flags {rule.flags!r}",
            hint=f"each of {', '.join(KNOWN)} may appear once; the default is {FLAGS}",
        )
    if not rule.magic or (rule.mask and len(rule.mask) != len(rule.magic)):
        raise ConfigError(
            "a handler requires a magic, and a mask of the same length",
            hint=f"magic {rule.magic.hex() or 'none'}, mask {rule.mask.hex() or 'none'}",
        )
    if rule.offset < 0 or rule.offset + len(rule.magic) > WINDOW:
        raise ConfigError(
            f"the kernel only checks the first {WINDOW} bytes of a file",
            hint=f"offset {rule.offset} and {len(rule.magic)} bytes of magic exceed this",
        )
