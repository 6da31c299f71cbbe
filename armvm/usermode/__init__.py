"""Foreign programs on this host: binfmt_misc handlers, and root file systems made with them."""
