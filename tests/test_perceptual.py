"""LPIPS against torchmetrics, and the files of weights.

No published weights are needed: networks are compared under shared random ones.
Shapes: B batch, C channels, H W size.
"""

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.hub
import torchmetrics.functional.image.lpips as reference_lpips
from networks import followed, pictures, randomised

from manyfill.errors import ModelError, PictureError
from manyfill.evaluate.inception import Inception
from manyfill.evaluate.perceptual import Lpips, Pretrained


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    network = Lpips()
    randomised(network)
    for name, weights in network.named_parameters():
        if name.startswith("lin"):  # the published heads have no negative weights
            weights.abs_()
    return network


@pytest.mark.parametrize("size", [(31, 40), (64, 64), (97, 50)])
def test_lpips_agrees_with_torchmetrics(lpips: Lpips, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs takes AlexNet's layers from torchvision, which is not here; it gets ours."""
    monkeypatch.setattr(reference_lpips, "_get_tv_model_features", lambda net, pretrained: lpips.features)
    reference = reference_lpips._LPIPS(pretrained=False, net="alex", pnet_rand=True)
    heads = {name: t for name, t in lpips.state_dict().items() if name.startswith("lin")}
    assert not reference.load_state_dict(heads, strict=False).unexpected_keys
    a, b = pictures(3, 3, *size), pictures(3, 3, *size, seed=1)
    found = lpips(a, b)
    assert found.shape == (3,)
    torch.testing.assert_close(found, reference(a, b).flatten(), rtol=1e-5, atol=0)


def test_alexnet_has_the_layers_of_its_paper(lpips: Lpips) -> None:
    shapes = [tuple(h.shape) for h in lpips._directions(pictures(1, 3, 224, 224))]
    assert shapes == [(1, 64, 55, 55), (1, 192, 27, 27), (1, 384, 13, 13), (1, 256, 13, 13), (1, 256, 13, 13)]
    convolutions = sum(t.numel() for name, t in lpips.state_dict().items() if name.startswith("features"))
    assert convolutions == 2_469_696


def test_lpips_is_0_for_equal_pictures_symmetric_and_apart_for_each_pair(lpips: Lpips) -> None:
    a, b = pictures(2, 3, 40, 40), pictures(2, 3, 40, 40, seed=1)
    assert lpips(a, a).tolist() == [0, 0]
    both = lpips(a, torch.stack([a[0], b[1]]))
    assert both[0] == 0 and both[1] > 0.01
    torch.testing.assert_close(lpips(a, b), lpips(b, a))
    torch.testing.assert_close(both[1:], lpips(a[1:], b[1:]))


def test_lpips_takes_grey_pictures_as_three_equal_channels(lpips: Lpips) -> None:
    a, b = pictures(2, 1, 32, 32), pictures(2, 1, 32, 32, seed=1)
    torch.testing.assert_close(lpips(a, b), lpips(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)))


def test_lpips_refuses_pictures_that_it_cannot_compare(lpips: Lpips) -> None:
    small, smallest = pictures(1, 3, 30, 60), pictures(1, 3, 31, 31)
    assert lpips(smallest, -smallest).isfinite().all()
    with pytest.raises(PictureError, match="30x60 is too small for LPIPS; enlarge to 31"):
        lpips(small, small)
    with pytest.raises(PictureError, match="differ"):
        lpips(smallest, smallest.repeat(2, 1, 1, 1))
    for shape in ((3, 40, 40), (1, 4, 40, 40)):
        with pytest.raises(PictureError, match=r"give \(B, 3, H, W\) or grey"):
            lpips(pictures(*shape), pictures(*shape))


def test_the_lpips_recipe_makes_a_file_that_loads(lpips: Lpips, tmp_path: Path) -> None:
    state = lpips.state_dict()
    files = {
        "alexnet-owt-7be5be79.pth": {"classifier.1.weight": torch.zeros(3)}
        | {name: t for name, t in state.items() if name.startswith("features")},
        "alex.pth": {name: t for name, t in state.items() if name.startswith("lin")},
    }
    followed(Lpips.HOW_TO_GET, lambda url: files[url.rsplit("/", 1)[1]], tmp_path)
    loaded = Lpips.load(tmp_path / "lpips.safetensors")
    assert not any(weights.requires_grad for weights in loaded.parameters())
    a, b = pictures(1, 3, 32, 32), pictures(1, 3, 32, 32, seed=1)
    assert torch.equal(loaded(a, b), lpips(a, b))


# -------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("network", [Lpips, Inception])
def test_a_file_that_does_not_load_is_refused_in_one_line(network: type[Pretrained], tmp_path: Path) -> None:
    text, folder, torch_file = tmp_path / "text", tmp_path / "folder", tmp_path / "weights.pth"
    text.write_text("<html>404</html>")
    folder.mkdir()
    torch.save({"features.0.weight": torch.zeros(1)}, torch_file)
    some = tmp_path / "some.safetensors"
    safetensors.torch.save_file({"fc.weight": torch.zeros(2), "features.0.weight": torch.zeros(2)}, some)
    for path, complaint in (
        (tmp_path / "none", "no such file"),
        (text, "no readable safetensors file"),
        (folder, "no readable safetensors file"),
        (torch_file, "no readable safetensors file"),
        (some, "lacks"),
    ):
        with pytest.raises(ModelError) as caught:
            network.load(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and complaint in message and "\n" not in message
        assert message.endswith(f"; {network.__name__}.HOW_TO_GET says how to make one")


def test_weights_that_are_missing_or_misshapen_are_named(lpips: Lpips, tmp_path: Path) -> None:
    path, state = tmp_path / "file", lpips.state_dict()
    safetensors.torch.save_file({name: t for name, t in state.items() if name != "lin3.model.1.weight"}, path)
    with pytest.raises(ModelError, match=r"lacks 1 of 15 tensors, as lin3\.model\.1\.weight"):
        Lpips.load(path)
    safetensors.torch.save_file(state | {"features.3.bias": torch.zeros(191)}, path)
    with pytest.raises(ModelError, match=r"features\.3\.bias has shape \(191,\) where \(192,\) is needed"):
        Lpips.load(path)
