from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.photos.decode import PhotoError, colour_profile, decode_photo, decode_reduced
from pipeline.photos.source import is_photo_name

RED, HALVES = (200, 30, 40), np.zeros((40, 60, 3), np.uint8)
HALVES[:20] = RED  # upper half red, lower half black


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(content: bytes, max_side: int = 4096) -> np.ndarray:
    photo = decode_photo(content, max_side=max_side)
    assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3 and photo.flags.c_contiguous
    return photo


def reason(content: bytes, max_side: int = 4096) -> str:
    with pytest.raises(PhotoError) as caught:
        decode_photo(content, max_side=max_side)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF"])
def test_each_format(kind: str) -> None:
    assert is_photo_name(f"a.{kind.lower()}")
    photo = decoded(encoded(Image.fromarray(HALVES), kind))
    assert photo.shape == (40, 60, 3)
    assert np.abs(photo[:16].astype(int) - RED).max() < 12 and photo[24:].max() < 12


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("YCbCr", "JPEG")])
def test_each_colour_mode_becomes_rgb(mode: str, kind: str) -> None:
    image = Image.fromarray(np.full((30, 30, 3), 255, np.uint8)).convert(mode)
    assert decoded(encoded(image, kind)).min() > 240


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_decoding_leaves_the_colour_space_of_rgb_as_it_is(mode: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(Image.fromarray(HALVES).convert(mode), "PNG", icc_profile=profile)
    assert colour_profile(content) == profile


@pytest.mark.parametrize(("mode", "space"), [("L", b"GRAY"), ("CMYK", b"CMYK")])
def test_the_profile_of_values_that_were_converted_is_not_theirs_any_more(mode: str, space: bytes) -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = space
    image = Image.fromarray(HALVES).convert(mode)
    assert colour_profile(encoded(image, "JPEG", icc_profile=bytes(profile))) is None
    assert colour_profile(encoded(image, "JPEG")) is None


def test_cmyk_keeps_its_colours() -> None:
    photo = decoded(encoded(Image.fromarray(HALVES).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(photo[5, 5].astype(int) - RED).max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    pixels = np.zeros((10, 10, 4), np.uint8)
    pixels[:5, :, 3] = 255
    image = Image.fromarray(pixels)
    if mode == "P":
        flat = Image.new("P", (10, 10), 0)
        flat.putpalette([0, 0, 0, 9, 9, 9])
        flat.paste(1, (0, 5, 10, 10))
        content = encoded(flat, "PNG", transparency=1)
    else:
        content = encoded(image.convert(mode), "PNG")
    photo = decoded(content)
    assert photo[:5].max() == 0 and photo[5:].min() == 255


def deep_png(samples: np.ndarray, colour: int) -> bytes:
    """A 16-bit PNG of uint16 H×W×C, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    chunks = b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_are_scaled_not_clipped(colour: int, channels: int) -> None:
    samples = np.full((8, 8, channels), 32768, np.uint16)
    if channels in (2, 4):
        samples[..., -1] = 65535  # opaque
    assert np.abs(decoded(deep_png(samples, colour)).astype(int) - 128).max() <= 1


def test_16_bit_grey_tiff_and_float_tiff() -> None:
    deep = Image.fromarray(np.full((8, 8), 32768, np.uint16))
    assert np.abs(decoded(encoded(deep, "TIFF")).astype(int) - 128).max() <= 1
    assert np.abs(decoded(encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF")).astype(int) - 128).max() <= 1
    assert reason(encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF")) == "unreadable"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decoded(encoded(Image.fromarray(HALVES), "JPEG", exif=exif))
    assert photo.shape == ((40, 60, 3) if orientation <= 4 else (60, 40, 3))
    red = photo[..., 0] > 100
    where = {1: "top", 2: "top", 3: "bottom", 4: "bottom", 5: "left", 6: "right", 7: "right", 8: "left"}[orientation]
    half = {"top": red[:10], "bottom": red[-10:], "left": red[:, :10], "right": red[:, -10:]}[where]
    assert half.all() and red.mean() < 0.6


def test_broken_exif_is_no_reason_to_lose_a_photo() -> None:
    content = encoded(Image.fromarray(HALVES), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff" * 3)
    assert decoded(content).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, (0, 0, 255), (0, 255, 0))]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(decoded(content)[10, 10].astype(int) - RED).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    found = reason(content[: int(len(content) * share)])
    assert found == "truncated" or (kind in ("TIFF", "AVIF") and found == "unreadable")


def test_progressive_jpeg_truncated() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG", progressive=True)
    assert decoded(content).shape == (64, 64, 3)
    assert reason(content[: len(content) // 2]) == "truncated"


@pytest.mark.parametrize("content", [b"not a photo", b"<html></html>", b"\0" * 500, b"%PDF-1.7", b"\x89PNG\r\n\x1a\nIEND"])
def test_unreadable(content: bytes) -> None:
    assert reason(content) == "unreadable"


def test_empty() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(("width", "height"), [(20_000, 4), (20_000, 20_000), (60_000, 60_000)])
def test_too_large_is_seen_in_the_header(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header promises more pixels than the file holds: decoding them would say 'truncated'."""
    content = deep_png(np.zeros((1, 1, 3), np.uint16), 2)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]
    assert reason(content, 8192) == "too large"


def test_longest_side_allowed() -> None:
    content = encoded(Image.new("RGB", (300, 20)), "PNG")
    assert decoded(content, 300).shape == (20, 300, 3)
    assert reason(content, 299) == "too large"


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 128 + 60 * np.sin(x / 40) * np.cos(y / 30)], 2).astype(np.uint8)


@pytest.mark.parametrize(("least_side", "times"), [(200, 8), (399, 4), (400, 4), (401, 2), (800, 2), (801, 1)])
def test_a_jpeg_is_reduced_as_far_as_it_may(least_side: int, times: int) -> None:
    content = encoded(Image.fromarray(smooth(1203, 1601)), "JPEG", quality=95)
    found = decode_reduced(content, max_side=4096, least_side=least_side)
    assert found.size == (1203, 1601) and found.whole == (times == 1)
    assert found.pixels.shape == (-(-1203 // times), -(-1601 // times), 3) and found.pixels.flags.c_contiguous
    assert found.times == pytest.approx((times, times), rel=0.01)
    whole = decoded(content)[: 1203 // times * times, : 1601 // times * times].astype(float)
    averages = whole.reshape(1203 // times, times, 1601 // times, times, 3).mean((1, 3))
    assert np.abs(found.pixels[: 1203 // times, : 1601 // times] - averages).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_photo_is_upright_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(smooth(300, 301)), "JPEG", quality=95, exif=exif)
    found, whole = decode_reduced(content, max_side=4096, least_side=150), decoded(content)
    assert found.size == whole.shape[:2] and not found.whole
    sampled = whole[:299:2, :299:2]
    assert np.abs(found.pixels[: len(sampled), : sampled.shape[1]].astype(int) - sampled).mean() < 4


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_each_mode_is_reduced(mode: str) -> None:
    content = encoded(Image.fromarray(smooth(256, 256)).convert(mode), "JPEG", quality=95)
    found = decode_reduced(content, max_side=4096, least_side=64)
    assert found.pixels.shape == (64, 64, 3)
    assert np.abs(found.pixels - decoded(content).reshape(64, 4, 64, 4, 3).mean((1, 3))).max() < 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_other_formats_are_decoded_whole(kind: str) -> None:
    assert decode_reduced(encoded(Image.fromarray(smooth(64, 90)), kind), max_side=4096, least_side=10).whole


def test_reduced_or_not_a_bad_photo_has_its_reason() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    for progressive in (False, True):
        content = encoded(Image.fromarray(noise), "JPEG", progressive=progressive)
        with pytest.raises(PhotoError, match="truncated"):
            decode_reduced(content[: len(content) // 2], max_side=4096, least_side=64)
    with pytest.raises(PhotoError, match="too large"):
        decode_reduced(encoded(Image.fromarray(noise), "JPEG"), max_side=255, least_side=64)
    strip = decode_reduced(encoded(Image.fromarray(noise[:2]), "JPEG"), max_side=4096, least_side=32)
    assert strip.size == (2, 256) and 32 <= strip.pixels.shape[1] <= 256
