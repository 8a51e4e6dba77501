"""Contract of a key-point estimator: images of one person each in, 18 key points with confidence out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dapg.core.types import Record
from dapg.data.base import Dataset


class Estimator(ABC):
    """Finds the key points of people in crops. A new one is a file in this folder with one public subclass."""

    @dataclass(frozen=True)
    class Config:
        """Settings of the estimator."""

    input_size: ClassVar[tuple[int, int]] = (192, 96)
    """(height, width) to which images are brought before ``estimate``, whatever their shape."""
    batch_size: ClassVar[int] = 32
    """Images at a time that run well on a CPU."""

    def __init__(self, config: Any, dataset: Dataset | None = None) -> None:
        """Get ready. Only estimators that look things up need ``dataset``.

        Raises:
            UsageError: a wrong setting.
            DataError, WeightsError: a file or package that is needed is missing or damaged.
        """
        self.config, self.dataset = config, dataset

    @abstractmethod
    def estimate(
        self, images: UInt8[Tensor, "B 3 H W"], sizes: Int[Tensor, "B 2"], records: Sequence[Record] = ()
    ) -> Float[Tensor, "B 18 3"]:
        """Key points as parts of the image, with confidence (``core/key_points.py``); all 0 where nobody is found.

        Args:
            images: images brought to one size.
            sizes: (height, width) each image had before, so that its true shape is known.
            records: where the images come from, for estimators that look things up.
        """
