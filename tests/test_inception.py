"""Inception's features: the published layers, and each kind of block against its definition.

Shapes: B batch, C channels, H W size.
"""

from collections.abc import Iterator

import pytest
import torch
import torch.hub
import torch.nn.functional as F
from networks import followed, normal, randomised
from torch import Tensor

from manyfill.evaluate.inception import Inception, Mixed


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
