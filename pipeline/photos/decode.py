"""Any photo file to upright 8-bit RGB, or a reason why not.

Pillow decodes everything: OpenCV returns a truncated JPEG half grey without a word, and knows neither CMYK nor GIF palettes well.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

EMPTY, UNREADABLE, TRUNCATED, TOO_LARGE = "empty", "unreadable", "truncated", "too large"
ORIENTATION = 0x0112  # EXIF's tag
DECODE_REASONS = (EMPTY, UNREADABLE, TRUNCATED, TOO_LARGE)


class PhotoError(ValueError):
    """A photo that cannot be used; `reason` is what `rejects.parquet` says of it."""

    def __init__(self, reason: str) -> None:
        assert reason in DECODE_REASONS, reason
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Reduced:
    """A photo decoded with fewer pixels than its file has."""

    pixels: np.ndarray  # uint8 H×W×3, RGB, 0..255, contiguous, upright
    size: tuple[int, int]  # height and width of the whole photo, upright, px

    @property
    def times(self) -> tuple[float, float]:
        """Pixels of the whole photo for one of `pixels`: along x, along y; 1.0 where nothing was reduced."""
        return self.size[1] / self.pixels.shape[1], self.size[0] / self.pixels.shape[0]

    @property
    def whole(self) -> bool:
        """Whether the photo has all its pixels."""
        return self.pixels.shape[:2] == self.size


def decode_photo(content: bytes, *, max_side: int) -> np.ndarray:
    """Decode a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF file: its first frame, turned upright as EXIF says.

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
    return decode_reduced(content, max_side=max_side, least_side=max_side).pixels


def decode_reduced(content: bytes, *, max_side: int, least_side: int) -> Reduced:
    """`decode_photo`, but a JPEG whose half, quarter or eighth still has a longer side of `least_side` px is decoded at that size.

    The decoder then transforms fewer frequencies of each block, which is the average over its pixels to within a few grey levels, in a
    fraction of the time.

    Args:
        content: the whole file.
        max_side: the longest side, px, that a photo may have.
        least_side: the least that the longer side is reduced to, px.

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
                width, height = image.size
                times = next((times for times in (8, 4, 2) if max(width, height) // times >= least_side), 1)
                if times > 1:
                    image.draft(image.mode, (max(1, width // times), max(1, height // times)))  # other formats ignore it
                image.load()
                turned, sideways = upright(image)
                return Reduced(to_rgb(turned), (width, height) if sideways else (height, width))
    except PhotoError:
        raise
    except Image.DecompressionBombError:
        raise PhotoError(TOO_LARGE) from None
    except UnidentifiedImageError:
        raise PhotoError(TRUNCATED if cut_short(content) else UNREADABLE) from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, EOFError, ValueError, … on broken files
        broken_off = "truncated" in str(error) or isinstance(error, EOFError) or cut_short(content)
        raise PhotoError(TRUNCATED if broken_off else UNREADABLE) from None


def colour_profile(content: bytes) -> bytes | None:
    """The ICC profile that the values of a decoded photo are in (phones write Display P3), with a palette or transparency, too.

    None without one, or if it is of grey, CMYK or another space than RGB: those values were converted.
    """
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        profile = image.info.get("icc_profile")
    return profile if profile and profile[16:20] == b"RGB " else None  # the header's field for the colour space


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


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The photo turned as its EXIF orientation says, and whether its sides have changed places; broken EXIF is taken for none."""
    from PIL import ImageOps

    try:
        sideways = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return ImageOps.exif_transpose(image), sideways
    except Exception:  # malformed EXIF raises many kinds; it is no reason to lose the photo
        return image, False


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
