"""Cut people out of your own videos, for pre-training (extra `crop`)."""

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_option, take_positional
from dapg.core import plugins
from dapg.core.words import counted

_HELP = """usage: dapg data crop VIDEO|FOLDER --out DIR [--detector {names}] [--NAME VALUE ...]

Find people in videos (or folders of frames), follow them, and write a crop of each person now and then, with
manifest.csv. Killed runs go on where they stopped when the same command is given again.

detectors:
{detectors}

examples:
  dapg data crop street.mp4 --out outputs/crops
  dapg data crop footage --out outputs/crops --detector yolo --detect.weights yolo11n.onnx
  dapg data crop footage --out /shared/crops --engine slurm --workers 40
  dapg pretrain mocov2 --preset small --data outputs/crops

Filming people needs a lawful basis: docs/tutorials/own-footage.md.
"""

_COMMON = (
    "detect. sampling.frames_per_second sampling.crops_per_second filters.min_height modality picture_rate persons "
    "engine.workers out"
)


def main(words: list[str], program: str) -> None:
    """Parse, crop, print counts."""
    source, words = take_positional(words, "VIDEO|FOLDER", None, program)
    name, words = take_option(words, "--detector", _stored_detector(words))

    from dapg.data.cropping.crop import DETECTORS, CropSettings, crop
    from dapg.data.cropping.detectors.base import Detector

    kind = plugins.load(DETECTORS, name, Detector)
    defaults = CropSettings(source=source, detector=name, detect=kind.Config())
    names = plugins.names(DETECTORS)
    listed = "\n".join(f"  {known:6}  {plugins.summary(DETECTORS, known)}" for known in names)
    about = _HELP.format(names="|".join(names), detectors=listed)
    settings = parse(program, defaults, words, about, ("source", "detector"), _COMMON)
    result = crop(settings)
    for problem in result["unopened"]:
        print(f"left out: {problem}")
    lost = result["undecodable"] + result["missing"]
    boxes, frames = counted(result["boxes"], "box"), counted(result["frames"], "frame")
    print(
        f"{counted(result['crops'], 'crop')} in {counted(result['tracks'], 'track')}, "
        f"from {boxes} in {frames} looked at, of {counted(result['videos'], 'video')}"
    )
    print("boxes left out: " + ", ".join(f"{count:,} {reason}" for reason, count in result["dropped"].items()))
    if lost:
        print(f"{counted(lost, 'frame')} could not be decoded (damaged, or the video is cut off); the rest was used")
    print(f"written: {settings.out} (not to be shared if it shows real people)")
    say_next(
        ("pre-train on them", dapg("pretrain", "dapg", "--preset", "small", "--data", settings.out)),
        ("or search them", dapg("index", "GALLERY", settings.out, "--model", "MODEL")),
    )


def _stored_detector(words: list[str]) -> str:
    """The detector that a --config file names."""
    from pathlib import Path

    from dapg.core.settings import read_yaml

    config, _ = take_option(words, "--config", "")
    return str(read_yaml(Path(config)).get("detector", "hog")) if config else "hog"
