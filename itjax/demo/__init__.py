"""The demo: a drawn portrait talks, a drawn video is dubbed, and both are measured. `python -m itjax.demo`."""

from pathlib import Path

MEDIA = Path(__file__).parent / "media"  # made by `itjax.demo.draw`, which says what they are
