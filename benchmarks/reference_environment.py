"""An environment of its own for imagecorruptions and albumentations, whose dependencies are too narrow for ours."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

PACKAGE = "imagecorruptions-imaug==1.1.5"
RAIN = "albumentations==0.5.2"
"""What CIL-ReID draws rain with; installed without its dependencies, of which rain needs OpenCV and NumPy only."""


def reference_python(folder: Path) -> Path:
    """The interpreter of an environment in ``folder`` with the reference; made on first use (about 600 MB)."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {PACKAGE} into {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PACKAGE], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", RAIN], check=True)
    return python


class Worker:
    """A process that answers one JSON request at a time."""

    def __init__(self, python: Path | str, script: str, *arguments: str) -> None:
        here = Path(__file__).resolve().parent
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [str(python), str(here / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **request: Any) -> None:
        """Send a request; do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker stopped: {self.process.args}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
