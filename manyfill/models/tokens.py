"""From a caption to numbers: byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909), learnt from the user's own
captions.

Shapes: B captions, T tokens.
"""

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from manyfill.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NOTHING = 0
"""The number that stands where there is no token."""
FEWEST = 2  # occurrences of a pair of tokens that becomes one
# The library's threads would not outlive the fork of a data loader's workers, of which it warns.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Vocabulary:
    """Byte-pair tokens of captions in lower case, kept as the JSON of the `tokenizers` library; ModelError if none."""

    file = "tokenizer.json"

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.size = self._tokenizer.get_vocab_size()
        except Exception as error:  # the library raises nothing more special
            raise ModelError(f"{self.file}: is none of the tokenizers library ({error})") from None

    @classmethod
    def of(cls, text: str) -> "Vocabulary":
        """From what `text` gave; ModelError."""
        return cls(text)

    @classmethod
    def learnt(cls, captions: Iterable[str], tokens: int) -> "Vocabulary":
        """The vocabulary of at most so many tokens of captions; the same for the same captions in the same order."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
        # Of bytes, so that there is no character that it cannot read.
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=tokens,
            min_frequency=FEWEST,
            special_tokens=["[NOTHING]"],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(captions, trainer)
        return cls(tokenizer.to_str())

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.text)

    def __deepcopy__(self, _: dict[int, Any]) -> "Vocabulary":
        return self  # it never changes

    def count(self, caption: str) -> int:
        """How many tokens a caption has."""
        return len(self._tokenizer.encode(caption).ids)

    def read(self, captions: Sequence[str | None], length: int) -> Tensor:
        """Numbers int64 (B, length) of each caption's first tokens, then NOTHING; of None there are none."""
        rows = torch.full((len(captions), length), NOTHING)
        for row, caption in zip(rows, captions, strict=True):
            if caption is not None:
                found = torch.tensor(self._tokenizer.encode(caption).ids[:length], dtype=torch.int64)
                row[: len(found)] = found
        return rows
