"""Tiny checkouts that stand for others' repositories: the names that the adapters use, and the smallest networks."""

from pathlib import Path

HPS = """
class Hyperparams(dict):
    __getattr__ = dict.get
    __setattr__ = dict.__setitem__

HPARAMS_REGISTRY = {"imagenet64": {"enc_blocks": "64x2,64d2,32x4", "dec_blocks": "32x8,64m32,64x2"}}

def add_vae_arguments(parser):
    for name in ("hps", "enc_blocks", "dec_blocks"):
        parser.add_argument("--" + name)
    for name in ("seed", "width"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--train_encoder_decoder")
    parser.add_argument("--mask_distortion", action="store_true")
    return parser

def parse_args_and_update_hparams(H, parser, s=None):
    H.update(vars(parser.parse_args(s)), n_batch=2)
"""

VAE = """
import math
import torch
from torch import nn
import wandb

class Base(nn.Module):
    def __init__(self, H, reads):
        super().__init__()
        self.size = H.image_size
        self.net = nn.Sequential(nn.Conv2d(reads, H.width, 1), nn.Conv2d(H.width, 3, 1))

    def cost(self, read, target):
        off = (self.net(read.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) - target).square().mean()
        return dict(elbo=math.log(256) + off, loss=off, distortion=off, rate=0 * off)

    def draw(self, n):
        return torch.full((n, self.size, self.size, 3), 200, dtype=torch.uint8).numpy()

class VAE(Base):
    def __init__(self, H):
        super().__init__(H, 3)

    def forward(self, x, target):
        return self.cost(x, target)

    def forward_uncond_samples(self, n):
        return self.draw(n)

class ConditionalVAE(Base):
    def __init__(self, H):
        assert H.train_encoder_decoder == "all" and H.mask_distortion
        super().__init__(H, 4)

    def forward(self, part, x, target):
        return self.cost(part, target)

    def forward_uncond_samples(self, n, part):
        return self.draw(n)
"""

HELPERS = """
import torch
from mpi4py import MPI
from apex.optimizers import FusedAdam
from torchvision.datasets import ImageFolder

class Folder(ImageFolder):
    pass

def load_opt(H, vae, logprint):
    optimizer = FusedAdam(vae.parameters(), lr=1e-3)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0), 0, 0, 0
"""

TRAIN = """
from vae import VAE
from train_helpers import load_opt

def get_cpu_stats_over_ranks(stats):
    raise RuntimeError("needs a GPU")

def sample_part_images(H, images):
    raise RuntimeError("draws holes of its own")

def training_step(H, read, target, vae, ema_vae, optimizer, iterate):
    optimizer.zero_grad()
    {forward}
    stats["elbo"].backward()
    optimizer.step()
    return dict(get_cpu_stats_over_ranks(stats), skipped_updates=1 if iterate == 0 else 0)
"""

FORWARDS = {
    "vdvae": "stats = vae.forward(read, target)",
    "ipa": "stats = vae.forward(sample_part_images(H, read), read, target)",
}

PARTS = """
from torch import nn

class ResBlock(nn.Module):
    def __init__(self, outer, inner):
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm2d(outer), nn.ReLU(), nn.Conv2d(outer, inner, 1), nn.Conv2d(inner, outer, 1)
        )

    def forward(self, x):
        return x + self.net(x)

class SkipConnection(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.inner_net = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.inner_net(x)

class MemoryLayer(nn.Module):
    kept = {}

    def __init__(self, id, output=False):
        super().__init__()
        self.id, self.output = id, output

    def forward(self, x):
        import torch
        if self.output:
            return torch.cat([x, self.kept[self.id]], 1)
        self.kept[self.id] = x
        return x
"""

PROBABILITIES = """
import torch
from torch.distributions import Normal

def normal_parse_params(params, min_sigma=0):
    mean, scale = params.chunk(2, 1)
    return Normal(mean, torch.nn.functional.softplus(scale).clamp(min=min_sigma))
"""

MODEL = """
import torch
from torch import nn
from mask_generators import ImageMaskGenerator
from nn_utils import MemoryLayer, ResBlock, SkipConnection
from prob_utils import normal_parse_params

class Loss:
    min_sigma = 0.01

    def __call__(self, x, params, mask):
        return (normal_parse_params(params, 0.01).log_prob(x) * mask).flatten(1).sum(1)

def sampler(params):
    return normal_parse_params(params).mean

def optimizer(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)

batch_size, vlb_scale_factor = 4, 100
reconstruction_log_prob, mask_generator = Loss(), ImageMaskGenerator()

def encoder(memory):
    kept = lambda name: [MemoryLayer(name)] if memory else []
    return nn.Sequential(
        *kept("0"), nn.Conv2d(6, 8, 1), ResBlock(8, 8),
        *kept("1"), nn.AvgPool2d(2, 2), ResBlock(8, 8),
        *kept("2"), nn.AvgPool2d(2, 2), nn.Conv2d(8, 16, 1), ResBlock(16, 8),
        nn.AvgPool2d(32, 32), nn.Conv2d(16, 32, 1), SkipConnection(nn.BatchNorm2d(32), nn.Conv2d(32, 32, 1)),
    )

proposal_network, prior_network = encoder(False), encoder(True)
generative_network = nn.Sequential(
    nn.Conv2d(16, 16, 1), nn.Conv2d(16, 8, 1), nn.Upsample(scale_factor=64), ResBlock(8, 8),
    MemoryLayer("2", True), nn.Conv2d(16, 8, 1), ResBlock(8, 8),
    nn.Upsample(scale_factor=2), MemoryLayer("1", True), nn.Conv2d(16, 8, 1), ResBlock(8, 8),
    MemoryLayer("0", True), nn.Conv2d(14, 8, 1), nn.Conv2d(8, 6, 1),
)
"""

CORE = """
import torch
from torch import nn
from prob_utils import normal_parse_params

class VAEAC(nn.Module):
    def __init__(self, rec_log_prob, proposal, prior, generative):
        super().__init__()
        self.rec_log_prob, self.proposal, self.prior, self.generative = rec_log_prob, proposal, prior, generative

    def make_observed(self, x, mask):
        raise RuntimeError("indexes by bytes")

    def latents(self, x, mask):
        q = normal_parse_params(self.proposal(torch.cat([x, mask], 1)), 0.001)
        return q, normal_parse_params(self.prior(torch.cat([self.make_observed(x, mask), mask], 1)), 0.001)

    def batch_vlb(self, x, mask):
        return self.batch_iwae(x, mask, 1)

    def batch_iwae(self, x, mask, K):
        q, p = self.latents(x, mask)
        z = q.rsample()
        weight = (p.log_prob(z) - q.log_prob(z)).flatten(1).sum(1)
        return self.rec_log_prob(x, self.generative(z), mask) + weight

    def generate_samples_params(self, x, mask, K):
        return self.generative(self.latents(x, mask)[1].sample())[:, None]
"""


def write(folder: Path, peer: str) -> Path:
    """A checkout of one of the peers in folder/PEER."""
    files = {"VAEAC.py": CORE, "nn_utils.py": PARTS, "prob_utils.py": PROBABILITIES, "celeba_model/model.py": MODEL}
    if peer != "vaeac":
        train = TRAIN.replace("{forward}", FORWARDS[peer])
        files = {"hps.py": HPS, "vae.py": VAE, "train_helpers.py": HELPERS, "train.py": train}
    for name, text in files.items():
        (folder / peer / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / peer / name).write_text(text)
    return folder / peer
