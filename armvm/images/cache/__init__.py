"""The image cache: verified files named by digest."""
