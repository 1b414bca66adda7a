"""From a prompt to token ids, as the text encoder was trained to read it. Knows no network."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import ftfy
import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from itjax.errors import UserError

NEGATIVE_PROMPT = (
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, "
    "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
    "poorly drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, "
    "messy background, three legs, many people in the background, walking backwards"
)


def clean(prompt: str) -> str:
    """Broken Unicode mended, HTML entities read (also those escaped twice), white space folded."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text.strip())


def load_tokenizer(folder: Path) -> Tokenizer:
    """UMT5's tokenizer from `folder`, the checkpoint's `google/umt5-xxl`.

    tokenizer.json holds the whole pipeline. transformers from version 5 on builds it anew from the vocabulary alone,
    with another treatment of spaces, and so gives other ids than those the text encoder was trained on.

    Raises:
        UserError: where tokenizer.json is missing or cannot be read.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"no tokenizer in {folder}: tokenizer.json is missing (it comes with Wan2.1's checkpoint)")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for whatever is wrong with the file
        raise UserError(f"the tokenizer in {folder} cannot be read; fetch the folder again: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenize(
    tokenizer: Tokenizer, prompts: Sequence[str], text_len: int
) -> tuple[Int[np.ndarray, "B text_len"], Int[np.ndarray, "B text_len"]]:
    """(ids, mask) of the cleaned prompts: each ends with the end token, also where it was cut; zeros follow."""
    ids = np.zeros((len(prompts), text_len), np.int32)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        *tokens, end = tokenizer.encode(clean(prompt)).ids
        tokens = [*tokens[: text_len - 1], end]
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask
