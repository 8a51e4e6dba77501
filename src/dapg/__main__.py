"""``python -m dapg`` is the command line."""

import sys

from dapg.cli import main

sys.exit(main())
