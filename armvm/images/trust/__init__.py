"""What vouches for an image: pinned keys, signatures, and the digests that they cover."""
