"""Converts prompts to token ids, with the preprocessing of the text encoder's training. Independent of the network."""

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
    """Repairs broken Unicode, unescapes HTML entities (also if escaped twice), and collapses white space."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text.strip())


def load_tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    """Loads UMT5's tokenizer from `folder`, the checkpoint's `google/umt5-xxl`, for a network with `vocabulary` tokens.

    tokenizer.json defines the whole pipeline. transformers is not used: from version 5 on, it rebuilds the pipeline from
    the vocabulary alone, treats spaces differently, and so gives other ids than those the text encoder was trained on.

    Raises:
        UserError: if tokenizer.json is missing, cannot be read, or does not belong to the network.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"no tokenizer in {folder}: tokenizer.json is missing (it is part of Wan2.1's checkpoint)")
    try:
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        ends = {tuple(tokenizer.encode(text).ids[-1:]) for text in ("", "a")}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises a bare Exception, or panics, which is not even an Exception
        raise UserError(f"the tokenizer in {folder} cannot be read; download the folder again: {error}") from error
    if tokenizer.num_special_tokens_to_add(is_pair=False) != 1 or len(ends) != 1:
        raise UserError(f"{file} does not end texts with an end token (its post-processor): download the folder again")
    largest = max(*ends.pop(), *tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= vocabulary:
        raise UserError(f"{file} has the token {largest}, but the text encoder knows {vocabulary}: download it again")
    return tokenizer


def tokenize(
    tokenizer: Tokenizer, prompts: Sequence[str], text_len: int
) -> tuple[Int[np.ndarray, "B text_len"], Int[np.ndarray, "B text_len"]]:
    """(ids, mask) of the cleaned prompts, truncated to `text_len`, always with the end token, and padded with zeros."""
    ids = np.zeros((len(prompts), text_len), np.int32)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        *tokens, end = tokenizer.encode(clean(prompt)).ids
        tokens = [*tokens[: text_len - 1], end]
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask
