"""Long work in chunks, shared between machines: ``--part i/n`` takes every n-th chunk, and whoever ends last merges."""

import re
from dataclasses import dataclass

from dapg.core.errors import UsageError


@dataclass(frozen=True)
class Part:
    """The ``number``-th (counted from 1) of ``count`` parts."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """``I/N`` with I from 1 to N.

        Raises:
            UsageError: anything else.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        part = cls(int(match[1]), int(match[2])) if match else None
        if part is None or not 1 <= part.number <= part.count:
            raise UsageError(f"--part is I/N with I from 1 to N, for example 1/4, not {text!r}")
        return part

    def chunks(self, total: int) -> range:
        """Numbers of the chunks that belong to this part: every chunk to exactly one part."""
        return range(self.number - 1, total, self.count)


def parse_part(text: str) -> Part:
    """As ``Part.parse``; the empty text is 1/1.

    Raises:
        UsageError: neither empty nor a part.
    """
    return Part.parse(text) if text else Part()


def chunk_slices(items: int, size: int) -> list[slice]:
    """``items`` in chunks of ``size``, the last one shorter."""
    return [slice(start, min(start + size, items)) for start in range(0, items, size)]
