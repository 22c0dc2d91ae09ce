"""Pixels by Pillow: every format of the table, every colour mode, every depth, and turned as EXIF says."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lut_tf.data.reading import formats
from lut_tf.data.reading.contents import ImageFault

DEPTHS = (8, 10, 12, 14, 16, 32)
"""Bits that cameras, scanners and microscopes have; files of 16 bits hold values of any of them."""
SCALED = {"PPM", "JPEG2000"}  # Pillow has brought their values to 16 bits
PNG_DEPTH = 24  # the byte of a PNG that says how many bits a value has
BITS_PER_SAMPLE, MAX_SAMPLE_VALUE = 258, 281  # TIFF's


def decode_with_pillow(content: bytes, apply_exif: bool = True) -> NDArray[np.uint8]:
    """Decode one file's content as uint8 (h, w, 3), the first frame of an animation.

    Args:
        content: of the file.
        apply_exif: turn and mirror the image as its EXIF orientation says.

    Raises:
        ImageFault: it is no image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=tuple(formats.FORMATS)) as image:
            if image.width * image.height > formats.MAX_PIXELS:
                raise ImageFault("too large")
            if image.format == "PNG" and content[PNG_DEPTH] == 16:
                pixels = _to_bytes(_deep_png(content), _told_by_png(content))
                return _turned(Image.fromarray(pixels), image) if apply_exif else pixels
            return _to_rgb(ImageOps.exif_transpose(image) if apply_exif else image, _told(image))
    except Image.DecompressionBombError:
        raise ImageFault("too large") from None
    except UnidentifiedImageError:
        raise ImageFault("not an image") from None
    except ImageFault:
        raise
    except Exception:  # Pillow's plugins raise nearly anything on damaged data (struct.error, SyntaxError, ...)
        raise ImageFault("damaged") from None


def _turned(pixels: Image.Image, original: Image.Image) -> NDArray[np.uint8]:
    """Turn pixels that were decoded apart as the file's own EXIF says."""
    original.load()  # a PNG may say it at its end
    pixels.getexif()[0x0112] = original.getexif().get(0x0112, 1)
    return np.asarray(ImageOps.exif_transpose(pixels))


def _to_rgb(image: Image.Image, told: int | None) -> NDArray[np.uint8]:
    """Return an image's pixels as RGB bytes; alpha is dropped, and more bits than 8 are scaled (Pillow would cut)."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_bytes(np.asarray(image)[..., np.newaxis], told)
    return np.asarray(image.convert("RGB"))


def _to_bytes(values: NDArray[np.generic], told: int | None) -> NDArray[np.uint8]:
    """Scale values (h, w, 1 or 3) to bytes by the range that they have in their file.

    `told` is the range in bits where the file says it, and its values keep to it. Else it is the smallest of `DEPTHS`
    that holds them all: values of 12 bits would be black by the range of 16. Fractions go from 0 to 1, and other
    numbers with a point are taken as whole ones.
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ImageFault("damaged")
        if values.max() <= 1:
            values = values * 255
    whole = np.clip(values, 0, 2**32 - 1).astype(np.int64)
    most = int(whole.max()).bit_length()
    bits = told if told and told >= most else next(depth for depth in DEPTHS if depth >= most)
    shifted = whole >> (bits - 8) if bits > 8 else whole
    return np.broadcast_to(shifted.astype(np.uint8), (*shifted.shape[:2], 3)).copy()


def _told(image: Image.Image) -> int | None:
    """Return the bits that a file's values have, as it says itself, or None."""
    if image.format in SCALED:
        return 16
    if image.format != "TIFF":
        return None
    tags = image.tag_v2  # type: ignore[attr-defined]
    if highest := tags.get(MAX_SAMPLE_VALUE):
        return int(np.max(highest)).bit_length()
    bits = int(np.max(tags.get(BITS_PER_SAMPLE, 16)))
    return bits if bits < 16 else None  # 16 bits are what a file has whose writer did not say more


def _told_by_png(content: bytes) -> int | None:
    """Return the largest number of its chunk sBIT, alpha's left out, if there is one before the pixels."""
    at = content.find(b"sBIT", 0, content.find(b"IDAT"))
    length = int.from_bytes(content[at - 4 : at]) if at > 0 else 0
    bits = content[at + 4 : at + 4 + (length if length % 2 else length - 1)]
    return max(bits) if length in (1, 2, 3, 4) else None


def _deep_png(content: bytes) -> NDArray[np.uint16]:
    """Decode a PNG of 16 bits (h, w, 1 or 3) with all of them, which Pillow does for gray ones only."""
    with tf.device("CPU:0"):
        pixels = tf.io.decode_png(content, dtype=tf.uint16).numpy()
    return pixels[..., : 1 if pixels.shape[-1] < 3 else 3]
