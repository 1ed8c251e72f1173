"""What the tests of captions share: a small model that makes something of them."""

import torch

from manyfill.models.config import PRESETS, CaptionSpec
from manyfill.models.hvae import CAPTION_PARTS, ConditionalHVAE
from manyfill.models.tokens import Vocabulary

SMALL = CaptionSpec(tokens=300, length=6, width=8, depth=1, heads=2)
CAPTIONS = ["A brown dog on the grass", "two dogs on grass", "snow and a blue sky", "A red car", "the sea", "a cat"]


def tiny(captions: CaptionSpec | None = SMALL, seed: int = 0, told: bool = True) -> ConditionalHVAE:
    """With `told`, weights that make something of a caption, as none do at first."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ConditionalHVAE(PRESETS["tiny32"].model_copy(update={"captions": captions})).eval()
        for name, parameter in model.named_parameters():
            if told and name.startswith(CAPTION_PARTS):
                torch.nn.init.normal_(parameter, std=0.3)
    if captions:
        model.vocabulary = Vocabulary.learnt(CAPTIONS, captions.tokens)
    return model
