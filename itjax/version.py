"""The version of itjax, which a run's resume folder records."""

__version__ = "0.1.0"
