"""Any photo file to upright 8-bit RGB, or a reason why not.

Pillow decodes everything: OpenCV returns a truncated JPEG half grey without a word, and knows neither CMYK nor GIF palettes well.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

EMPTY, UNREADABLE, TRUNCATED, TOO_LARGE = "empty", "unreadable", "truncated", "too large"
DECODE_REASONS = (EMPTY, UNREADABLE, TRUNCATED, TOO_LARGE)


class PhotoError(ValueError):
    """A photo that cannot be used; `reason` is what `rejects.parquet` says of it."""

    def __init__(self, reason: str) -> None:
        assert reason in DECODE_REASONS, reason
        super().__init__(reason)
        self.reason = reason


def decode_photo(content: bytes, *, max_side: int) -> np.ndarray:
    """Decode a JPEG, PNG, WebP, GIF, BMP or TIFF file: its first frame, turned upright as EXIF says.

    Grey, palette and CMYK become RGB; transparency is laid on white; 16 bits are scaled to 8, not clipped. The size is checked in the
    header, before any pixel is decoded.

    Args:
        content: the whole file.
        max_side: the longest side that is decoded, px.

    Returns:
        uint8 H×W×3, RGB, 0..255, contiguous.

    Raises:
        PhotoError: with the reason, one of `DECODE_REASONS`.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise PhotoError(EMPTY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large photos and odd metadata; the size is checked here
            with Image.open(io.BytesIO(content)) as image:
                if max(image.size) > max_side:
                    raise PhotoError(TOO_LARGE)
                image.load()
                return to_rgb(upright(image))
    except PhotoError:
        raise
    except Image.DecompressionBombError:
        raise PhotoError(TOO_LARGE) from None
    except UnidentifiedImageError:
        raise PhotoError(TRUNCATED if cut_short(content) else UNREADABLE) from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, EOFError, ValueError, … on broken files
        broken_off = "truncated" in str(error) or isinstance(error, EOFError) or cut_short(content)
        raise PhotoError(TRUNCATED if broken_off else UNREADABLE) from None


def cut_short(content: bytes) -> bool:
    """Whether the file begins as a known format and ends before that format says it does."""
    if content.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in content[-4096:]
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in content[-4096:]
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    if content.startswith((b"GIF87a", b"GIF89a")):
        return not content.rstrip(b"\0").endswith(b";")
    if content.startswith(b"BM") and len(content) >= 6:
        return len(content) < int.from_bytes(content[2:6], "little")
    return False


def upright(image: Image.Image) -> Image.Image:
    """The photo turned as its EXIF orientation says; broken EXIF is taken for none."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # malformed EXIF raises many kinds; it is no reason to lose the photo
        return image


def to_rgb(image: Image.Image) -> np.ndarray:
    """A loaded image of any mode as uint8 H×W×3 RGB."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # one channel of more than 8 bits
        grey = deep_to_8_bits(np.asarray(image))
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, 2))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = np.array(image.convert("RGB"))
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3
    return rgb


def deep_to_8_bits(grey: np.ndarray) -> np.ndarray:
    """Grey H×W of 16 or 32 bits or floats as uint8, scaled by its range: floats up to 1, else 255, 65,535 or the largest value."""
    if not np.isfinite(grey).all():
        raise PhotoError(UNREADABLE)
    largest = float(grey.max(initial=0))
    if np.issubdtype(grey.dtype, np.floating):
        full = next((limit for limit in (1.0, 255.0, 65535.0) if largest <= limit), largest)
    else:
        full = 65535.0 if grey.dtype.itemsize == 2 or largest <= 65535 else largest
    return np.clip(np.rint(grey * (255.0 / full)), 0, 255).astype(np.uint8)
