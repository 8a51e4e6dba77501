"""Records kept as arrays are the records they were made from."""

import pickle

import pytest

from dapg.core.types import Modality, Record
from dapg.data import compact
from dapg.data.compact import CompactRecords

RECORDS = [
    Record("a.jpg", 3, 1),
    Record("ä/ß.jpg", -1, -1, Modality.INFRARED),
    Record("", 2**31 - 1, 7, Modality.VISIBLE, (0, 1, 20, 30)),
    Record("x" * 300, 0, 0, Modality.INFRARED),
    Record("last.png", 5, 6),
]


@pytest.mark.parametrize("block", [1, 2, 100])
@pytest.mark.parametrize("records", [RECORDS, RECORDS[:2], []], ids=["boxes", "no boxes", "empty"])
def test_behaves_like_the_list(monkeypatch: pytest.MonkeyPatch, records: list[Record], block: int) -> None:
    monkeypatch.setattr(compact, "_BLOCK", block)
    made = CompactRecords(iter(records))
    assert list(made) == records
    assert made == records
    assert records == made
    assert [made[place] for place in range(len(records))] == records
    assert [made[-place] for place in range(1, len(records) + 1)] == records[::-1]
    assert made[1:4] == records[1:4]
    assert made[::-2] == records[::-2]
    assert pickle.loads(pickle.dumps(made)) == records
    with pytest.raises(IndexError):
        made[len(records)]


def test_types_are_those_of_a_record() -> None:
    record = CompactRecords(RECORDS)[2]
    assert isinstance(record.modality, Modality)
    assert type(record.person) is int
    assert record.box == (0, 1, 20, 30)
    assert hash(record) == hash(RECORDS[2])


def test_differences_are_seen() -> None:
    assert CompactRecords(RECORDS) != RECORDS[:-1]
    assert CompactRecords(RECORDS) != [*RECORDS[:-1], Record("last.png", 5, 7)]
    assert CompactRecords(RECORDS) != "records"


def test_a_record_takes_few_bytes() -> None:
    """Path of 22 letters and 17 bytes of labels and place: 39; a pickle of the arrays shows it."""
    count = 10_000
    made = CompactRecords(Record(f"01_02_0003_{number:08d}.jp", number, 3) for number in range(count))
    assert len(pickle.dumps(made)) / count < 42
