"""The copied figures agree with the paper's own text, and with what is known about them."""

import pytest

from dapg.experiment import paper


@pytest.mark.parametrize("claim", paper.CLAIMS, ids=lambda claim: claim.text)
def test_gains_of_the_text_follow_from_the_tables(claim: paper.Claim) -> None:
    assert claim.recomputed() == claim.stated


def test_each_block_has_seven_rows_and_four_searches() -> None:
    for finetuning in ("cil", "agw"):
        block = [row for row in paper.TABLES_1_AND_2 if row.finetuning == finetuning]
        assert [row.pretraining for row in block] == ["in-sup", "pnl", "byol", "ssl", "vtbr", "simclr", "dapg"]
    for row in paper.TABLES_1_AND_2:
        for scores in (row.clean, row.corrupted):
            assert tuple(scores) == paper.SEARCHES
            assert all(0 < value < 100 for pair in scores.values() for value in pair)


def test_table_3_ends_where_table_2_stands() -> None:
    """Index 4 of the ablation is AGW with the paper's method on the corrupted sets."""
    last = list(paper.TABLE_3.values())[-1]
    row = next(r for r in paper.TABLES_1_AND_2 if (r.finetuning, r.pretraining) == ("agw", "dapg"))
    assert last == {mode: row.corrupted[mode] for mode in ("all", "indoor")}


def test_copied_rows_differ_from_their_sources_where_we_say() -> None:
    for (finetuning, corrupted, mode, place), source in paper.ORIGINALS.items():
        row = next(r for r in paper.TABLES_1_AND_2 if (r.finetuning, r.pretraining) == (finetuning, "in-sup"))
        assert (row.corrupted if corrupted else row.clean)[mode][place] != source


def test_cells_where_another_pre_training_wins() -> None:
    lost = paper.not_the_best()
    assert any(line.startswith("agw, clean, all, mAP: pnl 55.45") for line in lost)
    assert any(line.startswith("cil, corrupted, thermal-to-visible, mAP: pnl 68.49") for line in lost)
    assert not any(line.startswith("agw, clean, all, rank-1") for line in lost)
