"""itjax: InfiniteTalk in JAX and Flax, for TPU and GPU."""

__version__ = "0.1.0"
