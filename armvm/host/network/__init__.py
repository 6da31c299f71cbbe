"""Networks, addresses and forwarded ports."""
