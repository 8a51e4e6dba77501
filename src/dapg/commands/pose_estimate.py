"""Find the 18 key points of the person in each image: one table beside the data."""

from dapg.commands._next import dapg, finished, say_next
from dapg.commands._settings import parse, take_option, take_source
from dapg.commands._training import data_option
from dapg.core import plugins
from dapg.core.words import counted

_HELP = """usage: dapg pose estimate DATA [--estimator {{{estimators}}}] [--out FOLDER] [--NAME VALUE ...]

Find the 18 key points (OpenPose's order) of the person in each image of a data set. Writes key_points.npz, a sheet of
images with their key points, and a result beside the data, or to --out. A killed run goes on where it stopped.

estimators:
{summaries}

examples:
  dapg pose estimate synthetic --estimator annotations
  dapg pose estimate market1501=/data/Market-1501-v15.09.15
  dapg pose estimate /path/to/images --workers 4 --out outputs/key_points
  dapg pose estimate /path/to/images --estimator onnx --estimator.model hrnet.onnx
"""


def main(words: list[str], program: str) -> None:
    """Parse, estimate, say what was found and where it is."""
    names = plugins.names("pose.estimators")
    summaries = "\n".join(f"  {name:12}  {plugins.summary('pose.estimators', name)}" for name in names)
    help_text = _HELP.format(estimators=",".join(names), summaries=summaries)
    config, words = take_source(words, "DATA", program)
    name, words = take_option(words, "--estimator", "blazepose")

    from dapg.pose.estimate import EstimateSettings, estimate, estimator_class

    defaults = EstimateSettings(name, estimator_class(name).Config(), config)
    settings = parse(program, defaults, words, help_text, positionals=("name",))
    result = estimate(settings)
    images, usable = result["pictures"], result["usable"]
    print(f"{finished(result)}: {counted(images, 'image')}, {usable} with usable key points, {images - usable} without")
    if result["unreadable"]:
        unreadable = counted(len(result["unreadable"]), "image")
        print(f"could not be read: {unreadable}, listed in {settings.folder() / 'result.json'}")
    table = settings.folder() / "key_points.npz"
    print(f"written: {table}")
    source = data_option(config).removeprefix(" --data ") or config.name
    say_next(("paint people in other poses", f"dapg pose generate {source}" + dapg("--key_points", table)[4:]))
