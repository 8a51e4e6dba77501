"""A user's heat-map network: planted peaks come back at the right points, and a dot in the image where it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dapg.core.errors import UsageError, WeightsError
from dapg.core.key_points import KEY_POINT_NAMES, NUMBER_OF
from dapg.pose.estimators.onnx import COCO_NAMES, HeatMapNetwork, peaks

pytest.importorskip("onnxruntime")
onnx_graphs = pytest.importorskip("onnx_graphs")

HEIGHT, WIDTH = 16, 12


def network(path: Path, **settings: object) -> HeatMapNetwork:
    return HeatMapNetwork(HeatMapNetwork.Config(model=str(path), **settings))  # type: ignore[arg-type]


def planted() -> tuple[np.ndarray, list[tuple[int, int, float]]]:
    """Maps with one peak each, at (row, column) with a height; the right neighbour is higher than the left one."""
    maps = np.zeros((17, HEIGHT, WIDTH), np.float32)
    places = []
    for number in range(17):
        row, column, top = 2 + number % 12, 3 + number % 7, 0.4 + 0.03 * number
        maps[number, row, column] = top
        maps[number, row, column + 1] = 0.1
        places.append((row, column, top))
    return maps, places


@pytest.mark.parametrize("batch", ["B", 2])
def test_planted_peaks_come_back_as_the_right_key_points(tmp_path: Path, batch: int | str) -> None:
    """By hand, without padding and with an image of the input's own shape: a peak's place is its part of the map."""
    maps, places = planted()
    graph = onnx_graphs.planted_peaks(tmp_path / "g.onnx", maps, batch)
    images = torch.randint(0, 255, (3, 3, 64, 48), dtype=torch.uint8)
    points = network(graph, padding=1.0).estimate(images, torch.tensor([[64, 48]] * 3))
    assert points.shape == (3, 18, 3)
    for name in KEY_POINT_NAMES:
        if name == "neck":
            continue
        row, column, top = places[COCO_NAMES.index(name)]
        wanted = torch.tensor([(column + 0.75) / WIDTH, (row + 0.5) / HEIGHT, top])
        torch.testing.assert_close(points[1, NUMBER_OF[name]], wanted, atol=1e-5, rtol=0)
    shoulders = points[0, [NUMBER_OF["left_shoulder"], NUMBER_OF["right_shoulder"]]]
    torch.testing.assert_close(points[0, NUMBER_OF["neck"], :2], shoulders[:, :2].mean(dim=0))
    assert points[0, NUMBER_OF["neck"], 2] == shoulders[:, 2].min()


@pytest.mark.parametrize(("height", "width"), [(200, 100), (80, 120)])
def test_a_bright_dot_is_found_where_it_is_whatever_the_picture_s_shape(
    tmp_path: Path, height: int, width: int
) -> None:
    graph = onnx_graphs.coloured_peaks(tmp_path / "g.onnx")
    images = torch.zeros(2, 3, 192, 96, dtype=torch.uint8)  # stretched, as the loader brings them
    dots = [(0.25, 0.75), (0.7, 0.3)]
    for image, (x, y) in zip(images, dots, strict=True):
        row, column = int(y * 192), int(x * 96)
        image[:, row - 3 : row + 3, column - 3 : column + 3] = 255
    points = network(graph).estimate(images, torch.tensor([[height, width]] * 2))
    for found, dot in zip(points, dots, strict=True):
        torch.testing.assert_close(found[:, :2], torch.tensor(dot).expand(18, 2), atol=0.03, rtol=0)


def test_peaks_by_a_loop() -> None:
    maps = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    places, heights = peaks(maps)
    for b in range(2):
        for p in range(3):
            single = maps[b, p]
            row, column = divmod(int(single.argmax()), 4)
            x, y = column + 0.5, row + 0.5
            if 0 < column < 3:
                x += 0.25 if single[row, column + 1] > single[row, column - 1] else -0.25
            else:
                x += 0.25 if column == 0 else -0.25
            if 0 < row < 4:
                y += 0.25 if single[row + 1, column] > single[row - 1, column] else -0.25
            else:
                y += 0.25 if row == 0 else -0.25
            torch.testing.assert_close(places[b, p], torch.tensor([x / 4, y / 5]))
            assert heights[b, p] == single.max()


def test_wrong_graphs_and_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model FILE"):
        HeatMapNetwork(HeatMapNetwork.Config())
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match="not an ONNX network"):
        network(tmp_path / "bad.onnx")
    graph = onnx_graphs.coloured_peaks(tmp_path / "g.onnx", maps=21)
    with pytest.raises(WeightsError, match="21"):
        network(graph).estimate(torch.zeros(1, 3, 8, 4, dtype=torch.uint8), torch.tensor([[8, 4]]))
