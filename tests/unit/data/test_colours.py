"""Colour profiles, against the arithmetic of the published primaries."""

import io

import numpy as np
import pytest
from harness.picture_files import (
    ADOBE,
    ADOBE_GAMMA,
    DISPLAY_P3,
    SRGB,
    cmyk_profile,
    gamma_curve,
    grey_profile,
    lab_levels,
    matrix_profile,
    srgb_curve,
    srgb_decoded,
    srgb_levels,
)
from PIL import Image, ImageCms

from lediflow.data.photograph import PILLOW_MODES, Photograph, centre_square, rgb_pixels
from lediflow.data.pixels import opaque_srgb

ADOBE_PROFILE = matrix_profile(ADOBE, gamma_curve(ADOBE_GAMMA))
P3_PROFILE = matrix_profile(DISPLAY_P3, srgb_curve())
LEVELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
LEVELS[0, 0] = 60, 170, 70


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def in_adobe(levels):
    return srgb_levels((levels / 255) ** ADOBE_GAMMA @ ADOBE.T)


def in_p3(levels):
    return srgb_levels(srgb_decoded(levels / 255) @ DISPLAY_P3.T)


def assert_levels(found, expected):
    # profiles hold 16 bits, results are rounded
    np.testing.assert_allclose(found.astype(float), expected, atol=1.5)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("profile", "expected"), [(ADOBE_PROFILE, in_adobe), (P3_PROFILE, in_p3)], ids=["Adobe RGB", "Display P3"]
)
def test_colours_of_a_profile_become_those_of_srgb(kind, profile, expected):
    options = {"lossless": True} if kind == "WEBP" else {}
    found = rgb_pixels(file_of(Image.fromarray(LEVELS), kind, icc_profile=profile, **options))
    assert_levels(found, expected(LEVELS))


def test_adobe_rgb_green_is_converted_to_srgb():
    found = rgb_pixels(
        file_of(Image.new("RGB", (16, 16), (60, 170, 70)), "JPEG", quality=100, icc_profile=ADOBE_PROFILE)
    )
    np.testing.assert_allclose(found[8, 8], (0, 172, 59), atol=2)  # the JPEG itself is one off


def test_a_palette_and_a_grey_picture_have_their_profiles_colours():
    coloured = Image.new("RGB", (4, 4), (60, 170, 70)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert_levels(
        rgb_pixels(file_of(coloured, icc_profile=ADOBE_PROFILE))[0, 0], in_adobe(np.array([60, 170, 70]))
    )
    grey = rgb_pixels(file_of(Image.new("L", (4, 4), 100), icc_profile=ADOBE_PROFILE))
    assert_levels(grey[0, 0], in_adobe(np.array([100] * 3)))


def test_transparency_is_kept_through_a_profile():
    image = Image.fromarray(np.concatenate([LEVELS, np.full((8, 8, 1), 102, np.uint8)], axis=-1))
    found = rgb_pixels(file_of(image, icc_profile=ADOBE_PROFILE))
    assert_levels(found, 0.4 * in_adobe(LEVELS) + 0.6 * 255)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_greys_with_a_gamma_of_their_own_become_srgbs(mode):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(ramp).convert(mode)
    found = rgb_pixels(file_of(image, icc_profile=grey_profile(gamma_curve(1.8))))
    gamma = round(1.8 * 256) / 256
    expected = srgb_levels(((ramp / 255) ** gamma)[..., None] * SRGB.sum(axis=1))
    assert_levels(found, expected)


def inks(ink):
    """Cyan as printers have it; black, and nothing else, takes the light away."""
    cyan, _, _, black = ink
    return (0, 0, 0) if black else (55, -37, -50) if cyan else (100, 0, 0)


def test_cmyk_with_a_profile_is_converted_to_srgb():
    image = Image.frombytes("CMYK", (3, 1), bytes([0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255]))
    found = rgb_pixels(file_of(image, "TIFF", icc_profile=cmyk_profile(inks)))
    cyan = lab_levels((round(55 * 2.55) / 2.55, -37, -50))
    np.testing.assert_allclose(found[0].astype(float), [(255,) * 3, cyan, (0,) * 3], atol=2)


SRGB_PROFILES = {
    "of its primaries": matrix_profile(SRGB, srgb_curve()),
    "Little CMS's": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}
BROKEN = {
    "noise": np.random.default_rng(0).bytes(500),
    "cut": ADOBE_PROFILE[:200],
    "empty": b"\0",
    "of other pixels": cmyk_profile(inks),
    "of greys": grey_profile(gamma_curve(1.8)),
    "black": matrix_profile(ADOBE * 0, gamma_curve(ADOBE_GAMMA)),
}


@pytest.mark.parametrize("profile", SRGB_PROFILES.values(), ids=SRGB_PROFILES)
def test_an_srgb_profile_changes_no_pixel(profile):
    np.testing.assert_array_equal(rgb_pixels(file_of(Image.fromarray(LEVELS), icc_profile=profile)), LEVELS)


@pytest.mark.parametrize("profile", BROKEN.values(), ids=BROKEN)
def test_a_profile_that_cannot_be_used_leaves_the_pixels_as_they_are(profile):
    np.testing.assert_array_equal(rgb_pixels(file_of(Image.fromarray(LEVELS), icc_profile=profile)), LEVELS)


@pytest.mark.parametrize("mode", PILLOW_MODES)
def test_applying_a_profile_in_bands_changes_no_pixel(mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8))
    image.info["icc_profile"] = ADOBE_PROFILE
    found = centre_square(Photograph(image, 1200, 1200), size=1200, mode=mode)
    assert found.tobytes() == opaque_srgb(image).convert(PILLOW_MODES[mode]).tobytes()
