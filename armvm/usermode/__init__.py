"""Foreign programs on this host: binfmt_misc handlers, and foreign root file systems."""
