"""Build a minimal program for each architecture: it writes ``ok`` and a newline, and exits 0.

They are built from a few instructions, so that `armvm binfmt test` needs no compiler and no
package. The ELF file is one segment: header, program header, code, text. System call numbers are
from the kernel's arch/*/kernel/syscalls; each program was tested under qemu-user 7.2.
"""

from __future__ import annotations

import struct

from armvm.usermode.architectures import Architecture

#: The output of each program.
SAYS = b"ok\n"
#: Load address: above every architecture's lowest address, aligned to 64 KiB pages.
_BASE = 0x400000
#: e_flags: EABI version 5 for arm; ABI 2 for ppc64le (no function descriptors).
_FLAGS = {"arm": 0x05000000, "armeb": 0x05000000, "ppc64le": 2}

_ARM = (
    0xE3A00001,  # mov r0, #1            standard output
    0xE28F1014,  # add r1, pc, #20       the text, right after the code (pc is 8 ahead)
    0xE3A02003,  # mov r2, #3            its length
    0xE3A07004,  # mov r7, #4            write
    0xEF000000,  # svc 0
    0xE3A00000,  # mov r0, #0
    0xE3A07001,  # mov r7, #1            exit
    0xEF000000,  # svc 0
)
_AARCH64 = (
    0xD2800020,  # mov x0, #1
    0x100000E1,  # adr x1, . + 28        the text
    0xD2800062,  # mov x2, #3
    0xD2800808,  # mov x8, #64           write
    0xD4000001,  # svc #0
    0xD2800000,  # mov x0, #0
    0xD2800BA8,  # mov x8, #93           exit
    0xD4000001,  # svc #0
)
_RISCV64 = (
    0x00100513,  # li a0, 1
    0x00000597,  # auipc a1, 0
    0x02058593,  # addi a1, a1, 32       the text
    0x00300613,  # li a2, 3
    0x04000893,  # li a7, 64             write
    0x00000073,  # ecall
    0x00000513,  # li a0, 0
    0x05D00893,  # li a7, 93             exit
    0x00000073,  # ecall
)
_PPC64LE = (
    0x38000004,  # li r0, 4              write
    0x38600001,  # li r3, 1
    0x3C800040,  # lis r4, 0x40          the text: 0x400000 + headers (120) + code (36)
    0x6084009C,  # ori r4, r4, 0x9c
    0x38A00003,  # li r5, 3
    0x44000002,  # sc
    0x38000001,  # li r0, 1              exit
    0x38600000,  # li r3, 0
    0x44000002,  # sc
)
_S390X = bytes.fromhex(
    "a7290001"  # lghi %r2, 1
    "c03000000009"  # larl %r3, . + 18   the text
    "a7490003"  # lghi %r4, 3
    "0a04"  # svc 4                      write
    "a7290000"  # lghi %r2, 0
    "0a01"  # svc 1                      exit
)
_CODE = {
    "aarch64": struct.pack("<8I", *_AARCH64),
    "arm": struct.pack("<8I", *_ARM),
    "armeb": struct.pack(">8I", *_ARM),
    "riscv64": struct.pack("<9I", *_RISCV64),
    "ppc64le": struct.pack("<9I", *_PPC64LE),
    "s390x": _S390X,
}


def program(architecture: Architecture) -> bytes:
    """Return an architecture's program, an ELF file of less than 200 bytes."""
    wide = architecture.bits == 64
    order = "<" if architecture.little else ">"
    header, entry = (64, 56) if wide else (52, 32)
    start = header + entry
    body = _CODE[architecture.name] + SAYS
    size = start + len(body)
    word = "Q" if wide else "I"
    head = architecture.magic + struct.pack(
        f"{order}I3{word}I6H",
        1,  # version
        _BASE + start,  # entry point
        header,  # program headers
        0,  # no section headers
        _FLAGS.get(architecture.name, 0),
        header,
        entry,
        1,
        0,
        0,
        0,
    )
    if wide:  # PT_LOAD, readable and executable
        load = struct.pack(f"{order}2I6Q", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    else:
        load = struct.pack(f"{order}8I", 1, 0, _BASE, _BASE, size, size, 5, 0x10000)
    return head + load + body
