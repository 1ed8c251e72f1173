"""LPIPS, Inception's features, FID and KID: against torchmetrics, against answers known on paper, and by definition.

No published weights are needed: networks are compared under shared random ones.
Shapes: B batch, C channels, H W size, N M pictures, D features.
"""

import itertools
import math
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.hub
import torch.nn.functional as F
import torchmetrics.functional.image.lpips as reference_lpips
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from manyfill.errors import DataError, ModelError, PictureError
from manyfill.evaluate import perceptual
from manyfill.evaluate.inception import Inception, Mixed
from manyfill.evaluate.perceptual import Lpips, Moments, Pretrained, frechet_distance, kernel_distance
from manyfill.rng import generator


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "normal"), dtype=torch.float64)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """On [-1, 1]."""
    return torch.rand(*shape, generator=generator(seed, "pictures")) * 2 - 1


def randomised(network: nn.Module) -> nn.Module:
    """The network with weights that keep the signal's size through all layers, statistics that are not 0 and 1."""
    g = generator(0, "weights")
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.normal_(0, math.sqrt(2 / layer.weight[0].numel()), generator=g)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            for values, low, high in (
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -0.2, 0.3),
                (layer.running_mean, -0.2, 0.2),
                (layer.running_var, 0.3, 1.7),
            ):
                values.uniform_(low, high, generator=g)
    return network.eval().requires_grad_(False)


def followed(recipe: str, downloads: Callable[[str], dict[str, Tensor]], folder: Path) -> None:
    """Do what the indented lines of a HOW_TO_GET say, in a folder and without the net."""

    def get(url: str, *, map_location: str, weights_only: bool) -> dict[str, Tensor]:
        assert map_location == "cpu" and weights_only
        return downloads(url)

    code = "\n".join(line for line in recipe.splitlines() if line.startswith("    "))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(torch.hub, "load_state_dict_from_url", get)
        exec(compile(textwrap.dedent(code), "HOW_TO_GET", "exec"), {})


# -------------------------------------------------------------------------------------------------------- LPIPS


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


# ---------------------------------------------------------------------------------------------------- Inception


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inception]:
    """Random weights that went through the recipe and a file, among tensors that nobody needs."""
    folder = tmp_path_factory.mktemp("inception")
    tensors = randomised(Inception()).state_dict()
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    tensors = {name: t for name, t in tensors.items() if name not in counters}
    extra = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008), counters[0]: torch.tensor(7)}
    followed(Inception.HOW_TO_GET, lambda url: tensors | extra, folder)
    yield Inception.load(folder / "inception.safetensors")
    (folder / "inception.safetensors").unlink()


def test_inception_has_the_published_layers(inception: Inception) -> None:
    """21,785,568 is InceptionV3 without its classifiers: torchvision's 27,161,264 less 2,049,000 and 3,326,696."""
    assert sum(weights.numel() for weights in inception.parameters()) == 21_785_568
    shapes = {name: tuple(t.shape) for name, t in inception.state_dict().items()}
    assert sum(name.endswith("conv.weight") for name in shapes) == 94
    published = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch1x1.bn.running_mean": (64,),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
        "Mixed_7a.branch7x7x3_3.conv.weight": (192, 192, 7, 1),
        "Mixed_7b.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3dbl_1.bn.bias": (448,),
        "Mixed_7c.branch3x3dbl_3a.conv.weight": (384, 384, 1, 3),
    }
    assert {name: shapes[name] for name in published} == published


def test_one_picture_through_inception(inception: Inception) -> None:
    """Resized but not rescaled, grey repeated, down through the published sizes, averaged to 2048 features."""
    seen: dict[str, Tensor] = {}
    for name, stage in inception.named_children():
        stage.register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: output, f"to {name}": inputs[0]})
        )
    ramp = torch.linspace(-1, 1, 13).expand(1, 1, 9, 13)
    features = inception(ramp)
    resized = seen["to Conv2d_1a_3x3"]
    # Pixel j of 299 has its centre at (j + 1/2) 13 / 299 - 1/2 of 13; the ramp rises by 1/6 a pixel.
    expected = (((torch.arange(299) + 0.5) * 13 / 299 - 0.5) / 6 - 1).clamp(-1, 1)
    torch.testing.assert_close(resized, expected.expand(1, 3, 299, 299), rtol=0, atol=1e-5)
    sizes = {name: tuple(t.shape[1:3]) for name, t in seen.items() if not name.startswith("to ")}
    assert list(sizes.values()) == [
        *((32, 149), (32, 147), (64, 147), (64, 73), (80, 73), (192, 71), (192, 35)),
        *((256, 35), (288, 35), (288, 35)),
        *((768, 17),) * 5,
        *((1280, 8), (2048, 8), (2048, 8)),
    ]
    assert features.shape == (1, 2048) and features.isfinite().all() and features.std() > 0.01
    torch.testing.assert_close(features, seen["Mixed_7c"].flatten(2).mean(2))


def test_averages_leave_the_padding_out_and_the_last_pool_is_a_maximum(inception: Inception) -> None:
    ones = torch.ones(1, 1, 4, 4)
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 0, 2] = 6.0
    for block in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        pool = inception.get_submodule(f"Mixed_{block}.pool")
        assert torch.equal(pool(ones), ones)
        assert pool(spike)[0, 0, :, 2].tolist() == [1, pytest.approx(2 / 3), 0, 0, 0]
    highest = inception.get_submodule("Mixed_7c.pool")(spike)
    assert highest[0, 0, :, 2].tolist() == [6, 6, 0, 0, 0] and highest.sum() == 36


class Written:
    """The five kinds of block once more, written out from the paper's figures over a state dict, layer by layer."""

    def __init__(self, block: Mixed) -> None:
        self.state = block.state_dict()

    def go(self, x: Tensor, *names: str, stride: int = 1) -> Tensor:
        """Through these layers in turn; the last one strides."""
        for name in names:
            weight = self.state[f"{name}.conv.weight"]
            step = stride if name == names[-1] else 1
            x = F.conv2d(x, weight, stride=step, padding=0 if step > 1 else [k // 2 for k in weight.shape[2:]])
            mean, var, gain, bias = (
                self.state[f"{name}.bn.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = ((x - mean) / (var + 0.001).sqrt() * gain + bias).clamp(min=0)
        return x

    def mean3(self, x: Tensor) -> Tensor:
        kernel = torch.ones(x.shape[1], 1, 3, 3)
        counts = F.conv2d(torch.ones_like(x), kernel, padding=1, groups=len(kernel))
        return F.conv2d(x, kernel, padding=1, groups=len(kernel)) / counts

    def a(self, x: Tensor) -> list[Tensor]:
        five = self.go(x, "branch5x5_1", "branch5x5_2")
        three = self.go(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return [self.go(x, "branch1x1"), five, three, self.go(self.mean3(x), "branch_pool")]

    def b(self, x: Tensor) -> list[Tensor]:
        double = self.go(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", stride=2)
        return [self.go(x, "branch3x3", stride=2), double, F.max_pool2d(x, 3, 2)]

    def c(self, x: Tensor) -> list[Tensor]:
        single = self.go(x, *(f"branch7x7_{n}" for n in range(1, 4)))
        double = self.go(x, *(f"branch7x7dbl_{n}" for n in range(1, 6)))
        return [self.go(x, "branch1x1"), single, double, self.go(self.mean3(x), "branch_pool")]

    def d(self, x: Tensor) -> list[Tensor]:
        seven = self.go(x, *(f"branch7x7x3_{n}" for n in range(1, 5)), stride=2)
        return [self.go(x, "branch3x3_1", "branch3x3_2", stride=2), seven, F.max_pool2d(x, 3, 2)]

    def e(self, x: Tensor, pooled: Tensor) -> list[Tensor]:
        three = self.go(x, "branch3x3_1")
        double = self.go(x, "branch3x3dbl_1", "branch3x3dbl_2")
        ends = [self.go(three, "branch3x3_2a"), self.go(three, "branch3x3_2b")]
        ends += [self.go(double, "branch3x3dbl_3a"), self.go(double, "branch3x3dbl_3b")]
        return [self.go(x, "branch1x1"), *ends, self.go(pooled, "branch_pool")]

    def e_mean(self, x: Tensor) -> list[Tensor]:
        return self.e(x, self.mean3(x))

    def e_max(self, x: Tensor) -> list[Tensor]:
        return self.e(x, F.max_pool2d(x, 3, 1, 1))


@pytest.mark.parametrize(
    ("block", "kind", "channels"),
    [
        ("5b", "a", 192),
        ("6a", "b", 288),
        ("6d", "c", 768),
        ("7a", "d", 768),
        ("7b", "e_mean", 1280),
        ("7c", "e_max", 2048),
    ],
)
def test_the_blocks_agree_with_their_definition(inception: Inception, block: str, kind: str, channels: int) -> None:
    mixed = inception.get_submodule(f"Mixed_{block}")
    assert isinstance(mixed, Mixed)
    x = normal(2, channels, 7, 6).float()
    expected = torch.cat(getattr(Written(mixed), kind)(x), 1)
    torch.testing.assert_close(mixed(x), expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------- FID


class Given(nn.Module):
    """The feature extractor of torchmetrics where the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def with_moments(mean: Tensor, covariance: Tensor, count: int = 10) -> Moments:
    """The moments of a set of pictures that has exactly this mean (D,) and covariance (D, D)."""
    return Moments(count, count * mean, (count - 1) * covariance + count * torch.outer(mean, mean))


def some_covariance(width: int, seed: int) -> Tensor:
    root = normal(width, width, seed=seed)
    return root @ root.T


def test_moments_have_the_mean_and_covariance_of_the_features_in_float64() -> None:
    features = (normal(50, 6) * 3 + 5).float()
    moments = Moments.of(features)
    assert moments.count == 50 and moments.mean().dtype == torch.float64
    torch.testing.assert_close(moments.mean(), features.double().mean(0))
    torch.testing.assert_close(moments.covariance(), torch.cov(features.double().T))


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    features = normal(40, 5)
    joined = Moments.of(features[:0])
    for part in features.split([7, 1, 0, 32]):
        joined = joined + Moments.of(part)
    whole = Moments.of(features)
    assert joined.count == whole.count == 40
    torch.testing.assert_close(joined.mean(), whole.mean())
    torch.testing.assert_close(joined.covariance(), whole.covariance())


def test_frechet_distance_of_equal_moments_is_0() -> None:
    for features in (normal(200, 12), normal(5, 12), torch.ones(4, 12)):
        moments = Moments.of(features)
        assert 0 <= frechet_distance(moments, moments) < 1e-6


def test_frechet_distance_of_independent_features_is_a_sum_over_them() -> None:
    mean_a, mean_b, std_a, std_b = normal(4, 8)
    std_a, std_b = std_a.abs(), std_b.abs()
    a, b = with_moments(mean_a, (std_a**2).diag()), with_moments(mean_b, (std_b**2).diag(), count=17)
    expected = ((mean_a - mean_b) ** 2 + (std_a - std_b) ** 2).sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_two_correlated_features_has_a_closed_form() -> None:
    """tr (A B)^(1/2) of 2x2 matrices is (tr A B + 2 (det A B)^(1/2))^(1/2)."""
    mean_a, mean_b = torch.tensor([0.0, 1.0]).double(), torch.tensor([2.0, 0.5]).double()
    cov_a, cov_b = torch.tensor([[2.0, 1.2], [1.2, 1.0]]).double(), torch.tensor([[1.0, -0.7], [-0.7, 3.0]]).double()
    product = cov_a @ cov_b
    root = (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()
    expected = (4.25 + cov_a.trace() + cov_b.trace() - 2 * root).item()
    a, b = with_moments(mean_a, cov_a), with_moments(mean_b, cov_b)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_does_not_see_directions_that_nothing_varies_in() -> None:
    """Fewer pictures than features: turned into a space of 40 dimensions, three stay three."""
    turn = torch.linalg.qr(normal(40, 40)).Q[:3]
    a, b = normal(9, 3), normal(8, 3, seed=1) * 2 + 1
    flat = frechet_distance(Moments.of(a), Moments.of(b))
    assert frechet_distance(Moments.of(a @ turn), Moments.of(b @ turn)) == pytest.approx(flat, rel=1e-9)
    assert flat > 1


def test_frechet_distance_agrees_with_torchmetrics() -> None:
    a, b = normal(60, 10) @ some_covariance(10, 2) / 5, normal(45, 10, seed=1) + 0.3
    reference = FrechetInceptionDistance(feature=Given(10)).set_dtype(torch.float64)
    reference.update(a, real=True)
    reference.update(b, real=False)
    found = frechet_distance(Moments.of(a), Moments.of(b))
    assert found == pytest.approx(reference.compute().item(), rel=1e-9) and found > 1


# ---------------------------------------------------------------------------------------------------------- KID


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # With one feature the kernel is (x y + 1)^3: within a 1, within b 27, across 1, 1, 8, 27.
        ([0, 1], [1, 2], 1 + 27 - 2 * 37 / 4),
        # Within a 1, 1, 27; across 1, 1, 8, 27, 27, 125.
        ([0, 1, 2], [1, 2], 29 / 3 + 27 - 2 * 189 / 6),
        # (-1 + 1)^3 = 0 within a, 1 within b and across.
        ([1, -1], [0, 0], 0 + 1 - 2 * 1),
    ],
)
def test_kernel_distance_worked_by_hand(a: list[int], b: list[int], expected: float) -> None:
    x, y = torch.tensor(a)[:, None], torch.tensor(b)[:, None]
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(y, x) == pytest.approx(expected, rel=1e-12)
    twice = torch.cat([x, x], 1), torch.cat([y, y], 1)  # the kernel divides by the number of features
    assert kernel_distance(*twice) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    """Averaged over every way to draw 2 and 3 pictures from sets of 2, it is the distance of the sets themselves."""
    p, q = torch.tensor([[0.0, 1.0], [1.0, -2.0]]).double(), torch.tensor([[2.0, 0.5], [-1.0, 1.0]]).double()

    def mean_kernel(x: Tensor, y: Tensor) -> float:
        return ((x @ y.T / 2 + 1) ** 3).mean().item()

    expected = mean_kernel(p, p) + mean_kernel(q, q) - 2 * mean_kernel(p, q)
    draws = itertools.product(itertools.product(p, repeat=2), itertools.product(q, repeat=3))
    found = [kernel_distance(torch.stack(a), torch.stack(b)) for a, b in draws]
    assert len(found) == 32 and sum(found) / 32 == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_kernel_distance_agrees_with_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(60, 7), normal(60, 7, seed=1) + 0.3
    reference = KernelInceptionDistance(feature=Given(7), subsets=1, subset_size=60).set_dtype(torch.float64)
    reference.update(a, real=True)
    reference.update(b, real=False)
    expected = pytest.approx(reference.compute()[0].item(), rel=1e-9)
    assert kernel_distance(a, b) == expected
    monkeypatch.setattr(perceptual, "ROWS", 13)
    assert kernel_distance(a, b) == expected


def test_single_pictures_are_refused() -> None:
    one, two = normal(1, 3), normal(2, 3)
    for a, b in ((one, two), (two, one)):
        with pytest.raises(DataError, match="give two or more"):
            kernel_distance(a, b)
        with pytest.raises(DataError, match="give two or more"):
            frechet_distance(Moments.of(a), Moments.of(b))


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


def test_kid_of_paired_sets_leaves_the_pairs_out() -> None:
    """A fill and its truth agree in what is known; counted as pairs of independent pictures, that reads as nearness."""
    noise = generator(0, "pairs")
    shared = torch.randn(60, 8, generator=noise)
    a, b = (0.95 * shared + 0.31 * torch.randn(60, 8, generator=noise) for _ in range(2))
    kernel = ((a.double() @ b.double().T / 8 + 1) ** 3).fill_diagonal_(0).sum() / (60 * 59)
    inside = [((x.double() @ x.double().T / 8 + 1) ** 3).fill_diagonal_(0).sum() / (60 * 59) for x in (a, b)]
    assert kernel_distance(a, b, paired=True) == pytest.approx(float(sum(inside) - 2 * kernel), rel=1e-9)
    assert kernel_distance(a, b) < kernel_distance(a, b, paired=True) - 0.05
