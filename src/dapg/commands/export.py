"""Write weights for others: flat torch file, hub folder with a model card, ONNX, int8, or AGW's checkpoint layout."""

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_positional

_HELP = """usage: dapg export RUN --out FOLDER | --hub FOLDER [--licence TEXT] [--onnx] [--int8]

Of a finished pre-training: backbone.pth (torchvision's names, as the LUPerson weights), model.safetensors with
config.json and a model card (the hub's layout), and features.onnx if asked for.
Of a finished fine-tuning: the hub's layout, visible.onnx and infrared.onnx if asked for, and published.t, a checkpoint
in the layout of the published AGW and CAJ code, where that code can build the network (ResNet-50; it has no place for a
trained GeM power: --method.network.learn_power false, or a `paper` preset).

Everything is read back and must give the run's features: to the bit, ONNX within 1e-4. --int8 also writes the ONNX
files in 8-bit integers, by onnxruntime's static quantisation, and says what that costs in mAP on the run's test data.

examples:
  dapg export outputs/pretrain/first --out outputs/export/first --licence cc0-1.0 --onnx
  dapg export outputs/finetune/agw --out outputs/export/agw --onnx --int8
  dapg export outputs/finetune/agw --hub outputs/hub/agw --licence cc0-1.0
  dapg pretrain mocov2 --init outputs/export/first ...
"""


def main(words: list[str], program: str) -> None:
    """Parse, write, and say what was checked."""
    run, words = take_positional(words, "RUN", None, program)

    from pathlib import Path

    from dapg.commands._training import data_option
    from dapg.core.run_folder import CONFIG
    from dapg.core.settings import read_yaml
    from dapg.evaluation.evaluate import own_data
    from dapg.export.export import FINETUNING, ExportSettings, export
    from dapg.features.extract import left_out

    settings = parse(program, ExportSettings(), words, _HELP)
    exported = export(Path(run), settings)
    for name, digest in exported.sha256.items():
        print(f"{exported.folder / name}  sha256 {digest[:12]}")
    for note in exported.notes:
        print(note)
    print("the torch and safetensors files, read back, give the run's features to the bit")
    if exported.onnx_difference is not None:
        print(f"onnxruntime's features differ by {exported.onnx_difference:.1g} at most")
    if exported.int8 is not None:
        scores = exported.int8
        print(
            f"int8 on {scores['data']}, {scores['mode']}: mAP {100 * scores['mAP']['int8']:.2f} % instead of "
            f"{100 * scores['mAP']['fp32']:.2f} %"
        )
        for note in left_out(scores.get("unreadable", {}), "of those that int8 was made and scored with"):
            print(note)
    print(f"in Python: dapg.load({str(exported.folder)!r}); as first weights of a training: --init {exported.folder}")
    if read_yaml(Path(run) / CONFIG)["stage"] == FINETUNING:
        say_next(("score it", dapg("evaluate", exported.folder, further=data_option(own_data(run)))))
    else:
        say_next(("fine-tune from it", dapg("finetune", "agw", "--init", exported.folder)))
