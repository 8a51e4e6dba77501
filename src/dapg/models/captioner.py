"""A caption from a feature map, word by word in both directions: VirTex's textual head (Desai and Johnson 2021)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dapg.core.errors import UsageError
from dapg.models.blocks.initialise import initialise

PADDING, START, END = 0, 1, 2
"""Tokens that are no words."""
FIRST_WORD = 3


@dataclass(frozen=True)
class CaptionerSize:
    """How large a captioner is."""

    width: int
    """Length of a word's vector."""
    heads: int
    """Attention heads; their number divides ``width``."""
    hidden: int
    """Middle layer of the decoders' feed-forward part."""
    layers: int
    """Layers of each decoder."""
    vocabulary: int
    """Number of tokens, those that are no words among them."""
    length: int
    """Most tokens in a caption, start and end among them."""
    dropout: float
    """Probability, on words and in the decoders."""


class Captioner(nn.Module):
    """Two transformer decoders, one for each direction, that share the words' vectors with the output layer."""

    def __init__(self, channels: int, size: CaptionerSize, generator: torch.Generator | None) -> None:
        """Draw the weights on the CPU from ``generator`` alone; ``channels`` is C of the feature map.

        Raises:
            UsageError: a width that the heads do not divide, or a length or vocabulary without room for a word.
        """
        super().__init__()
        width, heads, dropout = size.width, size.heads, size.dropout
        if width % heads or size.length < 3 or size.vocabulary <= FIRST_WORD:
            raise UsageError(
                f"no captions with {heads} heads of {width}, {size.length} tokens, {size.vocabulary} words"
            )
        with torch.device("meta"):
            self.enter = nn.Linear(channels, width)
            self.norm = nn.LayerNorm(width)
            layer = nn.TransformerDecoderLayer(width, heads, size.hidden, dropout, activation="gelu", batch_first=True)
            self.forwards = nn.TransformerDecoder(layer, size.layers)
            self.backwards = nn.TransformerDecoder(layer, size.layers)
        self.dropout = nn.Dropout(dropout)
        initialise(self, generator)
        self.words = nn.Parameter(nn.init.normal_(torch.empty(size.vocabulary, width), std=0.02, generator=generator))
        self.places = nn.Parameter(nn.init.normal_(torch.empty(size.length, width), std=0.02, generator=generator))
        self.bias = nn.Parameter(torch.zeros(size.vocabulary))

    def forward(
        self, features: Float[Tensor, "B C h w"], captions: Int[Tensor, "B L"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross entropy of the next word, forwards and backwards, over all words of all captions.

        Args:
            features: feature map.
            captions: START, words, END, then PADDING.
        """
        image = self.enter(features.flatten(2).transpose(1, 2))
        return (
            self._next_words(self.forwards, image, captions),
            self._next_words(self.backwards, image, reversed_captions(captions)),
        )

    def _next_words(
        self, decoder: nn.TransformerDecoder, image: Float[Tensor, "B hw D"], captions: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        given, wanted = captions[:, :-1], captions[:, 1:]
        count = given.shape[1]
        words = self.dropout(self.norm(self.words[given] + self.places[:count]))
        ahead: Bool[Tensor, "L L"] = torch.ones(count, count, dtype=torch.bool, device=given.device).triu(1)
        out = decoder(words, image, tgt_mask=ahead, tgt_key_padding_mask=given == PADDING, tgt_is_causal=True)
        logits = functional.linear(out, self.words, self.bias).float()
        return functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PADDING)


def reversed_captions(captions: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """END, the words from the last to the first, START, then padding."""
    lengths = (captions != PADDING).sum(dim=1, keepdim=True)
    places = torch.arange(captions.shape[1], device=captions.device)
    source = torch.where(places < lengths, lengths - 1 - places, places)
    return captions.gather(1, source)
