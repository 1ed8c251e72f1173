"""Captions: read by a vocabulary of the user's own, told to the top-down path, and nothing where there are none."""

import json
from pathlib import Path

import pytest
import torch
from captions import CAPTIONS, SMALL, tiny
from pictures import patches, png, write_folder
from ranks import on_ranks, train
from torch import Tensor
from training import Micro, state, stop_at, unequal

from manyfill.checkpoint import digest, load_model, save_model
from manyfill.cli import main
from manyfill.data import batches, collate, open_source
from manyfill.errors import ConfigError, ModelError, PictureError
from manyfill.locate import DEFAULT_MODEL
from manyfill.models.config import PRESETS, CaptionSpec, ModelConfig, parse
from manyfill.models.hvae import CAPTION_PARTS, ConditionalHVAE
from manyfill.models.tokens import NOTHING, Vocabulary
from manyfill.rng import generator
from manyfill.train.loop import run
from manyfill.train.settings import load
from manyfill.train.setup import initial_state, training_samples

pytestmark = pytest.mark.usefixtures("one_thread")

READING = ["tokens=300", "length=6", "width=8", "depth=1", "heads=2"]


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, of which the last has no caption and the first has two."""
    folder = tmp_path_factory.mktemp("captioned")
    texts = {f"{i}.txt": f"{caption}\n".encode() for i, caption in enumerate(CAPTIONS[:5])}
    texts["0.txt"] += b"a dog\n"
    return write_folder(folder, {f"{i}.png": png(p) for i, p in enumerate(patches(6))} | texts)


def cases(count: int = 3, size: int = 32) -> tuple[Tensor, Tensor]:
    g = generator(0, "cases")
    m = torch.zeros(count, 1, size, size)
    m[:, :, 4:28, 4:28] = 1
    return torch.rand(count, 3, size, size, generator=g) * 2 - 1, m


def bound(model: ConditionalHVAE, captions: list[str | None] | None, x: Tensor, m: Tensor) -> Tensor:
    tokens = None if captions is None else model.tokens(captions)
    with torch.inference_mode():
        return model(x, m, noise=generator(0, "bound"), tokens=tokens).total


# ------------------------------------------------------------------------------------------------- the vocabulary


def test_a_vocabulary_reads_any_text_and_is_the_same_every_time() -> None:
    vocabulary = Vocabulary.learnt(CAPTIONS, 300)
    assert vocabulary.text == Vocabulary.learnt(iter(CAPTIONS), 300).text and 257 < vocabulary.size <= 300
    read = vocabulary.read(["a dog", None, "A  DOG", "Größe 日本 \N{DOG FACE}", " ".join(CAPTIONS)], 8)
    assert read.shape == (5, 8) and read.dtype == torch.int64 and read.max() < 300
    assert torch.equal(read[0, :2], read[2, read[2] != NOTHING][[0, -1]]) and not read[1].any() and read[4].all()
    assert vocabulary.count("dogs dogs") == 2 * vocabulary.count("dogs")


def test_what_is_no_vocabulary_is_refused() -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Vocabulary("{}")


def test_heads_share_the_width() -> None:
    with pytest.raises(ConfigError, match=r"width of 8 .* 3 heads"):
        parse(CaptionSpec, {"width": 8, "heads": 3}, "--set")


# ------------------------------------------------------------------------------------------------------ the model


def test_a_caption_changes_the_bound_and_no_other_pictures() -> None:
    model, (x, m) = tiny(), cases()
    untold = bound(model, None, x, m)
    some = bound(model, [None, "a brown dog", None], x, m)
    assert torch.equal(bound(model, [None, None, None], x, m), untold)
    assert torch.equal(some[::2], untold[::2]) and some[1] != untold[1]
    assert bound(model, [None, "snow", None], x, m)[1] not in (some[1], untold[1])


def test_what_a_word_is_told_to_depends_on_all_sizes_and_words() -> None:
    """Every parameter that captions are read by has a gradient."""
    model, (x, m) = tiny(), cases()
    model(x, m, noise=generator(0, "bound"), tokens=model.tokens(["a dog", "snow", None])).total.sum().backward()
    still = [name for name, p in model.named_parameters() if name.startswith(CAPTION_PARTS) and not p.grad.any()]  # type: ignore[union-attr]
    assert not still


def test_a_model_that_learns_to_read_is_at_first_the_one_it_was() -> None:
    before, reading = tiny(None), tiny(told=False)
    assert not reading.load_state_dict(before.state_dict(), strict=False).unexpected_keys
    x, m = cases()
    assert torch.equal(bound(reading, ["a dog", None, "snow"], x, m), bound(before, None, x, m))
    fresh = [tiny(spec, told=False).state_dict() for spec in (None, SMALL)]
    assert all(torch.equal(value, fresh[1][name]) for name, value in fresh[0].items())


def test_models_without_captions_are_written_as_they_were() -> None:
    config = parse(ModelConfig, json.loads((DEFAULT_MODEL / "config.json").read_text()), "config.json")
    assert config.captions is None and "captions" not in config.to_json()
    assert not (set(tiny(None).state_dict()) - set(tiny().state_dict()))


def test_a_model_is_stored_with_its_vocabulary(tmp_path: Path) -> None:
    model, (x, m) = tiny(), cases()
    save_model(tmp_path / "model", model, "# card", {})
    loaded = load_model(tmp_path / "model").model
    told: list[str | None] = ["a dog", None, "snow"]
    assert digest(loaded) == digest(model) and torch.equal(bound(loaded, told, x, m), bound(model, told, x, m))
    model.vocabulary = Vocabulary.learnt(CAPTIONS, 262)
    assert digest(loaded) != digest(model)
    (tmp_path / "model" / "tokenizer.json").write_text(model.vocabulary.text)
    with pytest.raises(ModelError, match=r"tokenizer\.json: differs from its checksum"):
        load_model(tmp_path / "model")
    model.vocabulary = None
    save_model(tmp_path / "model", model, "# card", {})
    with pytest.raises(ModelError, match=r"lacks tokenizer\.json"):
        load_model(tmp_path / "model")


# -------------------------------------------------------------------------------------------------------- training


def reading(micro: Micro, data: Path, *assignments: str, **flags: object):  # type: ignore[no-untyped-def]
    flags.setdefault("captions", True)
    told = [f"model.captions.{assignment}" for assignment in READING]
    return micro(*told, "train.validation_pictures=2", *assignments, data=[str(data)], **flags)


def test_one_caption_is_drawn_at_each_visit_by_position_alone(micro: Micro, captioned: Path) -> None:
    settings = reading(micro, captioned, "data.caption_drop=0.25")
    samples = training_samples(settings, open_source(captioned))
    told = [samples[position].told for position in range(600)]
    assert told == [caption for batch in batches_of(samples, 300) for caption in batch]
    share = {caption: told.count(caption) / 600 for caption in set(told)}
    assert set(share) == {None, "a dog", *CAPTIONS[:5]}
    # A sixth has no caption, and a quarter of the others are told none.
    assert share[None] == pytest.approx(1 / 6 + 5 / 6 / 4, abs=0.06)
    assert share["a dog"] == pytest.approx(share["the sea"] / 2, abs=0.04)


def batches_of(samples, count: int) -> list[list[str | None]]:  # type: ignore[no-untyped-def]
    stream = batches(samples, 2, workers=1)
    return [batch.told for batch, _ in zip(stream, range(count), strict=False)]


def test_a_model_without_captions_is_told_none(micro: Micro, captioned: Path) -> None:
    samples = training_samples(micro(data=[str(captioned)]), open_source(captioned))
    assert collate([samples[position] for position in range(12)]).told == [None] * 12


def test_a_run_goes_on_byte_for_byte(
    micro: Micro, captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = reading(micro, captioned, steps=6)
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        run(settings, tmp_path / "parts")
    run(settings, tmp_path / "parts")
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert not unequal(whole[0], parts[0]) and whole[1]["vocabulary"] == parts[1]["vocabulary"]
    models = [load_model(tmp_path / name / "model") for name in ("whole", "parts")]
    assert digest(models[0].model) == digest(models[1].model)
    start = initial_state(settings, torch.device("cpu")).model.state_dict()
    learnt = [name for name in start if not torch.equal(start[name], whole[0][f"model.{name}"])]
    assert {name.split(".")[0] for name in learnt} >= {"reader", "topdown"} and "topdown.joins.8.say.weight" in learnt
    assert "caption_gain" in models[0].figures and "first caption" in models[0].card


def test_ranks_and_micro_batches_learn_the_same(micro: Micro, captioned: Path, tmp_path: Path) -> None:
    """Also where a rank's or a part's pictures have no caption at all."""
    common = ["train.batch_size=4", "train.warmup_steps=2", "data.caption_drop=0.6"]
    one, parts = (reading(micro, captioned, *common, f"train.accumulate={n}", steps=6) for n in (1, 2))
    run(one, tmp_path / "one")
    run(parts, tmp_path / "parts")
    assert on_ranks(2, train, one.to_json(), str(tmp_path / "ranks"), 10) == [0, 0]
    whole, *others = (state(tmp_path / name) for name in ("one", "parts", "ranks"))
    for tensors, record in others:
        assert record["vocabulary"] == whole[1]["vocabulary"]
        for name, value in whole[0].items():
            torch.testing.assert_close(tensors[name], value, rtol=0, atol=1e-4, msg=name)


def test_init_takes_weights_over_from_a_model_without_captions(micro: Micro, captioned: Path, tmp_path: Path) -> None:
    run(micro(steps=2), tmp_path / "plain")
    init = str(tmp_path / "plain" / "model")
    settings = reading(micro, captioned, "train.learning_rate=1e-9", init=init, steps=1)
    run(settings, tmp_path / "reading")
    before, after = (load_model(tmp_path / name / "model").model.eval() for name in ("plain", "reading"))
    x, m = cases(size=8)
    torch.testing.assert_close(bound(after, ["a dog", None, "snow"], x, m), bound(before, None, x, m))
    assert before.expectation is not None and after.expectation is not None
    assert torch.equal(after.expectation.spectrum, before.expectation.spectrum)
    again = reading(micro, captioned, init=str(tmp_path / "reading" / "model"), steps=1)
    vocabulary = initial_state(again, torch.device("cpu")).model.vocabulary
    assert vocabulary is not None and after.vocabulary is not None and vocabulary.text == after.vocabulary.text
    with pytest.raises(ConfigError, match="can change"):
        initial_state(reading(micro, captioned, "model.mixtures=3", init=init), torch.device("cpu"))


def test_captions_alone_are_learnt_and_who_gives_none_loses_nothing(
    micro: Micro, captioned: Path, tmp_path: Path
) -> None:
    run(micro(steps=2), tmp_path / "plain")
    init = str(tmp_path / "plain" / "model")
    alone = ["train.only_captions=true", "train.warmup_steps=0", "train.learning_rate=0.03"]
    run(reading(micro, captioned, *alone, init=init, steps=6), tmp_path / "reading")
    before, after = (load_model(tmp_path / name / "model").model.eval() for name in ("plain", "reading"))
    x, m = cases(size=8)
    assert torch.equal(bound(after, None, x, m), bound(before, None, x, m))
    assert not torch.allclose(bound(after, ["a dog", "snow", "snow"], x, m), bound(before, None, x, m), rtol=1e-4)
    with pytest.raises(ConfigError, match="only_captions"):
        micro("train.only_captions=true")


def test_the_preset_starts_from_the_shipped_weights(captioned: Path) -> None:
    settings = load([str(captioned)], preset="caption64", init="base64")
    assert settings.model == PRESETS["caption64"] and settings.data.masks["all"] > 0
    plain = load([str(captioned)], init="base64")
    assert plain.model.captions is None and plain.data.masks != settings.data.masks
    assert load([str(captioned)], init="base64", captions=True).model == PRESETS["caption64"]
    before, reading = load_model("base64").model, initial_state(settings, torch.device("cpu")).model.eval()
    reading.vocabulary = Vocabulary.learnt(CAPTIONS, 300)
    x, m = cases(1, size=64)
    assert torch.equal(bound(reading, ["a dog"], x, m), bound(before, None, x, m))


def test_what_captions_are_read_by_learns_at_a_rate_of_its_own(micro: Micro, captioned: Path) -> None:
    model_state = initial_state(reading(micro, captioned, "train.caption_rate=3"), torch.device("cpu"))
    names = {id(p): name for name, p in model_state.model.named_parameters()}
    scales = {names[id(p)]: group["scale"] for group in model_state.optimizer.param_groups for p in group["params"]}
    assert scales.keys() == set(names.values())
    assert all(scale == (3 if name.startswith(CAPTION_PARTS) else 1) for name, scale in scales.items())


# ------------------------------------------------------------------------------------------------------- bad input


def test_pictures_without_captions_have_none_to_learn(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(photos), "--captions", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --captions: none of the 5 pictures has one") and told.count("\n") == 1


def test_captions_that_are_no_text_are_named(micro: Micro, tmp_path: Path) -> None:
    files = {f"{i}.png": png(p) for i, p in enumerate(patches(3))}
    write_folder(tmp_path / "data", files | {f"{i}.txt": b"gr\xf6\xdfer\n" for i in range(3)})
    with pytest.raises(PictureError, match=r"\d\.png: its captions are not UTF-8"):
        run(reading(micro, tmp_path / "data"), tmp_path / "run")
