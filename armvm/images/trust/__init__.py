"""Verification of images: pinned keys, signatures, and the digests they cover."""
