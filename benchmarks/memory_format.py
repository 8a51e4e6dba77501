"""What channels-last convolutions save on this machine: one training step on ready-made tensors, both ways in turn.

usage: python benchmarks/memory_format.py [--batch 64] [--height 96] [--width 48] [--rounds 6] [--device cpu]
"""

import argparse
import copy
import statistics
import time

import torch
from torch import nn

from dapg.core.device import place, resolve_device
from dapg.core.train_config import BackboneConfig
from dapg.methods.runs import backbone_settings
from dapg.models.weights.backbone_weights import init_backbone

NETWORKS = (BackboneConfig("resnet18", width=0.25), BackboneConfig("resnet18"), BackboneConfig("mobilenet_v2"))


def seconds(network: nn.Module, images: torch.Tensor) -> float:
    """Forward and backward; processor seconds on a CPU, whose other users then count for less."""
    on_gpu = images.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    network(images).square().mean().backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = resolve_device(options.device)
    torch.set_num_threads(1)
    images = torch.rand(options.batch, 3, options.height, options.width, device=device)
    print("| network | channels first, s | channels last, s | ratio |\n|---|---|---|---|")
    for config in NETWORKS:
        first, _ = init_backbone(config.name, backbone_settings(config), "random", 0)
        first.to(device).train()
        last = place(copy.deepcopy(first), device)
        found: dict[str, list[float]] = {"first": [], "last": []}
        for turn in range(options.rounds + 1):
            for name, network in (("first", first), ("last", last)):
                took = seconds(network, images)
                if turn:
                    found[name].append(took)
        medians = [statistics.median(values) for values in found.values()]
        label = config.name + (f", width {config.width}" if config.width != 1 else "")
        print(f"| {label} | {medians[0]:.3f} | {medians[1]:.3f} | {medians[0] / medians[1]:.2f} |")


if __name__ == "__main__":
    main()
