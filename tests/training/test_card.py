"""What a trained network's card says of its making."""

from itjax.training.card import provenance
from itjax.training.run import End
from itjax.training.small_loop import Ended
from itjax.version import __version__


def test_a_package_under_another_name_does_not_cost_a_finished_run_its_result():
    ended = Ended(End.DONE, None, seconds=1.6, core_seconds=3.2)
    made = provenance({"steps": 4}, ended, ("numpy", "a-package-that-nobody-has"))
    assert made["training"] == {"steps": 4} and (made["seconds"], made["core_seconds"]) == (2, 3)
    assert made["versions"]["itjax"] == __version__ and made["versions"]["numpy"][0].isdigit()
    assert made["versions"]["a-package-that-nobody-has"] == "unknown"
