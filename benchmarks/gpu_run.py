"""One run that gives every figure a GPU is needed for: parity, corruptions, training steps, growth, search.

    python benchmarks/gpu_run.py [--device cuda] [--out outputs/gpu] [--minutes 8] [--only PART ...] [--people FOLDER]
    python benchmarks/gpu_run.py --device cpu --smoke        # every code path with small sizes, one to two minutes

Parts run in the order of their value, each in a process of its own with a limit of its own, so that one that fails or
hangs costs nothing else. A part that is done is not run again: run the command again to go on. What comes out is one
JSON file with every number, one Markdown table, and each part's log. Needs the package and torch >= 2.6 only; pytest,
kornia and torchvision add rows where they are installed.

``--people`` is a folder of ``dapg data synth`` with many unlabelled people for the growth part
(docs/how-to/gpu.md).
"""

import argparse
import contextlib
import importlib.util
import itertools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dapg.augment.noise_chain import ChainConfig, noise_chain
from dapg.augment.skeleton import canonical_poses
from dapg.core import plugins
from dapg.core.batch import Batch
from dapg.core.device import place
from dapg.core.files import atomic_write_text, write_json
from dapg.core.metrics_log import read_metrics
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.schema import read_json
from dapg.core.types import Modality, Protocol
from dapg.corruptions import library
from dapg.evaluation.evaluate import EvaluateSettings, evaluate
from dapg.methods.alignment._on_the_fly import OnTheFly
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import FOLDERS, backbone_settings, method_class
from dapg.models.weights.backbone_weights import init_backbone
from dapg.models.weights.pose_weights import load_generator
from dapg.recipes import alignment, finetuning, pretraining
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score_features
from dapg.training.finetune import finetune
from dapg.training.optimizers import build_optimizer
from dapg.training.pretrain import pretrain

ROOT = Path(__file__).resolve().parents[1]
Numbers = dict[str, object]


@dataclass(frozen=True)
class Options:
    """What every part knows."""

    device: torch.device
    smoke: bool
    out: Path
    people: str = ""

    def size(self, full: int, small: int) -> int:
        """A size, or a small one for the smoke test."""
        return small if self.smoke else full

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that are measured on."""
        return (64, 32) if self.smoke else (256, 128)


@dataclass(frozen=True)
class Part:
    """One measurement with its limit in seconds."""

    seconds: int
    run: Callable[[Options], Numbers]


# Parts, in the order of their value


def tests(options: Options) -> Numbers:
    """The tests marked ``cuda``, where pytest is installed and the tests are at hand."""
    if importlib.util.find_spec("pytest") is None or not (ROOT / "tests").is_dir():
        return {"not run": "pytest or the tests are not here"}
    words = ["-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *["--collect-only"] * options.smoke]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    lines = ended.stdout.strip().splitlines()
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1])}
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"exit": ended.returncode, **counts, "failures": failures}


def parity(options: Options) -> Numbers:
    """The largest difference from the CPU: draws, corruptions, a step of every method, scores."""
    shape = (10, 3, *options.image_size)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    levels = torch.arange(1, 6).repeat(2)
    corruptions = {}
    for name in library.names():
        streams = SampleGenerator(torch.arange(len(images)))
        draws = library.draw(images.shape, [name] * len(images), levels, streams)
        here, there = library.apply(images, draws), library.apply(images.to(options.device), draws).cpu()
        corruptions[name] = round(float(((here.int() - there.int()).abs() > 1).float().mean()), 6)
    methods = {}
    for stage in FOLDERS:
        for name in plugins.names(FOLDERS[stage]):
            if name in _NEED_FILES:
                continue
            here, there = (_one_step(stage, name, device) for device in (torch.device("cpu"), options.device))
            methods[name] = max(abs(a - b) / max(abs(a), 1e-6) for a, b in zip(here, there, strict=True))
    (host, host_bits), (there, bits) = (_scores_and_bits(where) for where in (torch.device("cpu"), options.device))
    return {
        "random bits that differ": int((host_bits != bits).sum()),
        "pixels off by more than a grey level": corruptions,
        "relative difference of a step": methods,
        "difference of a score": max(abs(host[name] - there[name]) for name in host),
    }


def _scores_and_bits(device: torch.device) -> tuple[dict[str, float], Tensor]:
    """Scores of 60 queries in a gallery of 300, and random bits of eight samples."""
    rows = torch.nn.functional.normalize(torch.randn(360, 64, generator=generator_from("features")), dim=1).to(device)
    persons = torch.arange(300) % 30
    labels = Labels(persons[:60], persons, torch.ones(60), 2 * torch.ones(300), Protocol("parity"))
    trial = score_features(rows[:60], rows[60:], labels)
    scores = {"rank-1": trial.cmc[0], "mAP": trial.mAP, "mINP": trial.mINP}
    return scores, SampleGenerator(torch.arange(8), device).bits(4096).cpu()


_NEED_FILES = ("pnl", "vtbr")
"""Methods that learn from a file about the images; their steps are in the tests."""


def corruptions(options: Options) -> Numbers:
    """Images of 256 x 128 per second: each type alone, all 20 mixed; groups of a chain (four views of an image)."""
    count = options.size(256, 8)
    shape = (count, 3, *options.image_size)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = images.to(options.device)
    levels = torch.arange(count) % 5 + 1

    def corrupt(names: list[str], step: int) -> Tensor:
        streams = SampleGenerator.for_step(0, step, torch.arange(count), options.device)
        return library.corrupt(images, names, levels, streams)

    rates: Numbers = {}
    for name in library.VISIBLE_20:
        rates[name] = round(count / _seconds(lambda step, name=name: corrupt([name] * count, step), options), 1)
    mixed = [library.VISIBLE_20[number % 20] for number in range(count)]
    rates["mixed"] = round(count / _seconds(lambda step: corrupt(mixed, step), options), 1)
    floats, chain = images.float() / 255, ChainConfig(severities=(1, 5))

    def chained(step: int) -> Tensor:
        streams = SampleGenerator.for_step(0, step, torch.arange(count), options.device)
        return noise_chain(floats, streams, chain.names, chain.severities).mixed

    rates["chain groups"] = round(count / _seconds(chained, options), 1)
    for package, peer in _peers().items():
        rates[f"{package}: {peer[0]}"] = round(count / _seconds(lambda _, f=peer[1]: f(images), options), 1)
    return rates


def _peers() -> dict[str, tuple[str, Callable[[Tensor], Tensor]]]:
    """The nearest thing that other packages have: a Gaussian blur of a batch."""
    found: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {}
    if importlib.util.find_spec("kornia") is not None:
        from kornia.filters import gaussian_blur2d

        found["kornia"] = ("gaussian blur", lambda images: gaussian_blur2d(images.float(), (9, 9), (2.0, 2.0)))
    if importlib.util.find_spec("torchvision") is not None:
        with contextlib.suppress(ImportError, RuntimeError):
            from torchvision.transforms.v2.functional import gaussian_blur

            found["torchvision"] = ("gaussian blur", lambda images: gaussian_blur(images, [9, 9], [2.0, 2.0]))
    return found


_STEPS = (("pretrain", "dapg", 256), ("finetune", "agw", 64), ("finetune", "cil", 64), ("finetune", "caj", 64))


def steps(options: Options) -> Numbers:
    """Samples per second of training steps, with views made in the step and with ready-made ones, and peak memory.

    Beside them a plain loop (the network with one pooled classifier on ready-made images, as large a batch), what the
    loop of the package reaches with files to read, and what one core makes of the same chain of corruptions, as a
    loader that corrupts on the host would: its processes can reach that many times their number.
    """
    rows: Numbers = {name: _step_rates(stage, name, batch, False, options) for stage, name, batch in _STEPS}
    rows |= {f"plain loop, batch {batch}": _plain_rate(batch, options) for batch in (256, 64)}
    return {**rows, "loop": _loop_rates(options), **_host_chains(options)}


def compiled_steps(options: Options) -> Numbers:
    """The same steps with compiled networks."""
    if options.smoke:
        return {"not run": "compiling takes minutes on a CPU; tests/contracts/test_several_devices.py does it"}
    return {name: _step_rates(stage, name, batch, True, options) for stage, name, batch in _STEPS}


def _plain_rate(batch_size: int, options: Options) -> float:
    """Samples per second of forward, backward and optimiser alone."""
    recipe = finetuning("agw", "demo" if options.smoke else "gpu")
    backbone, _ = init_backbone(recipe.backbone.name, backbone_settings(recipe.backbone), "random", 0)
    layers = (backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(backbone.feature_dim, 100))
    network = place(nn.Sequential(*layers), options.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    batch = _batch(options.size(batch_size, 16), options.image_size).to(options.device)
    images, persons = batch.images.float() / 255, batch.persons % 100

    def step(number: int) -> None:
        with _half(options.device):
            loss = nn.functional.cross_entropy(network(images), persons)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return round(len(batch) / _seconds(step, options), 1)


def _loop_rates(options: Options) -> Numbers:
    """Samples per second of stage 1 from files through the loop, and the share of time it waited for them."""
    settings = pretraining("dapg", "demo" if options.smoke else "gpu", "random")
    count = options.size(20, 2)
    train = replace(settings.train, steps=2 * count, log_every=count)  # the first line has the warm-up
    out = str(options.out / "loop")
    pretrain(replace(settings, train=train, out=out, device=str(options.device)))
    last = [line for line in read_metrics(options.out / "loop") if line["kind"] == "train"][-1]
    return {"samples/s": round(last["pictures_per_second"], 1), "share of waiting": round(last["data_wait"], 4)}


def _host_chains(options: Options) -> Numbers:
    """Groups of a chain per second on one core: by this package, and by imagecorruptions (NumPy) where it is here."""
    count = options.size(32, 2)
    images = torch.rand(count, 3, *options.image_size, generator=generator_from("pictures"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        host = replace(options, device=torch.device("cpu"))
        ours = _seconds(lambda step: noise_chain(images, SampleGenerator.for_step(0, step, torch.arange(count))), host)
    finally:
        torch.set_num_threads(threads)
    rates: Numbers = {"chain groups/s on one core": round(count / ours, 1)}
    if importlib.util.find_spec("imagecorruptions") is not None:
        from imagecorruptions import corrupt, get_corruption_names

        names, pixels = get_corruption_names(), (255 * images[0]).byte().permute(1, 2, 0).numpy()
        started = time.perf_counter()
        for number in range(6 * count):  # a group takes 1 + 2 + 3 corruptions
            corrupt(pixels, corruption_name=names[number % len(names)], severity=1 + number % 5)
        rates["chain groups/s on one core, NumPy"] = round(count / (time.perf_counter() - started), 1)
    return rates


def _step_rates(stage: str, name: str, batch_size: int, compiled: bool, options: Options) -> Numbers:
    method = _method(stage, name, "demo" if options.smoke else "gpu", options.device)
    if compiled:
        method.compile_network()
    optimizer = build_optimizer(pretraining("dapg", "gpu").train.optimizer, method.parameter_groups(0.01, 1e-4))
    batch = _batch(options.size(batch_size, 16), options.image_size).to(options.device)

    def step(number: int) -> Tensor:
        streams = SampleGenerator.for_step(0, number, torch.arange(len(batch)), options.device)
        with _half(options.device):
            loss = method(batch, streams).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(number + 1, 1000)
        return loss

    if options.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rate = len(batch) / _seconds(step, options)
    peak = torch.cuda.max_memory_allocated() / 2**30 if options.device.type == "cuda" else float("nan")
    row: Numbers = {"samples/s": round(rate, 1), "peak GiB": round(peak, 2)}
    views = "_views" if hasattr(method, "_views") else ""
    if views:
        ready = getattr(method, views)(batch, SampleGenerator.for_step(0, 0, torch.arange(len(batch)), options.device))
        setattr(method, views, lambda *_: ready)
        bare = len(batch) / _seconds(step, options)
        row |= {"samples/s on ready-made views": round(bare, 1), "share of that": round(rate / bare, 3)}
    return row


def growth(options: Options) -> Numbers:
    """Does pre-training help more with more images? Stage 1, SimCLR and none from ImageNet, then AGW, two seeds."""
    scale, start = ("demo", "random") if options.smoke else ("small", "imagenet")
    names = ("", "dapg") if options.smoke else ("", "simclr", "dapg")
    scores: Numbers = {}
    for seed, name in itertools.product(range(options.size(2, 1)), names):
        where, device = options.out / "growth" / f"{name or 'none'}-{seed}", str(options.device)
        tuned, init = finetuning("agw", scale, start), start
        if name:
            first, init = pretraining(name, scale, start), str(where / "first")
            data = replace(first.data, root=options.people)
            train = replace(first.train, steps=options.size(600, 2))
            pretrain(replace(first, data=data, train=train, out=init, seed=seed, device=device))
        train = replace(tuned.train, steps=options.size(400, 2))
        backbone = replace(tuned.backbone, init=init)
        tuned = replace(tuned, train=train, backbone=backbone, out=str(where / "tuned"), seed=seed, device=device)
        finetune(tuned)
        asked = EvaluateSettings(model=tuned.out, mode="all", ranked_lists=0, device=device, out=str(where / "scores"))
        result = evaluate(replace(asked, workers=options.size(asked.workers, 0)))
        scores[f"{name or 'none'}, seed {seed}"] = round(100 * result["scores"][result["feature"]]["mAP"], 2)
    return {"mAP, infrared to visible": scores, "people": options.people or "embedded"}


def search(options: Options) -> Numbers:
    """Search in a large gallery, scores of a published size, and images that the pose generator draws per second."""
    count, width = options.size(1_000_000, 2_000), 512
    gallery = torch.nn.functional.normalize(torch.randn(count, width, generator=generator_from("gallery")), dim=1)
    gallery = gallery.to(options.device)
    searched = _seconds(lambda _: (gallery[:64] @ gallery.T).topk(20), options)
    queries, answers = options.size(3_803, 200), options.size(16_000, 400)
    persons = torch.arange(answers) % 96
    labels = Labels(persons[:queries], persons, torch.ones(queries), 2 * torch.ones(answers), Protocol("search"))
    scored = _seconds(lambda _: score_features(gallery[:queries], gallery[:answers], labels, 20), options)
    painter, facts = load_generator()
    images = torch.randint(256, (options.size(256, 2), 3, facts.height, facts.width), dtype=torch.uint8)
    images, pose = images.to(options.device), next(iter(canonical_poses().values()))
    drawn = OnTheFly(painter.to(options.device).eval(), (facts.height, facts.width), [pose])
    with torch.no_grad():
        painted = len(images) / _seconds(lambda _: drawn.every_pose(images), options)
    return {
        "features in the gallery": count,
        "ms a query in batches of 64": round(1000 * searched / 64, 4),
        f"s to score {queries:,} queries in {answers:,}": round(scored, 4),
        "generated images/s": round(painted, 1),
    }


PARTS: dict[str, Part] = {
    "tests": Part(90, tests),
    "parity": Part(60, parity),
    "corruptions": Part(60, corruptions),
    "steps": Part(80, steps),
    "growth": Part(200, growth),
    "search": Part(40, search),
    "compiled steps": Part(120, compiled_steps),
}


# What parts share


def _seconds(work: Callable[[int], object], options: Options) -> float:
    """Seconds of one call, after a warm-up, waiting for the device at the end only."""
    repeats = options.size(10, 1)
    for step in range(options.size(3, 1)):
        work(step)
    _wait(options.device)
    started = time.perf_counter()
    for step in range(repeats):
        work(step)
    _wait(options.device)
    return (time.perf_counter() - started) / repeats


def _half(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """bf16 on a GPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _method(stage: str, name: str, scale: str, device: torch.device) -> Method:
    recipes = {"pretrain": pretraining, "finetune": finetuning, "align": alignment}
    recipe = recipes[stage](name, scale)
    backbone, _ = init_backbone(recipe.backbone.name, backbone_settings(recipe.backbone), "random", 0)
    kind = method_class(stage, name)
    facts = DataFacts(1000, tuple(range(100)))
    return place(kind(recipe.method, backbone, facts, generator_from("heads")), device).train()


def _batch(count: int, size: tuple[int, int]) -> Batch:
    """Random images of persons with two visible and two infrared ones each."""
    numbers = torch.arange(count)
    images = torch.randint(256, (count, 3, *size), dtype=torch.uint8, generator=generator_from("pictures"))
    half = count // 2
    return Batch(
        images=images,
        persons=(numbers % half) // 2,
        cameras=torch.where(numbers < half, 1, 3),
        modalities=torch.where(numbers < half, int(Modality.VISIBLE), int(Modality.INFRARED)),
        indices=numbers,
    )


def _one_step(stage: str, name: str, device: torch.device) -> list[float]:
    """Loss and the gradient's norm of one step at the smallest scale.

    A chain goes without JPEG: the host has a codec and a GPU its transform, which differ by some grey levels.
    """
    method = _method(stage, name, "demo", device)
    if isinstance(chain := getattr(method.settings, "chain", None), ChainConfig):
        types = tuple(kind for kind in chain.names if kind != "jpeg_compression")
        method.settings = replace(method.settings, chain=replace(chain, types=types))
    batch = _batch(16, (64, 32)).to(device)
    streams = SampleGenerator.for_step(0, 0, torch.arange(len(batch)), device)
    result = method(batch, streams)
    result.loss.backward()
    norms = [parameter.grad.norm() for parameter in method.parameters() if parameter.grad is not None]
    return [float(result.loss.detach()), float(torch.stack(norms).norm())]


# The runner


def run_part(name: str, options: Options) -> None:
    """Run one part in this process and write its file, the last thing it does."""
    started = time.perf_counter()
    numbers = PARTS[name].run(options)
    write_json(options.out / f"{name}.json", {"seconds": round(time.perf_counter() - started, 1), **numbers})


def run_all(options: Options, wanted: list[str], minutes: float) -> Iterator[tuple[str, str]]:
    """Every wanted part that is not done, each in a process of its own; its name and how it ended."""
    ends = time.monotonic() + 60 * minutes
    for name in wanted:
        if (options.out / f"{name}.json").exists():
            yield name, "done before"
            continue
        limit = min(PARTS[name].seconds * (20 if options.device.type == "cpu" else 1), ends - time.monotonic())
        if limit < 5:
            yield name, "no time left"
            continue
        words = ["--part", name, "--device", str(options.device), "--out", str(options.out), "--people", options.people]
        command = [sys.executable, str(Path(__file__)), *words, *(["--smoke"] if options.smoke else [])]
        with (options.out / f"{name}.log").open("w", encoding="utf-8") as log:
            try:
                ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=limit, check=False)
                yield name, "done" if ended.returncode == 0 else f"failed, see {name}.log"
            except subprocess.TimeoutExpired:
                yield name, f"stopped after {limit:.0f} s"


def report(options: Options, ended: dict[str, str]) -> str:
    """All numbers as JSON, and as Markdown, which is returned."""
    device = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "cpu"
    about = {"device": device, "torch": torch.__version__, "smoke": options.smoke, "ended": ended}
    parts = {name: read_json(options.out / f"{name}.json") for name in PARTS if (options.out / f"{name}.json").exists()}
    write_json(options.out / "gpu.json", {**about, "parts": parts})
    lines = [f"# {device}, torch {torch.__version__}{', smoke test' if options.smoke else ''}", ""]
    lines += ["| part | figure | value |", "|---|---|---|"]
    for name, numbers in parts.items():
        lines += [f"| {name} | {figure} | {value} |" for figure, value in _flat(numbers)]
    lines += [f"| {name} | | {end} |" for name, end in ended.items() if name not in parts]
    text = "\n".join(lines) + "\n"
    atomic_write_text(options.out / "gpu.md", text)
    return text


def _flat(numbers: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in numbers.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}", value


def main() -> int:
    """Parse, run the parts, print the table; 1 where a part did not end well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--people", default="", help="a folder of `dapg data synth` for the growth part")
    parser.add_argument("--smoke", action="store_true", help="small sizes: does every part run?")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    words = parser.parse_args()
    options = Options(torch.device(words.device), words.smoke, words.out.resolve(), words.people)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here; try --device cpu --smoke", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    if words.part:
        run_part(words.part, options)
        return 0
    ended = {}
    for name, end in run_all(options, words.only, 60.0 if words.smoke else words.minutes):
        ended[name] = end
        print(f"{time.strftime('%H:%M:%S')} {name}: {end}", flush=True)
    print(report(options, ended))
    return int(any(not end.startswith("done") for end in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
