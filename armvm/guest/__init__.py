"""Cloud-init documents, boot progress and the programs that run in a guest."""
