"""Downloads over HTTP, with limits on bytes, memory and time."""
