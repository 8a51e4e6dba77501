"""The model card: README.md of an exported folder, and the short card inside its weights."""

from collections.abc import Sequence
from pathlib import Path

from dapg.core import plugins
from dapg.core.results import Environment, check_evaluation
from dapg.core.run_folder import ENVIRONMENT, RESULT
from dapg.core.schema import read_json
from dapg.core.settings import dump_yaml
from dapg.core.types import JsonObject
from dapg.core.words import without_folders
from dapg.data.base import Dataset
from dapg.models.weights.addresses import Card, CardScore

_USES = {
    True: "finding a person again in images of another camera or kind of light, for a human to look at; not for "
    "decisions about people",
    False: "first weights of a re-identification network; not a finished one",
}

RECIPE = ("name", "method", "backbone", "train", "seed")
"""Settings that the card prints."""


def environment(run: Path) -> JsonObject:
    """Where and with what a run was made."""
    return dict(read_json(run / ENVIRONMENT, Environment)) if (run / ENVIRONMENT).exists() else {}


def scores_of(run: Path) -> list[CardScore]:
    """Finished evaluations inside the run's folder, where ``dapg evaluate RUN`` puts them."""
    scores = []
    for path in sorted(run.glob(f"*/{RESULT}")):
        result = read_json(path)
        if result.get("stage") == "evaluate":
            check_evaluation(result, path)
            means = result["scores"][result["feature"]]
            protocol = f"{result['data']['name']}, {result['data']['mode']}, {result['feature']}"
            scores.append(CardScore(protocol, 100 * means["cmc"][0], 100 * means["mAP"]))
    return scores


def short_card(run: Path, settings: JsonObject, result: JsonObject, licence: str, finished: bool) -> Card:
    """The card inside the weights; ``finished``: a fine-tuned network, rather than a start for one."""
    data = settings["data"]
    title, terms = data["name"], "not stated"
    if data["name"] in plugins.names("data.sets"):
        kind = plugins.load("data.sets", data["name"], Dataset)
        title, terms = kind.title, kind.licence
    init = result["init"] if isinstance(result["init"], str) else result["init"]["source"]
    split = f", split {data['split']}" if data["split"] else ""
    about = f"{title}{split}, {result['data']['pictures']} images; first weights: {without_folders(init)}"
    return Card(about, terms, licence or "not stated", _USES[finished], tuple(scores_of(run)))


def model_card(
    config: JsonObject, settings: JsonObject, result: JsonObject, environment: JsonObject, card: Card
) -> str:
    """The README.md of an exported folder: what the weights are, how they were made, and what nobody has tested."""
    size, licence = config["input"], card.licence
    finetuned = settings["stage"] == "finetune"
    what = "fine-tuned" if finetuned else "pre-trained"
    about = (
        "A network with a stem for visible and one for infrared images"
        if finetuned
        else "A backbone without classifier; a start for a re-identification network, not a finished one"
    )
    use = (
        'model = dapg.load("FOLDER")            # or hf://owner/name@revision\n'
        'features = model.encode(images, modality="infrared")'
        if finetuned
        else f'state = torch.load("backbone.pth", weights_only=True)   # torchvision\'s names, no fc\n'
        f"# or: dapg finetune agw --backbone {config['architecture']} --init FOLDER"
    )
    rows = "".join(f"| {score.protocol} | {score.rank_1:.1f} | {score.mAP:.1f} |\n" for score in card.scores)
    table = f"| data, mode, feature | rank-1 | mAP |\n|---|---|---|\n{rows}" if rows else _NO_SCORES
    tested: Sequence[str] = [score.protocol.split(",")[0] for score in card.scores]
    missing = [name for name in ("SYSU-MM01", "RegDB", "LLCM", "Market-1501") if name not in tested]
    files = "".join(f"| `{name}` | `{digest}` |\n" for name, digest in config["sha256"].items())
    return f"""---
library_name: dapg
pipeline_tag: image-feature-extraction
license: {"other" if " " in licence else licence.lower()}
tags: [person-re-identification, {config["metadata"]["name"]}, {config["architecture"]}]
---

# {config["architecture"]}, {what} with {config["metadata"]["name"]}

{about}: images of one person each, {size["height"]} x {size["width"]} RGB, to {config["feature_dim"]} numbers.

## Use

```python
{use}
```

Images in [0, 1] are normalised with mean {config["mean"]} and deviation {config["std"]}; features have length one.

## Data

{card.data}. List hash `{config["data"]["hash"]}`. {result["steps"]} steps, {result["pictures_seen"]} images seen.
Terms of the data: {card.terms}.

## Recipe

```yaml
{dump_yaml(without_folders({key: settings[key] for key in RECIPE})).rstrip()}
```

Made with dapg {config["dapg_version"]}, commit {environment.get("commit")}, packages {environment.get("packages")}
on {environment.get("device")}.

## Files

| file | SHA-256 |
|---|---|
{files}
## Scores

{table}{_int8_text(config)}
## Intended use

{card.use}.

## Not tested

* Scores on {", ".join(missing) or "data sets beyond those above"}: nobody took them with these weights.
* Whether people of different skin, age, build, dress or disability are told apart equally well.
* Images of other sizes, of several people, or without a person.
* Decisions about people. A ranked list is a suggestion to a human, not an identification.

## Licence

{licence if licence != "not stated" else _NO_LICENCE}
"""


_NO_SCORES = "None were taken with these weights when this card was written.\n"
_NO_LICENCE = "None was stated when this was exported. The terms of the images and of the first weights apply."


def _int8_text(config: JsonObject) -> str:
    if "int8" not in config:
        return ""
    scores = config["int8"]
    return (
        f"\nint8 files on {scores['data']}, {scores['mode']}: mAP {100 * scores['mAP']['int8']:.2f} instead of "
        f"{100 * scores['mAP']['fp32']:.2f}, rank-1 {100 * scores['rank_1']['int8']:.2f} instead of "
        f"{100 * scores['rank_1']['fp32']:.2f}.\n"
    )
