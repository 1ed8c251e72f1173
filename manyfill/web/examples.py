"""Photographs to try the page with: scikit-image's bundled, freely licensed samples, where it is installed."""

from functools import cache

from manyfill.images import png_bytes

TITLES = {
    "cat": "Cat",
    "astronaut": "Astronaut",
    "coffee": "Coffee",
    "rocket": "Rocket",
    "motorcycle": "Motorcycle",
    "camera": "Photographer",
}


def titles() -> dict[str, str]:
    """What each example is called; none without scikit-image."""
    try:
        import skimage.data  # noqa: F401
    except ImportError:
        return {}
    return TITLES


@cache
def picture(name: str) -> bytes | None:
    """An example as PNG; None if there is none of that name."""
    if name not in titles():
        return None
    from skimage import data

    pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    return png_bytes(pixels if pixels.ndim == 3 else pixels[..., None])
