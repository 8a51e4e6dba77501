"""Score a model, or only its features, on clean images and under 20 types of corruption at five severities."""

from dapg.commands._next import dapg, finished, say_next
from dapg.commands._settings import parse, take_positional

_HELP = """usage: dapg benchmark RUN|FEATURES [--data SOURCE] [--NAME VALUE ...]
       dapg benchmark --images --data SOURCE [--mode MODE]
       dapg benchmark --clear_cache

Score a model by the fixed list vi-c 1.0: clean, 20 types x 5 severities, and mixtures of them; mCE, retention, worst
cells, open set, and how a threshold set on clean images drifts. One JSON file, one CSV file and one page come out.

RUN is a finished run, random, imagenet, histogram or a weights file. FEATURES is a folder of features that any program
made, one .npz file per test set (docs/reference/benchmark.md); --images prints which images they are of. A killed
benchmark goes on where it stopped. Corrupted images are kept on this machine for the next model; --clear_cache
deletes them.

examples:
  dapg benchmark outputs/finetune/first
  dapg benchmark outputs/agw --data sysu=/data/SYSU-MM01 --mode all --reference outputs/benchmark/agw-imagenet
  dapg benchmark features/mine --data sysu=/data/SYSU-MM01 --name mine --out outputs/benchmark/mine
  dapg benchmark outputs/agw --protocols all                  every side, and cameras that share the weather
"""
_COMMON = "mode name source protocols reference repeats trials feature keep_features cache_size workers out device"


def main(words: list[str], program: str) -> None:
    """Parse, score, print the numbers and where the page is."""
    if words[:1] == ["--images"]:
        _images(words[1:], program)
        return
    if words[:1] == ["--clear_cache"]:
        from dapg.evaluation.image_cache import ImageCache, default_folder

        freed = ImageCache(default_folder(), 0).clear()
        print(f"{freed / 1e9:.2f} GB of corrupted images deleted from {default_folder()}")
        return
    from pathlib import Path

    from dapg.evaluation.benchmark import BenchmarkSettings, benchmark, default_out
    from dapg.evaluation.evaluate import own_data
    from dapg.features.extract import left_out
    from dapg.report.benchmark_page import number_rows, write_benchmark_page
    from dapg.report.score_tables import to_markdown

    model, words = take_positional(words, "RUN or FEATURES", None, program)
    defaults = BenchmarkSettings(model, own_data(model))
    settings = default_out(parse(program, defaults, words, _HELP, ("model",), _COMMON))
    result = benchmark(settings)
    if result.get("reused"):
        print(finished(result))
    print("per cent; higher is better, but of mCE less, where the reference model has 100; docs/reference/benchmark.md")
    print(to_markdown(number_rows([result])), end="")
    for note in left_out(result["unreadable"]):
        print(note)
    folder = Path(settings.out)
    write_benchmark_page(folder / "benchmark.html", [result])
    print(f"written: {folder / 'result.json'}, {folder / 'cells.csv'}, {folder / 'benchmark.html'}")
    say_next(("put it beside others", dapg("leaderboard", folder, "OTHER")))


def _images(words: list[str], program: str) -> None:
    from dapg.data.source import open_dataset
    from dapg.evaluation.benchmark import ImageListSettings, image_list

    settings = parse(f"{program} --images", ImageListSettings(), words, _HELP)
    print(image_list(open_dataset(settings.data), settings), end="")
