"""Foreign programs: ELF files, their libraries and their interpreters."""
