"""Tests of what others install: the image's contents, the Python wheel and the npm tarball, each in an empty place."""
