"""The kernel's binfmt_misc handlers."""
