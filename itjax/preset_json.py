"""Reads a preset from JSON, as stored in checkpoints and datasets. Every size is checked, because files can be damaged."""

import dataclasses
import math
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from itjax.config import Apg, Networks, PictureSize, Preset, Sampler, SizeTable
from itjax.errors import SettingError

MAX_SIZE = 2**20  # of any size; the largest published one is the vocabulary, 256384
MAX_SIZES = {"layers": 1000, "num_layers": 1000, "num_res_blocks": 100, "image": 4096, "text_len": 8192}  # of these fields
MAX_ITEMS = 16  # of a list of sizes
Sizes = TypeVar("Sizes")  # a dataclass of itjax.config
PICTURE_MULTIPLE = 16  # picture sizes are whole tokens: 8 pixels per latent, 2 latents per token


def preset_from_json(content: Any) -> Preset:
    """The preset that `config.to_json` turned into `content`.

    Raises:
        ValueError: If it is not one; the message names the key and the value.
    """
    _check(isinstance(content, dict), "the preset", content, "an object")
    name, sizes = content.get("name"), content.get("sizes")
    _check(isinstance(name, str), "name", name, "a text")
    _check(isinstance(sizes, dict), "sizes", sizes, "an object")
    networks = _read(Networks, content.get("networks"), "networks")
    _check_relations(networks)
    pictures = {size: _picture_size(value, f"sizes.{size}") for size, value in sizes.items()}
    sampler = _settings(Sampler, content.get("sampler", {}), "sampler")
    # older files have a shift here which nothing read
    return Preset(name, networks, pictures, dataclasses.replace(sampler, shift=None))


def sizes_from_json(kind: type[Sizes], content: Any, key: str) -> Sizes:
    """The sizes of one network, of the class `kind`; `key` names them in messages.

    Raises:
        ValueError: If they are none; the message names the key and the value.
    """
    return cast(Sizes, _read(kind, content, key))


def _check(condition: bool, key: str, value: Any, expected: str) -> None:
    if not condition:
        raise ValueError(f"{key} is {str(value)[:60]!r}, but must be {expected}")


def _read(kind: Any, value: Any, key: str) -> Any:
    """`value` as a `kind`: a dataclass of sizes, a tuple, or a number."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        _check(isinstance(value, dict), key, value, "an object")
        kinds = get_type_hints(kind)
        for field in value.keys() - kinds.keys():
            raise ValueError(f"{key}.{field} is no size that this program knows")
        given = {*value, *(field for field, of in kinds.items() if dataclasses.is_dataclass(of))}  # others: the defaults
        return kind(**{field: _read(kinds[field], value.get(field), f"{key}.{field}") for field in kinds if field in given})
    if get_origin(kind) is tuple:
        items = get_args(kind)
        length = "any" if items[-1] is ... else len(items)
        fits = isinstance(value, list) and (1 <= len(value) <= MAX_ITEMS if length == "any" else len(value) == length)
        _check(fits, key, value, f"a list of {f'1 to {MAX_ITEMS}' if length == 'any' else length} values")
        return tuple(_read(items[0], item, f"{key}.{i}") for i, item in enumerate(value))
    if kind is int:
        largest = MAX_SIZES.get(key.rpartition(".")[2], MAX_SIZE)
        _check(type(value) is int and 1 <= value <= largest, key, value, f"a whole number from 1 to {largest}")
        return value
    if kind is bool:
        _check(isinstance(value, bool), key, value, "true or false")
        return value
    _check(_is_number(value) and value > 0, key, value, "a number above 0")
    return float(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # comparing tells infinity and NaN, too


def _picture_size(value: Any, key: str) -> PictureSize:
    _check(isinstance(value, dict) and value.keys() == {"table", "shift", "teacache"}, key, value, "a picture size")
    table, shift, teacache = value["table"], value["shift"], value["teacache"]
    _check(isinstance(table, dict) and len(table) > 0, f"{key}.table", table, "a table of sizes by ratio")
    _check(_is_number(shift) and shift > 0, f"{key}.shift", shift, "a number above 0")
    _check(isinstance(teacache, list) and 1 <= len(teacache) <= MAX_ITEMS, f"{key}.teacache", teacache, "some coefficients")
    for i, coefficient in enumerate(teacache):
        _check(_is_number(coefficient), f"{key}.teacache.{i}", coefficient, "a number")
    return PictureSize(_table(table, f"{key}.table"), shift, tuple(teacache))


def _settings(kind: type[Any], value: Any, key: str) -> Any:
    """Sampling settings; those that are missing, as in older files, have their defaults."""
    _check(isinstance(value, dict), key, value, "an object")
    kinds, given = get_type_hints(kind), dict(value)
    for field, item in value.items():
        if field not in kinds:
            raise ValueError(f"{key}.{field} is no setting that this program knows")
        options = get_args(kinds[field]) or (kinds[field],)
        if Apg in options and item is not None:
            given[field] = _settings(Apg, item, f"{key}.{field}")
            continue
        if float in options and type(item) is int and _is_number(item):
            given[field] = item = float(item)
        _check(type(item) in options, f"{key}.{field}", item, "a setting")
    try:
        return kind(**given)
    except SettingError as error:  # says the field and its range
        raise ValueError(f"{key}: {error}") from error


def _table(table: dict[str, Any], key: str) -> SizeTable:
    read = {}
    for ratio, size in table.items():
        try:
            number = float(ratio)
        except ValueError:
            number = math.nan
        _check(0 < number < 1000, key, ratio, "by ratios of height and width")
        height, width = _read(tuple[int, int], size, f"{key}.{ratio}")
        _check(height % PICTURE_MULTIPLE == width % PICTURE_MULTIPLE == 0, f"{key}.{ratio}", size, "multiples of 16")
        _check(height * width <= MAX_SIZE * 64, f"{key}.{ratio}", size, "a picture that can be computed")
        read[number] = (height, width)
    return read


def _check_relations(networks: Networks) -> None:
    """Checks what the sizes must be to each other, where it does not follow from the shapes of the tensors."""
    dit, vae, umt5, clip, wav2vec2 = networks.dit, networks.vae, networks.umt5, networks.clip, networks.wav2vec2
    for key, value, divisor, of in (
        ("dit.num_heads", dit.dim, dit.num_heads, "dit.dim"),
        ("umt5.heads", umt5.attention_width, umt5.heads, "umt5.attention_width"),
        ("clip.heads", clip.width, clip.heads, "clip.width"),
        ("clip.patch", clip.image, clip.patch, "clip.image"),
        ("wav2vec2.heads", wav2vec2.width, wav2vec2.heads, "wav2vec2.width"),
        ("wav2vec2.position_groups", wav2vec2.width, wav2vec2.position_groups, "wav2vec2.width"),
    ):
        _check(value % divisor == 0, f"networks.{key}", divisor, f"a divisor of {of}, {value}")
    levels, kernels, strides = len(vae.multipliers), wav2vec2.conv_kernels, wav2vec2.conv_strides
    relations: tuple[tuple[str, object, bool, str], ...] = (
        ("dit.num_heads", dit.num_heads, dit.head_dim % 2 == 0 and dit.head_dim >= 6, "such that a head's width is even"),
        ("dit.in_dim", dit.in_dim, dit.in_dim == 2 * vae.z_dim + vae.time_stride, "twice vae.z_dim and 4 more"),
        ("dit.freq_dim", dit.freq_dim, dit.freq_dim % 2 == 0, "even"),
        ("dit.patch_size", dit.patch_size, dit.patch_size == (1, 2, 2), "1, 2, 2"),
        ("dit.eps", dit.eps, dit.eps < 1, "below 1"),
        ("dit.audio.frames_per_latent", dit.audio.frames_per_latent, dit.audio.frames_per_latent == vae.time_stride, "4"),
        ("dit.audio.window", dit.audio.window, dit.audio.window % 2 == 1, "odd"),
        ("umt5.buckets", umt5.buckets, umt5.buckets % 4 == 0, "a multiple of 4"),
        ("umt5.max_distance", umt5.max_distance, umt5.max_distance > umt5.buckets // 4, "above a quarter of umt5.buckets"),
        ("clip.layers", clip.layers, clip.layers > 1, "at least 2, as the last is not applied"),
        ("vae.multipliers", vae.multipliers, vae.spatial_stride == 8, "4 values"),
        ("vae.time_downsample", vae.time_downsample, len(vae.time_downsample) == levels - 1, f"{levels - 1} values"),
        ("vae.time_downsample", vae.time_downsample, vae.time_stride == 4, "true twice"),
        ("wav2vec2.conv_strides", strides, len(kernels) == len(strides), f"{len(kernels)} values"),
        ("wav2vec2.conv_kernels", kernels, wav2vec2.receptive_field <= MAX_SIZE, "such that a step spans fewer samples"),
    )
    for key, given, condition, expected in relations:
        _check(condition, f"networks.{key}", given, expected)
