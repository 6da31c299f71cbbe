"""The benchmarks: armvm beside its peers, in one run, on this host. ``make bench`` runs them."""
