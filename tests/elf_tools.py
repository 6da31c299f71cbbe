"""Programs for other processors, made of a few bytes."""

from __future__ import annotations

import struct


def elf_file(
    machine: int,
    *,
    bits: int = 64,
    little: bool = True,
    loader: str | None = None,
    code: bytes = b"",
) -> bytes:
    """Return an ELF executable with one loaded segment, and a loader's name if it has one."""
    order, wide = "<" if little else ">", bits == 64
    header, entry = (64, 56) if wide else (52, 32)
    base, count = 0x400000, 2 if loader else 1
    start = header + entry * count
    name = loader.encode() + b"\0" if loader else b""
    total = start + len(name) + len(code)
    ident = b"\x7fELF" + bytes([bits // 32, 1 if little else 2, 1]) + bytes(9)
    word = "Q" if wide else "I"
    head = ident + struct.pack(
        f"{order}HHI{word * 3}IHHHHHH",
        *(2, machine, 1, base + start + len(name), header, 0),
        *(0, header, entry, count, 0, 0, 0),
    )

    def segment(kind: int, offset: int, size: int) -> bytes:
        if wide:
            fields = (kind, 5, offset, base + offset, base + offset, size, size, 0x1000)
            return struct.pack(f"{order}IIQQQQQQ", *fields)
        fields = (kind, offset, base + offset, base + offset, size, size, 5, 0x1000)
        return struct.pack(f"{order}IIIIIIII", *fields)

    interpreter = segment(3, start, len(name)) if loader else b""
    return head + interpreter + segment(1, 0, total) + name + code


def exit_with(code: int) -> bytes:
    """Return an arm64 program that ends with an exit code."""
    return elf_file(183, code=struct.pack("<3I", 0xD2800000 | code << 5, 0xD2800BA8, 0xD4000001))


def tiny(kind: str) -> bytes:
    """Return an arm64 program: ``echo`` copies 5 bytes of its input, ``trap`` ends by SIGILL."""
    if kind == "trap":
        return elf_file(183, code=struct.pack("<I", 0))
    words = [
        *(0xD10043FF, 0xD2800000, 0x910003E1, 0xD28000A2),  # sub sp; x0=0; x1=sp; x2=5
        *(0xD28007E8, 0xD4000001),  # read
        *(0xD2800020, 0xD2800808, 0xD4000001),  # x0=1; write
        *(0xD2800000, 0xD2800BA8, 0xD4000001),  # exit 0
    ]
    return elf_file(183, code=struct.pack(f"<{len(words)}I", *words))
