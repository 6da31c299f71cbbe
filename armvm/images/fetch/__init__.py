"""Downloads over HTTP, bounded in bytes, memory and time."""
