"""Pre-trained weights for others: torchvision's flat dict, a folder in the hub's layout with a model card, and ONNX.

Whatever is written is read back, and its features of the same pictures are compared with those of the run.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg import __version__
from dapg.core.errors import DapgError, UsageError
from dapg.core.files import atomic_path, atomic_write_text, read_json, sha256, write_json
from dapg.core.images import normalise
from dapg.core.rng import generator_from
from dapg.core.run_folder import CONFIG, ENVIRONMENT, RESULT
from dapg.core.settings import dump_yaml, read_yaml
from dapg.core.types import JsonObject
from dapg.methods.published import export_published
from dapg.methods.runs import BACKBONE_WEIGHTS
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool
from dapg.models.weights.backbone_weights import HUB_FILE, backbone_from_file, export_flat, init_backbone, save_backbone

FLAT_FILE, ONNX_FILE, CARD, HUB_CONFIG = "backbone.pth", "features.onnx", "README.md", "config.json"
PUBLISHED_FILE = "published.t"
STAGES = ("pretrain", "align")
"""Whose runs leave one backbone that others can start from."""
FINETUNING = "finetune"
"""Whose runs leave a network of two stems, written in the layout of the published AGW code."""
ONNX_TOLERANCE = 1e-4
"""Largest difference of a value of a unit feature between torch and onnxruntime."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how well it agrees with the run."""

    folder: Path
    sha256: dict[str, str]
    """Of each file of weights."""
    onnx_difference: float | None
    """Largest difference of a feature value between torch and onnxruntime; None without ONNX."""


class FeatureNetwork(nn.Module):
    """Pictures in [0, 1] to unit features: normalisation, backbone, average pooling. What ONNX files hold."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The pooled feature map of length one, as ``dapg evaluate`` scores it."""
        normalised = normalise(pictures, self.backbone.mean, self.backbone.std)
        return functional.normalize(average_pool(self.backbone(normalised)))


def export(run: Path, out: Path, licence: str = "", onnx: bool = False) -> Exported:
    """Write the weights of a finished run into a new folder, and check what was written.

    A fine-tuning gives ``published.t``, the layout of the published AGW and CAJ code. Of a pre-training the folder
    holds ``backbone.pth`` with its description (the layout of the released LUPerson weights), ``model.safetensors``,
    ``config.json`` and the model card ``README.md`` (the hub's layout), and ``features.onnx`` if asked for; ``--init``
    takes the folder or either file.

    Args:
        run: folder of a finished pre-training, alignment or fine-tuning.
        out: folder that does not exist or is empty.
        licence: of the weights, for the card; SPDX name or a sentence.
        onnx: write ONNX too (extra ``onnx``).

    Raises:
        UsageError: not such a run, a folder that is not empty, ONNX without its packages, or a fine-tuned network that
            the published code cannot build.
        DapgError: what was written does not give the run's features.
    """
    settings, result = _read_run(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder; give another --out")
    if settings["stage"] == FINETUNING:
        if onnx:
            raise UsageError("--onnx writes a backbone; a fine-tuned network has two stems")
        out.mkdir(parents=True, exist_ok=True)
        export_published(run, out / PUBLISHED_FILE)
        return Exported(out, {PUBLISHED_FILE: sha256(out / PUBLISHED_FILE)}, None)
    backbone, _ = backbone_from_file(run / BACKBONE_WEIGHTS)
    network = FeatureNetwork(backbone).eval()
    size = _input_size(settings)
    pictures = torch.rand(3, 3, *size, generator=generator_from("export check"))
    with torch.no_grad():
        expected = network(pictures)
    facts = {"stage": settings["stage"], "method": settings["name"], "dapg_version": __version__}
    export_flat(backbone, out / FLAT_FILE, facts)
    save_backbone(backbone, out / HUB_FILE, facts)
    for path in (out / FLAT_FILE, out / HUB_FILE, out):
        _check_features(path, backbone, pictures, expected)
    difference = _write_onnx(network, pictures, expected, out / ONNX_FILE) if onnx else None
    hashes = {name: sha256(out / name) for name in (FLAT_FILE, HUB_FILE, ONNX_FILE) if (out / name).exists()}
    config = {
        **facts,
        "architecture": settings["backbone"]["name"],
        "config": settings["backbone"],
        "input": {"height": size[0], "width": size[1], "range": [0, 1], "channels": "RGB"},
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "feature_dim": backbone.feature_dim,
        "pooling": "average",
        "data": result["data"] | {"name": settings["data"]["name"], "split": settings["data"]["split"]},
        "sha256": hashes,
    }
    write_json(out / HUB_CONFIG, config)
    atomic_write_text(out / CARD, model_card(config, settings, result, _environment(run), _scores(run), licence))
    return Exported(out, hashes, difference)


def _read_run(run: Path) -> tuple[JsonObject, JsonObject]:
    """Settings and result of a finished run that leaves a backbone."""
    if not (run / CONFIG).exists():
        raise UsageError(f"{run} is not a run: it has no {CONFIG}")
    if not (run / RESULT).exists():
        raise UsageError(f"the run in {run} is not finished: run its command again to go on")
    settings = read_yaml(run / CONFIG)
    if settings.get("stage") not in (*STAGES, FINETUNING):
        raise UsageError(f"{run} is a run of `{settings.get('stage')}`, which leaves no weights")
    return settings, dict(read_json(run / RESULT))


def _input_size(settings: JsonObject) -> tuple[int, int]:
    views = settings["method"]["views"]
    return views["height"], views["width"]


def _check_features(
    path: Path, backbone: Backbone, pictures: Float[Tensor, "B 3 H W"], expected: Float[Tensor, "B D"]
) -> None:
    """Load as ``--init`` does, into other random weights, and compare."""
    architecture = type(backbone).__module__.rsplit(".", 1)[-1]
    again, _ = init_backbone(architecture, backbone.config, str(path), seed=1)
    with torch.no_grad():
        features = FeatureNetwork(again).eval()(pictures)
    if not torch.equal(features, expected):
        worst = float((features - expected).abs().max())
        raise DapgError(f"{path} was written, but gives other features (up to {worst:.2g}): do not use it")


def _write_onnx(
    network: FeatureNetwork, pictures: Float[Tensor, "B 3 H W"], expected: Float[Tensor, "B D"], path: Path
) -> float:
    """One file with the weights inside and any number of pictures; returns the difference to torch's features."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - what torch's exporter asks for
    except ImportError as error:
        raise UsageError(f"--onnx needs the extra `onnx` ({error}): pip install 'dapg[onnx]'") from error
    batch = torch.export.Dim("batch", min=1)
    with atomic_path(path) as temporary:
        program = torch.onnx.export(
            network,
            (pictures,),
            input_names=["pictures"],
            output_names=["features"],
            dynamic_shapes={"pictures": {0: batch}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(temporary), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = [torch.from_numpy(session.run(None, {"pictures": pictures[:count].numpy()})[0]) for count in (3, 1)]
    difference = max(float((rows - expected[: len(rows)]).abs().max()) for rows in outputs)
    if difference > ONNX_TOLERANCE:
        raise DapgError(f"{path} was written, but its features differ by {difference:.2g} from torch's: do not use it")
    return difference


def _environment(run: Path) -> JsonObject:
    return dict(read_json(run / ENVIRONMENT)) if (run / ENVIRONMENT).exists() else {}


def _scores(run: Path) -> list[JsonObject]:
    """Finished evaluations that lie inside the run's folder, where ``dapg evaluate RUN`` puts them."""
    results = [dict(read_json(path)) for path in sorted(run.glob(f"*/{RESULT}"))]
    return [result for result in results if result.get("stage") == "evaluate"]


def model_card(
    config: JsonObject,
    settings: JsonObject,
    result: JsonObject,
    environment: JsonObject,
    scores: list[JsonObject],
    licence: str,
) -> str:
    """The README.md of a hub folder: what the weights are, how they were made, and what nobody has tested."""
    data, size = config["data"], config["input"]
    tested = sorted({score["data"]["name"] for score in scores})
    init = result["init"] if isinstance(result["init"], str) else result["init"]["source"]
    card = f"""---
library_name: dapg
pipeline_tag: image-feature-extraction
license: {"other" if " " in licence or not licence else licence.lower()}
tags: [person-re-identification, {config["method"]}, {config["architecture"]}]
---

# {config["architecture"]}, pre-trained with {config["method"]}

A backbone without classifier, of width {settings["backbone"]["width"]}: pictures of one person each,
{size["height"]} x {size["width"]} RGB, to {config["feature_dim"]} channels. It is a start for a re-identification
network, not a finished one.

## Use

```shell
dapg finetune agw --backbone {config["architecture"]} --init FOLDER
```

```python
state = torch.load("{FLAT_FILE}", weights_only=True)   # torchvision's names, no fc
```

Pictures in [0, 1] are normalised with mean {config["mean"]} and deviation {config["std"]}; features are the averaged
feature map, divided by its length.

## Data

{data["name"]}{f", split {data['split']}" if data["split"] else ""}: {data["pictures"]} pictures, list hash
`{data["hash"]}`. First weights: {init}. {result["steps"]} steps, {result["pictures_seen"]} pictures seen.

## Recipe

```yaml
{dump_yaml({key: settings[key] for key in ("name", "method", "backbone", "train", "seed")}).rstrip()}
```

Made with dapg {config["dapg_version"]}, commit {environment.get("commit")}, packages
{environment.get("packages")} on {environment.get("device")}.

## Files

| file | SHA-256 |
|---|---|
"""
    card += "".join(f"| `{name}` | `{digest}` |\n" for name, digest in config["sha256"].items())
    card += "\n## Scores\n\n"
    if scores:
        card += "| data | mode | feature | rank-1 | mAP |\n|---|---|---|---|---|\n"
        card += "".join(_score_row(score) for score in scores)
    else:
        card += "None were taken with these weights when this card was written.\n"
    missing = [name for name in ("SYSU-MM01", "RegDB", "LLCM", "Market-1501") if name not in tested]
    card += f"""
## Not tested

* Scores on {", ".join(missing) or "data sets beyond those above"}: nobody took them with these weights.
* Whether people of different skin, age, build, dress or disability are told apart equally well.
* Pictures of other sizes, of several people, or without a person.
* Decisions about people. A ranked list is a suggestion to a human, not an identification.

## Licence

{licence or "None was stated when this was exported. The terms of the pictures and of the first weights apply."}
"""
    return card


def _score_row(score: JsonObject) -> str:
    means = score["scores"][score["feature"]]
    return (
        f"| {score['data']['name']} | {score['data']['mode']} | {score['feature']} | "
        f"{100 * means['cmc'][0]:.1f} | {100 * means['mAP']:.1f} |\n"
    )
