"""The line that registers a handler: written, read, and held against the kernel's rules.

``:name:type:offset:magic:mask:interpreter:flags``, for /proc/sys/fs/binfmt_misc/register and for
files in binfmt.d(5) alike. The rules are those of the kernel's admin-guide/binfmt-misc.rst and
fs/binfmt_misc.c: 11 to 1,920 bytes; magic and mask equally long, within the first 128 bytes of a
file, with no escapes but ``\\xHH`` (and none of the delimiter); no ``/`` in the name; at most 127
characters of interpreter. What the kernel would let pass but nobody can mean (control characters,
names of binfmt_misc's own files) is refused too: a line is one line in a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from armvm.base.errors import ConfigError
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt.handlers import CONTROLS, Handler

#: P keeps argv[0], O hands over an open file, F opens the interpreter at once, so that it works
#: in other root file systems too. Not C (credentials from the program): with it, a setuid
#: program of any user's making runs QEMU as root, which is why Debian dropped it in 2025.
FLAGS = "POF"
#: The flags there are, in the order in which the kernel shows them.
KNOWN = "POCF"
SHORTEST, LONGEST = 11, 1920
WINDOW = 128
INTERPRETER = 127


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a line registers; *magic* is empty for one that goes by the file's extension."""

    name: str
    interpreter: str
    flags: str = ""
    offset: int = 0
    magic: bytes = b""
    mask: bytes = b""

    def is_handler(self, handler: Handler, *, whatever_name: bool = False) -> bool:
        """Tell whether *handler* is what the kernel makes of this line, enabled or not."""
        return (
            (whatever_name or handler.name == self.name)
            and (handler.interpreter, handler.offset) == (self.interpreter, self.offset)
            and handler.magic == self.magic
            and handler.full_mask == (self.mask or b"\xff" * len(self.magic))
            and normal_flags(handler.flags) == normal_flags(self.flags)
        )


def normal_flags(flags: str) -> str:
    """Return flags as the kernel shows them: in its order, with O wherever C is."""
    wanted = set(flags) | ({"O"} if "C" in flags else set())
    return "".join(flag for flag in KNOWN if flag in wanted)


def rule_for(
    architecture: Architecture, interpreter: str, *, flags: str = FLAGS, name: str | None = None
) -> Rule:
    """Return the rule for an architecture's programs; its name is Debian's by default."""
    return Rule(
        name=name or f"qemu-{architecture.name}",
        interpreter=interpreter,
        flags=flags,
        magic=architecture.magic,
        mask=architecture.mask,
    )


def line(rule: Rule) -> str:
    """Return the line that registers a rule. Raises ConfigError where the kernel would refuse it.

    Every byte of magic and mask is escaped, so that none can be taken for a delimiter or an end.
    """
    _check(rule)
    magic, mask = ("".join(f"\\x{byte:02x}" for byte in part) for part in (rule.magic, rule.mask))
    made = f":{rule.name}:M:{rule.offset}:{magic}:{mask}:{rule.interpreter}:{rule.flags}"
    length = len(made.encode())
    if not SHORTEST <= length <= LONGEST:
        raise ConfigError(
            f"the line for {rule.name} has {length} bytes; "
            f"the kernel takes {SHORTEST} to {LONGEST}",
            hint="a shorter path of the interpreter (a link to it) helps",
        )
    return made


def parse_line(text: str) -> Rule | None:
    """Return what a line of binfmt.d(5) registers; None where it is no such line.

    The first character is the delimiter, whatever it is. Lines of type E (extension) have no
    magic here.
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
    r"""Return the bytes that a magic stands for: ``\xHH`` is one byte, the rest is itself."""
    return re.sub(
        rb"\\x([0-9a-fA-F]{2})", lambda hit: bytes([int(hit[1], 16)]), text.encode(errors="replace")
    )


def _check(rule: Rule) -> None:
    name, interpreter = rule.name, rule.interpreter
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", name) or name in (".", "..", *CONTROLS):
        raise ConfigError(
            f"{name!r} cannot be a handler's name",
            hint="letters, digits and . _ + - make a name; it is a file in binfmt_misc",
        )
    if not interpreter.startswith("/"):
        raise ConfigError(
            f"the interpreter {interpreter!r} is no absolute path",
            hint="the kernel looks it up from /, so give its whole path",
        )
    if not interpreter.isprintable() or ":" in interpreter or "\\" in interpreter:
        raise ConfigError(
            f"the interpreter {interpreter!r} cannot stand in the kernel's line",
            hint="a path without ':', '\\' and control characters can, such as a link to it",
        )
    if len(interpreter.encode()) > INTERPRETER:
        raise ConfigError(
            f"the interpreter's path has more than {INTERPRETER} bytes",
            hint="a link to it at a shorter path helps",
        )
    if set(rule.flags) - set(KNOWN) or len(set(rule.flags)) != len(rule.flags):
        raise ConfigError(
            f"{rule.flags!r} are no flags of a handler",
            hint=f"each of {', '.join(KNOWN)} can be there once; the default is {FLAGS}",
        )
    if not rule.magic or (rule.mask and len(rule.mask) != len(rule.magic)):
        raise ConfigError(
            "a handler needs a magic, and a mask that is as long as it",
            hint=f"magic {rule.magic.hex() or 'none'}, mask {rule.mask.hex() or 'none'}",
        )
    if rule.offset < 0 or rule.offset + len(rule.magic) > WINDOW:
        raise ConfigError(
            f"the kernel looks at a file's first {WINDOW} bytes only",
            hint=f"offset {rule.offset} and {len(rule.magic)} bytes of magic go beyond",
        )
