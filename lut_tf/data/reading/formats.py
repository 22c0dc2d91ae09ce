"""The image formats that are read: what Pillow may open, and how their files end. One table, asked everywhere."""

from __future__ import annotations

import os

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
"""Pillow's name of each format, and its files' endings. Whatever a file is called, its content is opened as one of
these or not at all: of Pillow's other formats, EPS starts Ghostscript with the program that the file is."""
MAX_PIXELS = 89_478_485
"""Larger images count as damaged (0.25 GiB of RGB, Pillow's own bound): a small file can unpack to gigabytes."""
MAX_BYTES = 6 * MAX_PIXELS
"""Larger files count as damaged, unread: so much do `MAX_PIXELS` take uncompressed, with 16 bits a channel."""

ENDINGS = frozenset(ending for endings in FORMATS.values() for ending in endings)


def ending_of(name: str) -> str:
    """Return how a file's name ends, in small letters with its dot; empty where there is no dot."""
    return os.path.splitext(name)[1].lower()
