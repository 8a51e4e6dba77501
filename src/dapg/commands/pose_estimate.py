"""Find the 18 key points of the person in each picture: one table beside the data."""

from dapg.commands._settings import parse, take_option, take_positional, wants_help
from dapg.core import plugins

_HELP = """usage: dapg pose estimate DATA [--estimator {{{estimators}}}] [--part i/n] [--out FOLDER] [OPTIONS]

Find the 18 key points (OpenPose's order) of the person in each picture of a data set. Writes key_points.npz, a sheet of
pictures with their key points, and a result beside the data, or to --out. A killed run goes on where it stopped.

estimators:
{summaries}

examples:
  dapg pose estimate synthetic --estimator annotations
  dapg pose estimate market1501=/data/Market-1501-v15.09.15
  dapg pose estimate /path/to/pictures --part 1/2 --out outputs/key_points    # and 2/2 on another machine
  dapg pose estimate /path/to/pictures --estimator onnx --estimator.model hrnet.onnx
"""


def main(words: list[str], program: str) -> None:
    """Parse, estimate, say what was found and where it is."""
    names = plugins.names("pose.estimators")
    summaries = "\n".join(f"  {name:12}  {plugins.summary('pose.estimators', name)}" for name in names)
    help_text = _HELP.format(estimators=",".join(names), summaries=summaries)
    if wants_help(words):
        print(help_text, end="")
        return
    source, words = take_positional(words, "DATA", None, program)
    name, words = take_option(words, "--estimator", "blazepose")

    from dapg.data.source import DataConfig, parse_source
    from dapg.pose.estimate import EstimateSettings, estimate, estimator_class

    config = DataConfig(**parse_source(source))  # type: ignore[arg-type]
    defaults = EstimateSettings(name, estimator_class(name).Config(), config)
    settings = parse(program, defaults, words, help_text, positionals=("name",))
    result = estimate(settings)
    if "missing" in result:
        print(f"this part is done; {result['missing']} of {result['chunks']} chunks are left to other parts")
        return
    done = "already finished, reused" if result.get("reused") else "done"
    pictures = result["pictures"]
    print(
        f"{done}: {pictures} pictures, {result['usable']} with usable key points, {pictures - result['usable']} without"
    )
    if result["unreadable"]:
        print(f"{len(result['unreadable'])} pictures could not be read; {settings.folder() / 'result.json'} lists them")
    print(f"key points: {settings.folder() / 'key_points.npz'}")
