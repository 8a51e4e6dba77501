"""Features of a list of pictures, once each, in the list's order."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from dapg.core.types import Modality, Record
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.evaluation.encoders import Encoder

CENTRED = ", centred per camera"


@torch.no_grad()
def extract(
    encoder: Encoder,
    dataset: Dataset,
    records: Sequence[Record],
    batch_size: int = 64,
    loader: LoaderConfig | None = None,
    show_progress: bool = True,
) -> dict[str, Float[Tensor, "N D"]]:
    """Named features on the CPU, float32; row i belongs to ``records[i]``.

    Raises:
        DataError: a picture cannot be read; scores over fewer pictures would be other scores.
    """
    height, width = encoder.input_size
    config = replace(loader or LoaderConfig(), height=height, width=width)
    parts: dict[str, list[Tensor]] = defaultdict(list)
    with tqdm(total=len(records), desc="features", unit="picture", disable=None if show_progress else True) as bar:
        for batch in ordered_batches(dataset, records, batch_size, config, encoder.device.type == "cuda"):
            collected: dict[str, Tensor] = {}
            for modality in Modality:
                rows = (batch.modalities == int(modality)).nonzero()[:, 0]
                if len(rows) == 0:
                    continue
                for name, features in encoder.encode(batch.images[rows], modality).items():
                    if name not in collected:
                        collected[name] = torch.zeros(len(batch), features.shape[1])
                    collected[name][rows] = features.float().cpu()
            for name, features in collected.items():
                parts[name].append(features)
            bar.update(len(batch))
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


def centre_per_camera(features: Float[Tensor, "N D"], cameras: Int[Tensor, "N"]) -> Float[Tensor, "N D"]:
    """Take each camera's mean feature away and normalise again: removes colour cast and background shared by a camera.

    It uses the test pictures (not their persons) of each camera, so scores with it are reported beside raw ones.
    """
    centred = features.clone()
    for camera in sorted(set(cameras.tolist())):
        rows = cameras == camera
        centred[rows] -= features[rows].mean(dim=0)
    return functional.normalize(centred)
