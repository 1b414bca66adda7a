"""Training starts without torch."""

import subprocess
import sys
from pathlib import Path


def test_torch_is_not_loaded_and_can_be_afterwards():
    code = (
        "import sys; from itjax.training import metrics\n"
        "assert 'torch' not in sys.modules and 'tensorboardX' in sys.modules\n"
        "import importlib.util; assert importlib.util.find_spec('torch')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
