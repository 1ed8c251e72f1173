import sys

import numpy as np
import pytest
import skimage.data

from manyfill.data.loader import tile
from manyfill.errors import ConfigError
from manyfill.evaluate.baselines import FAMILIES, inpaint, methods
from manyfill.masks import draw
from manyfill.rng import numpy_generator

METHODS = methods([",".join(FAMILIES)])


def photograph(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    pixels = tile(np.asarray(skimage.data.chelsea()), 32, None)[..., :channels]
    return np.ascontiguousarray(pixels), draw("brush", 32, 32, numpy_generator(0, "test"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_baselines_keep_the_known_and_never_read_the_hole(method: str, channels: int) -> None:
    pixels, mask = photograph(channels)
    guess = inpaint(METHODS[method], pixels, mask)
    assert guess.shape == pixels.shape and guess.dtype == np.float64
    assert np.array_equal(guess[~mask], pixels[~mask])
    altered = pixels.copy()
    altered[mask] = 255 - altered[mask]
    assert np.array_equal(inpaint(METHODS[method], altered, mask), guess)


@pytest.mark.parametrize("method", METHODS)
def test_baselines_continue_a_flat_picture(method: str) -> None:
    # OpenCV's Telea truncates as it marches; a Gaussian draws all that it is not told towards the mean.
    tolerance = {"telea": 4, "gaussian": 10}.get(method, 0.5)
    pixels = np.full((32, 32, 3), (200, 90, 7), np.uint8)
    guess = inpaint(METHODS[method], pixels, draw("centre", 32, 32, numpy_generator(0, "test")))
    assert np.abs(guess - pixels).max() < tolerance


def test_biharmonic_continues_a_ramp_and_the_mean_is_of_known_pixels() -> None:
    ramp = np.broadcast_to(np.arange(20, 212, 6, dtype=np.uint8)[:, None, None], (32, 32, 1))
    mask = np.zeros((32, 32), bool)
    mask[8:16, 8:24] = True
    assert np.abs(inpaint(METHODS["biharmonic"], ramp, mask) - ramp).max() < 0.5
    assert inpaint(METHODS["mean colour"], ramp, mask)[mask] == pytest.approx(ramp[~mask].mean())


def test_the_nearest_pixel_is_copied() -> None:
    pixels = np.zeros((4, 8, 1), np.uint8)
    pixels[:, :4], pixels[:, 4:] = 10, 200
    mask = np.zeros((4, 8), bool)
    mask[1, 1:7] = True
    assert inpaint(METHODS["nearest pixel"], pixels, mask)[1, :, 0].tolist() == [10] * 4 + [200] * 4


def test_nothing_known_is_middle_grey() -> None:
    assert (inpaint(METHODS["telea"], np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)) == 127.5).all()


# ----------------------------------------------------------------------------------------- a program of one's own

PROGRAM = """
import sys
import numpy as np
from PIL import Image
image, mask, out = (sys.argv[i] for i in (1, 2, 3))
pixels, hole = np.asarray(Image.open(image)).copy(), np.asarray(Image.open(mask)) > 127
assert not pixels[hole].any(), "the hole is to be blank"
pixels[hole] = 77
Image.fromarray(pixels{crop}).save(out)
"""


def command(tmp_path, crop: str = "") -> str:
    script = tmp_path / "grey.py"
    script.write_text(PROGRAM.replace("{crop}", crop))
    return f"cmd:{sys.executable} {script} {{image}} {{mask}} {{out}}"


def test_commands_of_one_program_go_by_names_of_their_own() -> None:
    found = methods(["opencv", "cmd:one=python a {image} {mask} {out}", "cmd:two=python b {image} {mask} {out}"])
    assert list(found) == ["telea", "navier-stokes", "one", "two"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_command_fills_like_any_other_method(tmp_path, channels: int) -> None:
    ((name, method),) = methods([command(tmp_path)]).items()
    pixels, mask = photograph(channels)
    guess = inpaint(method, pixels, mask)
    assert name == sys.executable.rpartition("/")[2]
    assert (guess[mask] == 77).all() and np.array_equal(guess[~mask], pixels[~mask])


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("opencv,lama", "lama: no such method; choose from opencv, biharmonic, mean, nearest"),
        ("cmd:fill {image} {out}", "lacks {mask}"),
        ("cmd:fill '{image}", "mend its quotes"),
        ("cmd:lama=fill {image} {mask} {out}", "another is called lama"),
    ],
)
def test_what_cannot_be_a_method_is_refused_at_once(item: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("{", "[{]")):
        methods(["cmd:lama=python first.py {image} {mask} {out}", item])


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("cmd:no-such-program {image} {mask} {out}", "cannot be run"),
        (
            f"cmd:{sys.executable} -c 'import sys; sys.exit(\"out of paint\")' {{image}} {{mask}} {{out}}",
            "out of paint",
        ),
        (f"cmd:{sys.executable} -c pass {{image}} {{mask}} {{out}}", "wrote no picture"),
        (f"cmd:cp {__file__} {{out}} {{image}} {{mask}}", "failed with exit code 1"),
    ],
)
def test_a_failing_command_is_one_line_naming_it(item: str, said: str) -> None:
    (method,) = methods([item]).values()
    with pytest.raises(ConfigError) as error:
        inpaint(method, *photograph())
    assert said in str(error.value) and item in str(error.value) and "\n" not in str(error.value)


def test_an_answer_of_another_size_is_refused(tmp_path) -> None:
    (method,) = methods([command(tmp_path, crop="[:20]")]).values()
    with pytest.raises(ConfigError, match="its answer is 32x20 for a 32x32 picture"):
        inpaint(method, *photograph())
