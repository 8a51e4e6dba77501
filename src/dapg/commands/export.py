"""Write weights for others: flat torch file, hub folder with a model card, ONNX, or AGW's checkpoint layout."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_positional

_HELP = """usage: dapg export RUN --out FOLDER [--licence TEXT] [--onnx true]

Write the backbone of a finished pre-training: backbone.pth (torchvision's names, as the LUPerson weights),
model.safetensors with config.json and a model card (the hub's layout), and features.onnx if asked for. All of it is
read back and must give the run's features.

Of a finished fine-tuning with a ResNet-50 it writes published.t, a checkpoint in the layout of the published AGW and
CAJ code, read back and compared. That code has no place for a trained GeM power: --method.network.learn_power false,
or a `paper` preset.

examples:
  dapg export outputs/pretrain/first --out outputs/export/first
  dapg export outputs/pretrain/first --out outputs/export/first --licence cc0-1.0 --onnx true
  dapg pretrain mocov2 --init outputs/export/first ...
  dapg export outputs/agw-sysu --out outputs/export/agw-sysu
"""


@dataclass(frozen=True)
class ExportSettings:
    """Where to, and under which terms."""

    out: str = "outputs/export"
    """New folder."""
    licence: str = ""
    """Licence of the weights, for the model card: an SPDX name or a sentence."""
    onnx: bool = False
    """Write ONNX too (extra onnx)."""


def main(words: list[str], program: str) -> None:
    """Parse, write, and say what was checked."""
    run, words = take_positional(words, "RUN", None, program)
    settings = parse(program, ExportSettings(), words, _HELP)

    import shlex
    from pathlib import Path

    from dapg.commands._training import data_option
    from dapg.evaluation.evaluate import own_data
    from dapg.export.export import PUBLISHED_FILE, export

    exported = export(Path(run), Path(settings.out), settings.licence, settings.onnx)
    for name, digest in exported.sha256.items():
        print(f"{exported.folder / name}  sha256 {digest[:12]}")
    if PUBLISHED_FILE in exported.sha256:
        print("read back, it holds the run's network to the bit")
        weights = shlex.quote(str(exported.folder / PUBLISHED_FILE))
        print(f"score it: dapg evaluate {weights}{data_option(own_data(run))}")
        return
    print("the torch and safetensors files, read back, give the run's features to the bit")
    if exported.onnx_difference is not None:
        print(f"onnxruntime's features differ by {exported.onnx_difference:.1g} at most")
    print(f"start from it: --init {exported.folder}")
