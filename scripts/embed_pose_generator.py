"""Put a trained pose generator into the package: float16 weights, and its model card beside them.

    python scripts/embed_pose_generator.py outputs/pose/gan-tiny --people people canonical

The run must be finished, and none of its persons may be a validation or test person of the embedded set. Persons of
another rendering seed bear the same numbers and are others, so ``--people``, the folders it was trained on, are opened
and their persons compared by what they wear.
"""

import argparse
from pathlib import Path

from dapg.core.errors import UsageError
from dapg.core.files import atomic_write_text
from dapg.data.sets.synthetic import Synthetic
from dapg.models.weights.pose_weights import EMBEDDED, load_generator, save_generator
from dapg.pose.pairs import held_out_persons, same_people
from dapg.pose.train_gan import card

LARGEST = 3_000_000
"""Bytes the package can spare."""
LICENCE = """
## Licence

Trained on images rendered from CC0 assets alone (docs/reference/synthetic.md); the weights are CC0 1.0 too.
"""


def main() -> None:
    """Check, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished `dapg pose train` on synthetic people")
    parser.add_argument("--people", type=Path, nargs="+", required=True, help="the folders it was trained on")
    options = parser.parse_args()
    generator, facts = load_generator(options.run)
    embedded = Synthetic()
    asked = set(facts.training["person_numbers"]) & held_out_persons(embedded)
    seen = {person for folder in options.people for person in same_people(Synthetic(folder), embedded, asked)}
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
