"""Who is in two rendered sets at once, and which key points a data set has."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dapg.core.errors import UsageError
from dapg.core.train_config import DataConfig
from dapg.core.types import Record
from dapg.data.sets.synthetic import Synthetic
from dapg.data.source import open_dataset
from dapg.pose.estimate import EstimateSettings
from dapg.pose.key_point_table import TABLE, KeyPointTable, write_table
from dapg.pose.pairs import key_points_of, same_people


class Redressed(Synthetic):
    """The embedded people, of whom one wears something else."""

    def truth(self, record: Record) -> dict[str, Any]:
        """The annotation with another garment for person 2."""
        found = super().truth(record)
        return {**found, "garments": {**found["garments"], "upper": "cape"}} if record.person == 2 else found


def test_equal_numbers_are_the_same_person_only_in_the_same_clothes() -> None:
    assert same_people(Synthetic(), Redressed(), {1, 2, 150, 9999}) == {1, 150}


def test_key_points_lie_in_the_images_folder_or_where_pose_estimate_writes_them(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (8, 16)).save(images / "a.png")
    dataset = open_dataset(DataConfig("folder", str(images)))
    records = dataset.records("all")
    with pytest.raises(UsageError, match="run dapg pose estimate"):
        key_points_of(dataset, records, "", "--key_points")
    default = EstimateSettings("blazepose", None, data=DataConfig("folder", str(images))).folder()
    for number, folder in enumerate((default, images), 1):  # the second is the nearer one
        folder.mkdir(exist_ok=True)
        points = torch.full((1, 18, 3), number / 4)
        write_table(folder / TABLE, KeyPointTable(tuple((record.path, record.box) for record in records), points))
        assert key_points_of(dataset, records, "", "--key_points").unique().tolist() == [number / 4]
