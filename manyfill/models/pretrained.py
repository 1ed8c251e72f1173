"""Captions read by a frozen text encoder of the transformers library: CLIP's, T5's, or one of BERT's kind.

Shapes: B captions, T tokens, E width of the encoder, R tokens of a whole data set.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyfill.errors import ConfigError, ModelError, OutputError
from manyfill.files import make_folder, refusal, save_bytes, writing

KINDS = {"clip_text_model": "CLIPTextModel", "t5": "T5EncoderModel", "mt5": "MT5EncoderModel"}
PADDED = ("roberta", "xlm-roberta", "camembert", "mpnet")
REMEMBERED = 1024  # captions that are in no cache


class PretrainedText:
    """The encoder of a local directory or hub id, loaded when it is first asked; ModelError.

    `sha256` is of the encoder that a model has learnt to read by; any other is refused.
    """

    file = "encoder.json"

    def __init__(self, source: str, sha256: str | None = None) -> None:
        self.source, self._sha256 = source, sha256
        self._places: dict[str, int] = {}
        self._ends = np.zeros(1, np.int64)
        self._states = np.zeros((0, 0), np.float16)
        self._remembered = lru_cache(REMEMBERED)(self._encoded)

    @classmethod
    def of(cls, text: str) -> "PretrainedText":
        """From what `text` gave; ModelError."""
        try:
            record = json.loads(text)
            return cls(str(record["encoder"]), str(record["sha256"]))
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{cls.file}: does not name a text encoder; copy the model directory again") from None

    def __deepcopy__(self, _: dict[int, Any]) -> "PretrainedText":
        return self  # frozen

    @property
    def text(self) -> str:
        return json.dumps({"encoder": self.source, "sha256": self.sha256}) + "\n"

    @property
    def sha256(self) -> str:
        return self._sha256 or self._encoder[2]

    @property
    def width(self) -> int:
        return int(self._config.hidden_size)

    @property
    def longest(self) -> int | None:
        """How many tokens it can read, None for any number."""
        positions: int | None = getattr(self._config, "max_position_embeddings", None)
        # These number the positions from behind the padding token's number.
        skipped = self._config.pad_token_id + 1 if self._config.model_type in PADDED else 0
        return None if positions is None else positions - skipped

    @cached_property
    def _config(self) -> Any:
        """What it says of its text part."""
        library = _transformers()
        try:
            config = library.AutoConfig.from_pretrained(self.source).get_text_config()
            int(config.hidden_size)  # what reads no text has none
        except Exception as error:  # of many kinds, by what is missing
            raise _unusable(self.source, error) from None
        return config

    @cached_property
    def _encoder(self) -> tuple[Any, torch.nn.Module, str]:
        """Its tokenizer, itself, and the fingerprint of its weights."""
        library, kind = _transformers(), KINDS.get(self._config.model_type, "AutoModel")
        try:
            # Of safetensors alone: other files of weights can hold code.
            model, told = getattr(library, kind).from_pretrained(
                self.source, use_safetensors=True, output_loading_info=True
            )
            tokenizer = library.AutoTokenizer.from_pretrained(self.source)
        except Exception as error:  # of many kinds, by what is missing
            raise _unusable(self.source, error) from None
        # Drawn at random at each loading. The states do not depend on a pooler, which many are published without.
        drawn = set(told["missing_keys"])
        if lacking := sorted(key for key in drawn if not key.startswith("pooler.")):
            raise _unusable(self.source, ValueError(f"its weights lack {lacking[0]}"))
        found = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
        for name, tensor in sorted(model.state_dict().items()):
            if name not in drawn:
                found.update(tensor.float().contiguous().numpy().tobytes())
        if self._sha256 not in (None, found.hexdigest()):
            raise ModelError(f"{self.source}: is another text encoder than the one that this model learnt to read by")
        return tokenizer, model.float().eval().requires_grad_(False), found.hexdigest()

    def count(self, caption: str) -> int:
        """How many tokens a caption has."""
        return len(self._encoder[0](caption).input_ids)

    def read(self, captions: Sequence[str | None], length: int) -> Tensor:
        """The encoder's last states float32 (B, length, E) of each caption's first tokens, then 0; of None all 0."""
        rows = torch.zeros(len(captions), length, self.width)
        for row, caption in zip(rows, captions, strict=True):
            if caption is not None:
                states = torch.from_numpy(self._stored(caption, length))
                row[: len(states)] = states.float()
        return rows

    def keep(self, captions: Iterable[str], length: int, folder: Path) -> None:
        """Read the captions of a data set once for all runs: their states stay in a file of `folder`; OutputError."""
        unique = list(dict.fromkeys(captions))
        name = hashlib.sha256(json.dumps([self.sha256, length, unique]).encode()).hexdigest()[:24]
        path, ends = folder / f"{name}.states", folder / f"{name}.ends"
        try:
            if not ends.exists():
                make_folder(folder)
                counts = []
                with writing(path) as file:  # several runs may begin at once
                    for caption in unique:
                        states = self._encoded(caption, length)
                        counts.append(len(states))
                        file.write(states.tobytes())
                # Last: whoever finds it finds the states whole.
                save_bytes(ends, np.cumsum([0, *counts], dtype=np.int64).tobytes())
            self._ends = np.fromfile(ends, np.int64)
        except OSError as error:
            raise OutputError(f"{folder}: cannot hold what captions were read as ({refusal(error, folder)})") from None
        self._states = np.memmap(path, np.float16, "r", shape=(int(self._ends[-1]), self.width))
        self._places = {caption: place for place, caption in enumerate(unique)}

    def _stored(self, caption: str, length: int) -> np.ndarray:
        place = self._places.get(caption)
        if place is None:
            return self._remembered(caption, length)
        return np.array(self._states[self._ends[place] : self._ends[place + 1]])

    def _encoded(self, caption: str, length: int) -> np.ndarray:
        """float16 (T, E), as the cache holds them."""
        tokenizer, model, _ = self._encoder
        ids = torch.tensor([tokenizer(caption).input_ids[:length]])
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].half().numpy()


def width_of(source: str) -> int:
    """The width of an encoder's states; ModelError."""
    return PretrainedText(source).width


def check_length(source: str, length: int) -> None:
    """ConfigError if captions of so many tokens are too long for an encoder; ModelError."""
    longest = PretrainedText(source).longest
    if longest is not None and length > longest:
        raise ConfigError(
            f"model.captions.length={length}: {source} reads {longest} tokens at most; take {longest} or fewer"
        )


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ModelError("model.captions.encoder needs transformers: pip install 'manyfill[text]'") from None
    return transformers


def _unusable(source: str, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"model.captions.encoder {source}: no text encoder can be loaded from there ({reason})")
