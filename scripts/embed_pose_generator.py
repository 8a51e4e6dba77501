"""Put a trained pose generator into the package: float16 weights, and its model card beside them.

    python scripts/embed_pose_generator.py outputs/pose/gan-tiny

The run must be finished, and its persons must not be test persons of the embedded set (checked from its file).
"""

import argparse
from pathlib import Path

from dapg.core.errors import UsageError
from dapg.core.files import atomic_write_text
from dapg.data.synthetic import Synthetic
from dapg.models.pose_weights import EMBEDDED, load_generator, save_generator
from dapg.pose.pairs import held_out_persons
from dapg.pose.train_gan import card

LARGEST = 3_000_000
"""Bytes the package can spare."""
LICENCE = """
## Licence

Trained on pictures rendered from CC0 assets alone (docs/synthetic.md); the weights are CC0 1.0 too.
"""


def main() -> None:
    """Check, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished `dapg pose train` on synthetic people")
    run = parser.parse_args().run
    generator, facts = load_generator(run)
    seen = set(facts.training["person_numbers"]) & held_out_persons(Synthetic())
    if seen:
        raise UsageError(
            f"{len(seen)} validation or test persons of the embedded set were trained on, e.g. {min(seen)}"
        )
    if facts.supervision != "synthetic":
        raise UsageError(f"pairs of kind {facts.supervision!r}: only a generator of synthetic people is ours to ship")
    save_generator(generator, EMBEDDED, facts, half=True)
    atomic_write_text(EMBEDDED.with_suffix(".md"), card(facts, generator) + LICENCE)
    size = EMBEDDED.stat().st_size
    if size > LARGEST:
        raise UsageError(f"{EMBEDDED} takes {size} bytes, more than {LARGEST}")
    print(f"written: {EMBEDDED} ({size / 1e6:.2f} MB) and its card")


if __name__ == "__main__":
    main()
