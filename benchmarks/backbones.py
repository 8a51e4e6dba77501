"""What each network costs: weights, and processor time of a forward pass on one core (docs/how-to/weights.md).

usage: python benchmarks/backbones.py
"""

import time

import torch

from dapg.core.device import place
from dapg.models.weights.backbone_weights import init_backbone

NETWORKS: tuple[tuple[str, dict[str, object]], ...] = (
    ("mobilenet_v2", {}),
    ("resnet50", {"last_stride": 1}),
    ("vit_small", {}),
    ("vit_small", {"stride": 12}),
    ("vit_small", {"variant": "ics"}),
    ("vit_small", {"variant": "dinov2"}),
    ("vit_base", {}),
    ("swin_tiny", {}),
    ("swin_small", {}),
    ("swin_base", {}),
)


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    images = torch.randn(4, 3, 256, 128)
    for name, settings in NETWORKS:
        network = place(init_backbone(name, settings, "random", 0)[0], torch.device("cpu")).eval()
        shape, seconds = tuple(network(images).shape[1:]), []
        for _ in range(3):
            start = time.process_time()
            network(images)
            seconds.append(time.process_time() - start)
        weights = sum(parameter.numel() for parameter in network.parameters())
        print(
            f"{name} {settings}: {weights / 1e6:.1f} M, {min(seconds) / len(images) * 1e3:.0f} ms, {shape}", flush=True
        )


if __name__ == "__main__":
    main()
