import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from itjax.conditioning.prompt import NEGATIVE_PROMPT, clean, load_tokenizer, tokenize
from itjax.config import Umt5Sizes
from itjax.errors import UserError
from itjax.models.umt5 import Umt5
from itjax.weights import mapping
from itjax.weights.tables.umt5 import TABLE

TEXT_LEN = 64


@pytest.fixture(scope="module")
def wan(recordings):
    return recordings / "checkpoint" / "Wan2.1-I2V-14B-480P"


@pytest.fixture(scope="module")
def tokenizer(wan):
    return load_tokenizer(wan / "google" / "umt5-xxl", 320)


@pytest.fixture(scope="module")
def states(wan, tokenizer):
    """states(prompts): for each its states, cut to its length, from the tiny text encoder."""
    loaded = torch.load(wan / "models_t5_umt5-xxl-enc-bf16.pth", weights_only=True)
    model = Umt5(Umt5Sizes(vocabulary=320, width=48, attention_width=40, mlp=56, layers=2, heads=4))
    tokens = jnp.zeros((1, TEXT_LEN), jnp.int32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens, tokens))["params"]
    params = mapping.to_jax(TABLE, shapes, {name: tensor.numpy() for name, tensor in loaded.items()})
    apply = jax.jit(model.apply)

    def encode(prompts):
        ids, mask = tokenize(tokenizer, prompts, TEXT_LEN)
        encoded = np.asarray(apply({"params": params}, ids, mask))
        return [state[: kept.sum()] for state, kept in zip(encoded, mask, strict=True)]

    return encode


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("  A woman   sings &amp; smiles\n", "A woman sings & smiles"),
        ("a &amp;lt;b&amp;gt; c", "a <b> c"),
        ("caf\u00c3\u00a9\u3000\tdone", "caf\u00e9 done"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_cleaning(prompt, expected):
    assert clean(prompt) == expected


def test_ids_follow_the_recording(tokenizer, recordings, module_recording):
    texts = json.loads((recordings / "modules" / "umt5_texts.json").read_text())
    ids, mask = tokenize(tokenizer, texts, TEXT_LEN)
    np.testing.assert_array_equal(ids, module_recording("umt5")["inputs.ids"])
    np.testing.assert_array_equal(mask, module_recording("umt5")["inputs.mask"])


@pytest.mark.parametrize("run", ["image_one_person", "image_two_people", "video_one_person"])
def test_prompts_of_runs_follow_the_recording(run, states, recordings):
    """From the prompt in the input file and from our negative prompt (its first 64 tokens) to the states of the run."""
    folder = recordings / "runs" / run
    recording = load_file(folder / "recording.safetensors")
    prompt = json.loads((folder / "input.json").read_text())["prompt"]
    ours = states([prompt, NEGATIVE_PROMPT])
    # float32 both; the order of sums differs
    chex.assert_trees_all_close(ours, [recording["text_prompt"], recording["text_negative"]], atol=2e-5)


def test_a_long_prompt_is_cut_before_the_end_token(tokenizer):
    full, _ = tokenize(tokenizer, [NEGATIVE_PROMPT], 512)
    cut, mask = tokenize(tokenizer, [NEGATIVE_PROMPT], 10)
    end = tokenizer.token_to_id("</s>")
    assert cut[0].tolist() == [*full[0, :9].tolist(), end]
    assert mask.sum() == 10


def test_an_absent_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path / "umt5-xxl")):
        load_tokenizer(tmp_path / "umt5-xxl", 320)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"version": "1.0", "model": null}'])
def test_a_damaged_tokenizer_is_named(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_tokenizer(tmp_path, 320)


def without_end(content: dict) -> None:
    content["post_processor"] = None


def with_end_first(content: dict) -> None:
    content["post_processor"]["single"].reverse()


def with_large_end(content: dict) -> None:
    content["post_processor"]["special_tokens"]["</s>"]["ids"] = [320]


def with_large_piece(content: dict) -> None:
    content["added_tokens"] += [content["added_tokens"][0] | {"id": 320, "content": "<new>"}]
    content["model"]["vocab"] += [["more", -1.0]] * (320 - len(content["model"]["vocab"]))


@pytest.mark.parametrize("change", [without_end, with_end_first, with_large_end, with_large_piece])
def test_a_tokenizer_of_another_network_is_named(change, wan, tmp_path):
    content = json.loads((wan / "google" / "umt5-xxl" / "tokenizer.json").read_text())
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"tokenizer\.json (does not end texts|has the token 320).*download"):
        load_tokenizer(tmp_path, 320)
