"""The captioner against a loop over single words, and what it may look at."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.models.captioner import END, PADDING, START, Captioner, CaptionerSize, reversed_captions

VOCABULARY = 12


def captioner(dropout: float = 0.0) -> Captioner:
    return Captioner(6, CaptionerSize(16, 4, 32, 2, VOCABULARY, 8, dropout), generator_from("captioner")).eval()


def some_captions() -> Tensor:
    return torch.tensor([[START, 5, 7, 9, END, PADDING, PADDING], [START, 4, 4, 11, 3, 8, END]])


def features() -> Tensor:
    return torch.rand(2, 6, 4, 2, generator=generator_from("features"))


def test_captions_are_reversed_before_their_padding() -> None:
    expected = [[END, 9, 7, 5, START, PADDING, PADDING], [END, 8, 3, 11, 4, 4, START]]
    assert reversed_captions(some_captions()).tolist() == expected


def test_loss_is_the_mean_over_words_of_each_word_after_those_before_it() -> None:
    """One caption and one word at a time: nothing ahead, and no padding, is ever in the input."""
    model = captioner()
    with torch.no_grad():
        found = model(features(), some_captions())
        for decoder, captions, loss in zip(
            (model.forwards, model.backwards), (some_captions(), reversed_captions(some_captions())), found, strict=True
        ):
            terms = []
            for row, caption in enumerate(captions):
                picture = model.enter(features()[row : row + 1].flatten(2).transpose(1, 2))
                real = [token for token in caption.tolist() if token != PADDING]
                for count in range(1, len(real)):
                    words = model.norm(model.words[real[:count]] + model.places[:count])[None]
                    ahead = torch.full((count, count), -math.inf).triu(1)
                    logits = decoder(words, picture, tgt_mask=ahead)[0, -1] @ model.words.T + model.bias
                    terms.append(functional.cross_entropy(logits, torch.tensor(real[count])))
            torch.testing.assert_close(loss, torch.stack(terms).mean(), atol=1e-5, rtol=1e-5)


def test_the_picture_matters() -> None:
    model = captioner()
    with torch.no_grad():
        here, there = model(features(), some_captions())[0], model(features().flip(0), some_captions())[0]
    assert abs(float(here - there)) > 1e-5


def test_numbers_that_leave_no_captions_are_refused() -> None:
    for heads, length, vocabulary in ((3, 8, 12), (4, 2, 12), (4, 8, 3)):
        with pytest.raises(UsageError, match="no captions with"):
            Captioner(6, CaptionerSize(16, heads, 32, 1, vocabulary, length, 0.0), None)
