"""The contrastive training of small picture and text encoders: tokenizer, scenes, loss, and a run."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itjax.conditioning.prompt import NEGATIVE_PROMPT, load_tokenizer, tokenize
from itjax.config import ClipSizes, Umt5Sizes
from itjax.media.resize import to_unit
from itjax.models.clip_pixels import clip_pixels
from itjax.progress import SILENT
from itjax.synthetic import workers
from itjax.training.contrastive import measure, scenes, tokenizer, train
from itjax.training.contrastive.scenes import Drawing, Pool
from itjax.training.contrastive.settings import TEXT_LEN, UMT5, ContrastiveTraining
from itjax.training.contrastive.step import Compared, loss, normalised
from itjax.training.run import End
from itjax.training.small_loop import Plan
from itjax.weights import store

TINY = ContrastiveTraining(
    steps=2, batch=6, pairs_of_people=2, first_scenes=4, scenes_per_step=2, most_scenes=8, embedding=8, text_len=72,
    clip=ClipSizes(image=32, patch=16, width=16, layers=2, heads=2, mlp=16),
    umt5=Umt5Sizes(vocabulary=512, width=16, attention_width=16, mlp=16, layers=1, heads=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def drawn_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "SCENES", 150)
        tokenizer.drawn_tokenizer().save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder, UMT5.vocabulary)


def test_words_of_drawn_prompts_are_single_tokens(drawn_tokenizer):
    text = "A woman with tied red hair and green eyes in an orange jacket, smiling."
    words = [
        "▁a",
        "▁woman",
        "▁with",
        "▁tied",
        "▁red",
        "▁hair",
        "▁and",
        "▁green",
        "▁eyes",
        "▁in",
        "▁an",
        "▁orange",
        "▁jacket",
    ]
    assert drawn_tokenizer.encode(text).tokens == [*words, ",", "▁smiling", ".", "</s>"]
    prompts = [*tokenizer.drawn_prompts(30, 2), NEGATIVE_PROMPT]
    lengths = [len(drawn_tokenizer.encode(prompt).ids) for prompt in prompts]
    assert 60 < max(lengths) <= TEXT_LEN
    assert {1} == {drawn_tokenizer.encode(prompt).ids[-1] for prompt in prompts}


@pytest.mark.parametrize("text", ["żółty kot", "漢字, 7 words", "extraordinary people", "a <tag> & co."])
def test_any_text_is_read_and_written(drawn_tokenizer, text):
    ids = drawn_tokenizer.encode(text).ids
    assert 2 not in ids and drawn_tokenizer.decode(ids) == text


def test_the_tokenizer_is_the_same_whatever_the_order_of_prompts():
    prompts = tokenizer.drawn_prompts(20, 1)
    assert tokenizer.tokenizer_of(prompts).to_str() == tokenizer.tokenizer_of(prompts[::-1]).to_str()


@pytest.mark.parametrize("persons", [1, 2])
def test_a_scene_is_what_its_prompt_says(persons):
    drawn = scenes.draw((3, 1), persons, "test", 32)
    assert drawn.stills.shape == (scenes.STILLS, 32, 32 * persons, 3)
    assert (drawn.stills[0] != drawn.stills[1]).mean() > 0.02
    assert f"{drawn.wall} wall" in drawn.prompt and f"{drawn.hair} " in drawn.prompt.split("hair")[0]
    again, other = scenes.draw((3, 1), persons, "test", 32), scenes.draw((3, 1), persons, "train", 32)
    assert np.array_equal(again.stills, drawn.stills) and other.prompt != drawn.prompt


def test_pictures_are_what_inference_gives_to_clip():
    stills = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
    expected = np.stack([clip_pixels(to_unit(still), 24) for still in stills])
    np.testing.assert_allclose(normalised(stills, 24), expected, atol=1e-6)  # float32; products in another order


def test_the_same_prompt_is_no_negative():
    unit = jnp.eye(3)
    ids = jnp.asarray([[5, 1], [5, 1], [7, 1]])
    # both prompts of the first two examples are as near to both pictures: without the mask that would cost log 2
    pictures = unit[jnp.asarray([0, 0, 1])]
    value, right = loss(Compared(pictures, pictures, jnp.asarray(4.0)), ids)
    assert float(value) < 1e-3 and float(right) == 1
    different = jnp.asarray([[5, 1], [6, 1], [7, 1]])
    assert float(loss(Compared(pictures, pictures, jnp.asarray(4.0)), different)[0]) == pytest.approx(
        np.log(2) * 2 / 3, abs=1e-3
    )
    swapped = Compared(pictures, pictures[::-1], jnp.asarray(1.0))
    assert float(loss(swapped, ids)[0]) > float(loss(Compared(pictures, pictures, jnp.asarray(1.0)), ids)[0])


def test_read_outs_and_retrieval_tell_what_is_there():
    rng = np.random.default_rng(0)
    names = [("black", "red", "grey")[n] for n in rng.integers(3, size=200)]
    features = rng.normal(size=(200, 8)) + 3 * np.eye(8)[[len(name) % 8 for name in names]]
    read = lambda truth: measure._read_out(features[:100], names[:100], features[100:], truth)
    assert read(names[100:]) > 0.9 and read(names[99::-1]) < 0.6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two steps, with one process that draws."""
    folder = tmp_path_factory.mktemp("contrastive") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SCENES_PER_TASK", 4)
        patch.setattr(tokenizer, "SCENES", 20)
        patch.setattr(train, "Drawing", lambda processes: Drawing(processes, 32))
        patch.setattr(workers, "MOST", 1)
        patch.setattr(measure, "scenes", partial(measure.scenes, fit=12, held_out=8))
        assert train.train(TINY, Plan(folder, TINY.steps, log_every=1), SILENT) is End.DONE
    return folder


@pytest.mark.slow
def test_a_run_leaves_weights_tokenizer_and_figures(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    card = json.loads((run / "result" / "card.json").read_text())
    assert card["figures"].keys() == card["gate"].keys() and all(0 <= value <= 1 for value in card["figures"].values())
    weights = run / "result" / "weights"
    metadata, names = store.read_metadata(weights), store.open_checkpoint(weights).names()
    assert metadata["clip"]["width"] == 16 and {name.split("/")[0] for name in names} == {"clip", "umt5"}
    found = load_tokenizer(store.companion_files(weights) / "google/umt5-xxl", TINY.umt5.vocabulary)
    assert found.encode("a red wall").tokens == ["▁a", "▁red", "▁wall", "</s>"]


def test_a_batch_depends_on_seed_and_step_only(monkeypatch, drawn_tokenizer):
    class Here(Drawing):
        """Draws at once, in this process."""

        def __init__(self):
            pass

        def begin(self, seed, numbers, persons, split):
            done = scenes.Future()
            done.set_result(scenes._draw_many(seed, numbers, persons, split, 16))
            return done

    monkeypatch.setattr(scenes, "SCENES_PER_TASK", 2)
    tokens = lambda prompts: tokenize(drawn_tokenizer, prompts, TEXT_LEN)[0]
    first, resumed = (Pool(Here(), tokens, 5, 1, (4, 1, 8)) for _ in range(2))
    batches = [first.batch(step, 3) for step in range(4)]
    assert all(map(np.array_equal, batches[3], resumed.batch(3, 3)))
    assert not np.array_equal(batches[2].stills, batches[3].stills)
    assert [first.in_use(step) for step in (0, 1, 2, 100)] == [4, 4, 6, 8]
    assert len({ids.tobytes() for ids in batches[0].ids}) == 3  # each of another scene
    jax.tree.map(lambda leaf: np.testing.assert_(leaf.dtype in (np.uint8, np.int32)), batches[0])
