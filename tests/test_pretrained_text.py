"""A frozen text encoder of the transformers library: tiny ones, made here, of random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captions import CAPTIONS
from pictures import patches, png, write_folder
from safetensors.torch import load_file, save_file
from training import Micro, state, stop_at, unequal

from manyfill.checkpoint import load_model
from manyfill.errors import ConfigError, ModelError
from manyfill.models.pretrained import PretrainedText, width_of
from manyfill.pipeline import Filler
from manyfill.train.loop import Trainer, run

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")


def made(folder: Path, kind: str, seed: int = 0) -> Path:
    """A checkpoint of CLIP's, RoBERTa's or T5's kind."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<pad>", "<unk>", "</s>"]
    tokenizer.train_from_iterator(
        CAPTIONS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        text = {"vocab_size": 300, "max_position_embeddings": 16, **sizes, **ends}
        if kind == "clip":
            model: Any = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text))
        elif kind == "clip with its pictures":
            vision = {**sizes, "image_size": 32, "patch_size": 16}
            model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))
        elif kind.startswith("roberta"):
            config = transformers.RobertaConfig(**text | {"pad_token_id": 1})
            model = transformers.RobertaModel(config, add_pooling_layer=kind == "roberta")
        else:
            config = transformers.T5Config(vocab_size=300, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
            model = transformers.T5EncoderModel(config)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("clip"), "clip")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "manyfill" / "captions"


@pytest.mark.parametrize(("kind", "width"), [("clip", 16), ("t5", 12)])
def test_states_are_those_of_the_encoder(tmp_path: Path, kind: str, width: int) -> None:
    folder = made(tmp_path / kind, kind)
    encoder = PretrainedText(str(folder))
    assert encoder.width == width == width_of(str(folder))
    read = encoder.read([CAPTIONS[0], None, "a cat"], 5)
    assert read.shape == (3, 5, width) and not read[1].any() and read[0].any(1).all()
    model = (transformers.CLIPTextModel if kind == "clip" else transformers.T5EncoderModel).from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([tokenizer("a cat").input_ids])).last_hidden_state[0]
    assert encoder.count("a cat") == len(states) < 5
    torch.testing.assert_close(read[2, : len(states)], states, rtol=1e-3, atol=1e-3)
    assert not read[2, len(states) :].any()


@pytest.mark.parametrize(
    ("kind", "longest"), [("clip", 16), ("clip with its pictures", 16), ("roberta", 14), ("t5", None)]
)
def test_captions_are_no_longer_than_the_encoder_reads(
    micro: Micro, tmp_path: Path, kind: str, longest: int | None
) -> None:
    encoder = str(made(tmp_path / "encoder", kind))
    most = longest or 99
    told = f"model.captions.encoder={encoder}"
    captions = micro(told, f"model.captions.length={most}", captions=True).model.captions
    text = PretrainedText(encoder)
    assert captions and captions.encoder_width == text.width
    assert text.read([" ".join(CAPTIONS * 3)], most).any(2).sum() == min(most, text.count(" ".join(CAPTIONS * 3)))
    if longest:
        with pytest.raises(
            ConfigError, match=rf"model\.captions\.length={most + 1}: .*encoder reads {most} tokens at most; take"
        ):
            micro(told, f"model.captions.length={most + 1}", captions=True)


def test_an_encoder_without_a_pooler_is_the_same_each_time(tmp_path: Path) -> None:
    folder = made(tmp_path / "bare", "roberta without a pooler")
    first = PretrainedText(str(folder))
    again = PretrainedText(str(folder), first.sha256)
    assert torch.equal(again.read(CAPTIONS, 5), first.read(CAPTIONS, 5))


def test_an_encoder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "cut", "clip")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "fc1.weight" in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"no text encoder can be loaded from there \(its weights lack .*fc1\.weight"):
        PretrainedText(str(folder)).read(["a cat"], 5)


def test_a_data_set_is_read_once(clip: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = PretrainedText(str(clip))
    fresh = first.read(CAPTIONS, 6)
    first.keep(CAPTIONS, 6, cache)
    assert torch.equal(first.read(CAPTIONS, 6), fresh)
    again = PretrainedText(str(clip))

    def refuse(*_: object) -> np.ndarray:
        raise AssertionError("is in the cache")

    monkeypatch.setattr(again, "_encoded", refuse)
    again.keep([*CAPTIONS, CAPTIONS[0]], 6, cache)
    assert torch.equal(again.read(CAPTIONS, 6), fresh)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("flip", [True, False])
def test_captions_of_mirrored_pictures_are_read_ahead_too(
    micro: Micro, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    text = {"0.png": png(patches(1)[0]), "0.txt": b"a dog on the left"}
    data = [str(write_folder(tmp_path / "data", text))]
    told = [f"model.captions.encoder={clip}", "model.captions.length=6", f"data.flip={str(flip).lower()}"]
    vocabulary = Trainer(
        micro(*told, data=data, validation=data, captions=True), tmp_path / "run"
    ).state.model.vocabulary
    assert isinstance(vocabulary, PretrainedText)
    asked: list[str] = []
    monkeypatch.setattr(vocabulary, "_remembered", lambda caption, _: asked.append(caption) or np.zeros((1, 16)))
    vocabulary.read(["a dog on the left", "a dog on the right"], 6)
    assert asked == ([] if flip else ["a dog on the right"])


def test_a_run_with_an_encoder_goes_on_and_fills(
    micro: Micro, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {f"{i}.txt": f"{caption}\n".encode() for i, caption in enumerate(CAPTIONS)}
    data = write_folder(tmp_path / "data", {f"{i}.png": png(p) for i, p in enumerate(patches(6))} | texts)
    told = [f"model.captions.{key}" for key in (f"encoder={clip}", "length=6", "width=8", "heads=2", "depth=1")]
    settings = micro(*told, "train.validation_pictures=2", data=[str(data)], captions=True, steps=4)
    assert settings.model.captions and settings.model.captions.encoder_width == 16
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        run(settings, tmp_path / "parts")
    run(settings, tmp_path / "parts")
    assert not unequal(state(tmp_path / "whole")[0], state(tmp_path / "parts")[0])
    model = tmp_path / "whole" / "model"
    assert (model / "encoder.json").exists() and not (model / "tokenizer.json").exists()
    hole = np.ones((8, 8), bool)
    filler = Filler.from_pretrained(model)
    assert filler(patches(1)[0][:8, :8], hole, n=1, caption="a red car").images
    made(clip, "clip", seed=1)
    try:
        assert load_model(model).figures  # without a caption the encoder is not asked
        with pytest.raises(ModelError, match="another text encoder"):
            Filler.from_pretrained(model)(patches(1)[0][:8, :8], hole, n=1, caption="a red car")
    finally:
        made(clip, "clip")


def test_what_is_no_text_encoder_is_refused(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(ModelError, match=r"model\.captions\.encoder .*no text encoder") as caught:
            micro(f"model.captions.encoder={place}", captions=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="go together"):
        micro("model.captions.encoder_width=16", captions=True)
    with pytest.raises(ModelError, match=r"gone: no text encoder"):  # as a fill asks, of a model copied without it
        PretrainedText(str(tmp_path / "gone"), "0" * 64).read(["a cat"], 4)
    with pytest.raises(ModelError, match=r"encoder\.json"):
        PretrainedText.of("[]")
