"""No cell that people open is a formula, numbers stay numbers, and our readers get back what was written."""

import csv
import io

from dapg.core.files import csv_text, plain_cell

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "''@x", "=\n1"]
PLAIN = ["", "-", "a=b", "-1", "-1.5e-3", "+3", "'quoted'", "-inf", "x,y", 'say "no"', "ü\n2"]


def test_formulas_are_text_and_come_back_as_they_were() -> None:
    read = [line[0] for line in csv.reader(io.StringIO(csv_text([[cell, 0] for cell in (*FORMULAS, *PLAIN)]), ""))]
    assert read == [f"'{cell}" for cell in FORMULAS] + PLAIN
    assert [plain_cell(cell) for cell in read] == FORMULAS + PLAIN


def test_numbers_stay_numbers() -> None:
    assert csv_text([("a", "b"), (-1, -0.5), (None, True)]) == "a,b\n-1,-0.5\n,True\n"
