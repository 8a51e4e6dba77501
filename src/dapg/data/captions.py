"""Shared: sentences about what people wear, for methods that learn from captions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dapg.core.errors import UsageError
from dapg.core.ranges import Seed
from dapg.core.train_config import DataConfig
from dapg.data.sets.synthetic import Synthetic
from dapg.data.source import open_dataset, select_records

_WORN = ("upper", "lower", "shoes", "bag", "hat", "scarf")
_TEMPLATES = (
    "a person with {hair} hair wears {worn}",
    "somebody in {worn} has {hair} hair",
    "{worn} are worn by a person whose hair is {hair}",
)


@dataclass(frozen=True)
class CaptionSettings:
    """Which images."""

    data: DataConfig = field(default_factory=DataConfig)
    """Rendered people."""
    seed: Seed = 0
    """Of a subset."""
    out: str = "captions.tsv"
    """The file: an image a line, path, tab, sentence."""


def garment_sentence(garments: Mapping[str, str], template: int = 0) -> str:
    """One sentence from the garments of an annotation, such as ``upper: navy cotton t-shirt, stripes white``.

    Numbers, which tell models of hair and shoes apart, are left out, and a word that is said twice is said once.

    Args:
        garments: slot (hair, upper, lower, shoes, bag, hat, scarf) -> words.
        template: which of some ways to put it; counted round.
    """
    words = {slot: _spoken(text) for slot, text in garments.items()}
    worn = [words[slot] for slot in _WORN if slot in words]
    text = ", ".join(worn[:-1]) + " and " + worn[-1] if len(worn) > 1 else "".join(worn)
    return _TEMPLATES[template % len(_TEMPLATES)].format(hair=words.get("hair", "no visible"), worn=text)


def _spoken(text: str) -> str:
    words = "".join(letter for letter in text if not letter.isdigit()).split()
    return " ".join(word for word, before in zip(words, ["", *words], strict=False) if word != before)


def captions(settings: CaptionSettings) -> dict[str, str]:
    """Path -> sentence for rendered people, whose clothes are known; the way to put it changes from one to the next.

    Raises:
        UsageError: of these images nobody knows what they show.
        DataError: the data set knows nothing of an image.
    """
    dataset = open_dataset(settings.data)
    if not isinstance(dataset, Synthetic):
        raise UsageError(f"{dataset.title}: only of rendered people is it known what they wear")
    records = select_records(dataset, settings.data, settings.seed)
    return {record.path: garment_sentence(dataset.garments(record), place) for place, record in enumerate(records)}
