"""VTBR: learn to describe people in words, without person labels (Xiang et al. 2022, after VirTex)."""

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dapg.augment.views import ViewConfig, standard_view
from dapg.core.batch import Batch, StepResult
from dapg.core.errors import UsageError
from dapg.core.ranges import Channels, Count, Layers, Share, Weight
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Scale, Self
from dapg.core.train_config import ParameterGroup, ScheduleConfig
from dapg.core.types import Modality, Record
from dapg.data.image_lines import named, read_lines, said_of
from dapg.methods.base import DataFacts, Method, MethodConfig, Recipe
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool
from dapg.models.captioner import END, FIRST_WORD, PADDING, START, Captioner, CaptionerSize

_WIDE = ViewConfig(jitter=0.5, grey=0.0, blur=0.0, erasing=0.0)


class VTBR(Method["VTBR.Config"]):
    """The feature map must hold what a sentence about the image says, read forwards and backwards.

    Source: JeremyXSC/VTBR, a fork of VirTex. Its Lookahead optimiser is left out, and words are hashed into the
    vocabulary in place of SentencePiece's pieces, so that no vocabulary has to be learnt first.
    """

    headline = "backbone"

    @dataclass(frozen=True)
    class Config(MethodConfig):
        """Defaults are the published sizes."""

        captions: str = ""
        """File of captions (``dapg data caption``, or your own): path<TAB>sentence, an image a line."""
        vocabulary: Count = 10_000
        """Number of tokens."""
        length: Channels = 40
        """Most tokens in a caption, start and end among them; longer ones are cut."""
        width: Channels = 1024
        """Length of a word's vector."""
        attention_heads: Layers = 16
        """Attention heads."""
        hidden: Channels = 4096
        """Middle layer of the decoders."""
        layers: Layers = 1
        """Layers of each decoder."""
        dropout: Share = 0.1
        """Probability, on words and in the decoders."""
        text_rate: Weight = 0.005
        """Learning rate of all but the network, as a share of the network's (0.001 of 0.2)."""
        views: ViewConfig = field(default_factory=lambda: _WIDE)
        """How a view is made: crop, mirror, colour jitter."""

        def at(self, scale: Scale) -> Self:
            """A little captioner, as fast as a little network."""
            config = super().at(scale)
            if scale.published:
                return config
            return replace(config, text_rate=1.0, width=128, attention_heads=4, hidden=256, vocabulary=1_000)

        line_file = "captions"

        def labelled(self, records: Sequence[Record]) -> Sequence[Record]:
            """The records that have a caption.

            Raises:
                UsageError: no file of captions is given.
                DataError: none of the images is in it.
            """
            return named(records, _captions(self), "caption")

    captions: Int[Tensor, "N L"]

    @classmethod
    def recipe(cls, usual: "Recipe[VTBR.Config]") -> "Recipe[VTBR.Config]":
        """SGD at 0.2 per 128 images, 2 % warm-up and clipped gradients (JeremyXSC/VTBR)."""
        if not usual.scale.published:
            return usual
        optimizer, schedule = replace(usual.train.optimizer, lr=0.2, lr_batch=128), ScheduleConfig(warmup=4.0)
        return replace(usual, train=replace(usual.train, optimizer=optimizer, schedule=schedule, clip_norm=10.0))

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        size = CaptionerSize(
            width=config.width,
            heads=config.attention_heads,
            hidden=config.hidden,
            layers=config.layers,
            vocabulary=config.vocabulary,
            length=config.length,
            dropout=config.dropout,
        )
        self.captioner = Captioner(backbone.feature_dim, size, generator)
        rows = torch.empty(0, config.length, dtype=torch.int64)
        if facts.records:  # there are none when a trained method is read back
            known = _captions(config)
            rows = torch.tensor(
                [tokens(said_of(record, known), config.vocabulary, config.length) for record in facts.records]
            )
        self.register_buffer("captions", rows, persistent=False)

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Cross entropy of the words in both directions, summed."""
        mean, std = self.backbone.mean, self.backbone.std
        features = self.backbone(standard_view(batch.images, self.settings.views, generator.fork("view"), mean, std))
        captions = self.captions[batch.indices]
        with _drawing_from(generator.fork("dropout"), features.device):
            forwards, backwards = self.captioner(features, captions)
        logs = {"forwards": forwards.detach(), "backwards": backwards.detach()}
        return StepResult(forwards + backwards, logs, features=lambda: functional.normalize(average_pool(features)))

    def encode(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """``backbone``: pooled feature map."""
        return {"backbone": functional.normalize(average_pool(self.backbone(images)))}

    def parameter_groups(self, lr: float, weight_decay: float) -> list[ParameterGroup]:
        """The network at ``lr``, the captioner at its share of it."""
        images = [value for value in self.backbone.parameters() if value.requires_grad]
        rates = ((images, lr), (list(self.captioner.parameters()), lr * self.settings.text_rate))
        return [{"params": values, "lr": rate, "weight_decay": weight_decay} for values, rate in rates]


def tokens(sentence: str, vocabulary: int, length: int) -> list[int]:
    """START, a number for each word, END, and padding up to ``length``; too long a sentence loses its last words.

    A word's number is its checksum: two words may share one (a hundred of them in 10,000 places: four in ten times
    some two do).
    """
    words = "".join(letter if letter.isalnum() else " " for letter in sentence.lower()).split()
    numbers = [FIRST_WORD + zlib.crc32(word.encode()) % (vocabulary - FIRST_WORD) for word in words[: length - 2]]
    row = [START, *numbers, END]
    return row + [PADDING] * (length - len(row))


def _captions(config: VTBR.Config) -> dict[str, str]:
    if not config.captions:
        raise UsageError(
            "vtbr learns from sentences: give --method.captions FILE, an image a line (path, tab, sentence); "
            "'dapg data caption' writes it for rendered people"
        )
    return read_lines(Path(config.captions), "sentence")


@contextlib.contextmanager
def _drawing_from(generator: SampleGenerator, device: torch.device) -> Iterator[None]:
    """Torch's own generators, which dropout draws from, set by the samples' streams; the host's is put back after.

    A GPU's is not: to ask for its state would wait, and the loop sets it anew in each step.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(int(generator.seeds.sum()))
        yield
