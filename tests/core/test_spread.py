"""How far features are spread, where they are no numbers."""

import pytest
import torch

from dapg.core.batch import effective_rank


def test_features_that_are_no_numbers_have_no_rank_and_raise_nothing() -> None:
    broken = torch.eye(4)
    assert float(effective_rank(broken)) == pytest.approx(4)
    broken[1, 2] = torch.nan
    assert torch.isnan(effective_rank(broken))
