"""One thread per test process, and shapes in signatures checked: both before the first import of torch and dapg."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread costs more than it brings

from jaxtyping import install_import_hook

install_import_hook("dapg", "beartype.beartype")
