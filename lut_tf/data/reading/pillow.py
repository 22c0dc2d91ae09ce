"""Pixels by Pillow: every format of the table, every colour mode, every depth, and turned as EXIF says."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lut_tf.data.reading import formats
from lut_tf.data.reading.contents import ImageFault

DEPTH = 16
"""Bits that deep values have where neither their format nor `data.bits` says another number."""
SCALED = {"PPM", "JPEG2000"}  # Pillow has brought their values to 16 bits
PNG_DEPTH = 24  # the byte of a PNG that says how many bits a value has
BITS_PER_SAMPLE = 258  # TIFF's


def decode_with_pillow(content: bytes, apply_exif: bool = True, bits: int | None = None) -> NDArray[np.uint8]:
    """Decode one file's content as uint8 (h, w, 3), the first frame of an animation.

    Args:
        content: of the file.
        apply_exif: turn and mirror the image as its EXIF orientation says.
        bits: 8 to 16, which deep values (of more than 8 bits, or with a point) have where their format does not say
            it; None: 16, and those with a point go from 0 to 1.

    Raises:
        ImageFault: it is no image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=tuple(formats.FORMATS)) as image:
            if image.width * image.height > formats.MAX_PIXELS:
                raise ImageFault("too large")
            if image.format == "PNG" and content[PNG_DEPTH] == 16:
                pixels = _to_bytes(_deep_png(content), bits)
                return _turned(Image.fromarray(pixels), image) if apply_exif else pixels
            return _to_rgb(ImageOps.exif_transpose(image) if apply_exif else image, _told(image) or bits)
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


def _to_rgb(image: Image.Image, bits: int | None) -> NDArray[np.uint8]:
    """Return an image's pixels as RGB bytes; alpha is dropped, and more bits than 8 are scaled (Pillow would cut)."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_bytes(np.asarray(image)[..., np.newaxis], bits)
    return np.asarray(image.convert("RGB"))


def _to_bytes(values: NDArray[np.generic], bits: int | None) -> NDArray[np.uint8]:
    """Scale values (h, w, 1 or 3) of some bits to bytes; what lies outside their range is clipped, as sensors do.

    The values themselves do not decide: a value must become the same byte in every image of a data set.
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ImageFault("damaged")
        if bits is None:
            values, bits = values * 255, 8
    bits = bits or DEPTH
    shifted = np.clip(values, 0, 2**bits - 1).astype(np.int64) >> (bits - 8)
    return np.broadcast_to(shifted.astype(np.uint8), (*shifted.shape[:2], 3)).copy()


def _told(image: Image.Image) -> int | None:
    """Return the bits that a file's values have by its format, or None.

    Not asked: a PNG's sBIT (by its standard the values are spread over all 16 bits nevertheless) and a TIFF's
    MaxSampleValue (by its own a statistic of the one image).
    """
    if image.format in SCALED:
        return DEPTH
    if image.format != "TIFF":
        return None
    bits = int(np.max(image.tag_v2.get(BITS_PER_SAMPLE, DEPTH)))  # type: ignore[attr-defined]
    return bits if bits < DEPTH else None  # 16 bits are what a file has whose writer did not say more


def _deep_png(content: bytes) -> NDArray[np.uint16]:
    """Decode a PNG of 16 bits (h, w, 1 or 3) with all of them, which Pillow does for gray ones only."""
    with tf.device("CPU:0"):
        pixels = tf.io.decode_png(content, dtype=tf.uint16).numpy()
    return pixels[..., : 1 if pixels.shape[-1] < 3 else 3]
