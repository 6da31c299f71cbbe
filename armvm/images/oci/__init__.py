"""Goldens and images as OCI artifacts: documents, packed layers, and archives of them."""
