"""Training records: preprocessed clips in ArrayRecord shards, and the dataset that lists them.

A clip is the video between two cuts. Chunks are selected when a clip is read, so that a reference may come from outside
the chunk. Therefore latents are stored for every possible chunk of a clip (each encoded from its own first frame, as the
VAE is causal), and for every possible reference frame. Each of these is a separate record: a training example reads only
one chunk and one reference, a small part of its clip.
"""

from itjax.records.clip import Clip, LazyRows, from_records, record_count, to_records
from itjax.records.dataset import (
    PROMPTS_FILE,
    Bucket,
    Dataset,
    Shard,
    null_prompts,
    open_dataset,
    write_dataset,
    write_null_prompts,
)
from itjax.records.layout import SPEECH_MARGIN, Layout, chunk_starts, reference_frames
from itjax.records.shards import Records, write_shard

__all__ = [
    "PROMPTS_FILE",
    "SPEECH_MARGIN",
    "Bucket",
    "Clip",
    "Dataset",
    "Layout",
    "LazyRows",
    "Records",
    "Shard",
    "chunk_starts",
    "from_records",
    "null_prompts",
    "open_dataset",
    "record_count",
    "reference_frames",
    "to_records",
    "write_dataset",
    "write_null_prompts",
    "write_shard",
]
