"""No room for a checkpoint: a named error, whichever file did not fit, and the earlier checkpoint stays."""

import os
import subprocess
import sys
from pathlib import Path

import dapg

SOURCE = Path(dapg.__file__).resolve().parents[1]

CODE = """
import resource, sys
from pathlib import Path
import torch
from dapg.core.errors import TrainingError
from dapg.train import checkpoint

run = Path(sys.argv[1])
small, large = torch.nn.Linear(2, 2), torch.nn.Linear(200, 200)
optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (small, large)]
checkpoint.save(run, 1, small, optimizers[0], {})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
for network, optimizer, state in ((large, optimizers[1], {}), (small, optimizers[0], {"x": torch.zeros(20_000)})):
    try:
        checkpoint.save(run, 2, network, optimizer, state)
    except TrainingError as error:
        print(str(error).replace(chr(10), " "))
print([found.step for found in checkpoint.whole_checkpoints(run)], len(list((run / "checkpoints").iterdir())))
"""


def test_weights_or_state_that_do_not_fit_are_reported_and_cleared_away(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    weights, state, left = run.stdout.splitlines()
    for line in (weights, state):
        assert line.startswith(f"could not write checkpoint {tmp_path}/checkpoints/step_00000002: ")
        assert line.endswith(f"; last good checkpoint: {tmp_path}/checkpoints/step_00000001")
    assert left == "[1] 1"
