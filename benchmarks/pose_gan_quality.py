"""How good a pose generator is on held-out synthetic people, against the true image in the target pose.

    dapg data synth --persons 220 --poses canonical --archive true --out canonical
    python benchmarks/pose_gan_quality.py --canonical canonical --generator embedded --sheet docs/images/pose-gan.jpg

Sources are images of the embedded test persons, whom the generator never saw. Truth is the same person rendered in
the target pose, in another camera. Everything is measured inside the person (pose mask of the target's key points).
Compared are: the generated image; the source itself (*copy*); the mean of training persons in the target pose (*mean
person*); and the true image in the source's own camera (*truth*), as an upper bound. The generator's own losses look
through the ImageNet network; judges that it never met tell whether persons or features were learnt.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pose_image_quality import gradient_energy, masked_mean, ssim_map
from torch import Tensor

from dapg.augment.repose import repose
from dapg.augment.skeleton import canonical_poses
from dapg.core import plugins
from dapg.core.colour import grey
from dapg.core.files import write_json
from dapg.core.images import decode, to_float, to_pil
from dapg.core.train_config import BackboneConfig
from dapg.core.types import Modality, Record
from dapg.data.sets.synthetic import VISIBLE_CAMERAS, Synthetic
from dapg.features.build_encoder import build_encoder
from dapg.models.weights.pose_weights import load_generator
from dapg.pose.estimators.base import Estimator
from dapg.pose.mask import person_mask
from dapg.pose.pairs import exact_points, same_people
from dapg.pose.scores import pck

POSES = tuple(canonical_poses())
BATCH = 64


@dataclass
class Case:
    """Sources with, for each pose, the truth in another camera and in their own."""

    sources: Tensor
    persons: Tensor
    cameras: Tensor
    source_points: Tensor
    truth: Tensor
    """(N, 4, 3, H, W) in another camera."""
    own_camera: Tensor
    """(N, 4, 3, H, W) in the source's camera."""
    target_points: Tensor
    """(N, 4, 18, 3) of the true person in the pose."""


def load_case(people: Synthetic, canonical: Synthetic, size: tuple[int, int], persons: int) -> Case:
    """Two sources a test person, from two cameras; the truth from the camera after the source's."""
    rows: dict[str, list[Tensor]] = {name: [] for name in Case.__dataclass_fields__}
    for person in people.persons("test")[:persons]:
        for turn in range(2):
            camera = VISIBLE_CAMERAS[(person + 2 * turn) % 4]
            other = VISIBLE_CAMERAS[(person + 2 * turn + 1) % 4]
            record = people._shots(person, camera)[turn]
            views, own = canonical._shots(person, other), canonical._shots(person, camera)
            rows["sources"].append(picture(people, record, size))
            rows["persons"].append(torch.tensor(person))
            rows["cameras"].append(torch.tensor(camera))
            rows["source_points"].append(exact_points(people, [record])[0])
            rows["truth"].append(torch.stack([picture(canonical, view, size) for view in views]))
            rows["own_camera"].append(torch.stack([picture(canonical, view, size) for view in own]))
            rows["target_points"].append(exact_points(canonical, views))
    return Case(**{name: torch.stack(parts) for name, parts in rows.items()})


def picture(data: Synthetic, record: Record, size: tuple[int, int]) -> Tensor:
    return decode(data.read(record), size, record.box, record.path)


def mean_person(people: Synthetic, canonical: Synthetic, size: tuple[int, int], persons: int = 40) -> Tensor:
    """(4, 3, H, W): mean over training persons and visible cameras, pose by pose."""
    total = torch.zeros(len(POSES), 3, *size)
    chosen = people.persons("train")[:persons]
    for person in chosen:
        for camera in VISIBLE_CAMERAS:
            total += torch.stack([picture(canonical, view, size) for view in canonical._shots(person, camera)]).float()
    return (total / (len(chosen) * 4)).round().to(torch.uint8)


class Judge:
    """Tells persons apart by features of the person alone: outside the mask all images are grey."""

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        backbone = BackboneConfig("mobilenet_v2", init="imagenet")
        self.encoder = build_encoder(name, backbone, size, 0, torch.device("cpu"))

    @torch.no_grad()
    def __call__(self, images: Tensor, mask: Tensor) -> Tensor:
        parts = []
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            seen = 255 * (to_float(images[rows]) * mask[rows] + 0.5 * (1 - mask[rows]))
            if seen.shape[2:] != self.encoder.input_size:
                seen = torch.nn.functional.interpolate(seen, self.encoder.input_size, mode="bilinear", antialias=True)
            features = self.encoder.encode(seen.round().clamp(0, 255).to(torch.uint8), Modality.VISIBLE)
            parts.append(features[self.encoder.headline])
        return torch.cat(parts)


def centred(features: Tensor, cameras: Tensor) -> Tensor:
    """Without each camera's mean, of unit length."""
    out = features.clone()
    for camera in cameras.unique():
        out[cameras == camera] -= features[cameras == camera].mean(dim=0)
    return torch.nn.functional.normalize(out)


def rank_1(query: Tensor, persons: Tensor, cameras: Tensor, gallery: Tensor, owners: Tensor, places: Tensor) -> float:
    """Share of queries whose nearest real image, in another camera than the source's, shows the same person."""
    likeness = query @ gallery.T
    likeness[cameras[:, None] == places[None]] = -2
    return float((owners[likeness.argmax(dim=1)] == persons).float().mean())


def estimate(estimator: Estimator, images: Tensor) -> Tensor:
    height, width = estimator.input_size
    sizes = torch.tensor([[images.shape[2], images.shape[3]]])
    parts = []
    for start in range(0, len(images), estimator.batch_size):
        chunk = images[start : start + estimator.batch_size]
        resized = torch.nn.functional.interpolate(chunk.float(), (height, width), mode="bilinear", antialias=True)
        parts.append(estimator.estimate(resized.round().to(torch.uint8), sizes.expand(len(chunk), 2)))
    return torch.cat(parts)


def measure(
    case: Case, results: dict[str, Tensor], people: Synthetic, estimator: Estimator, judges: dict[str, Judge]
) -> dict[str, dict]:
    size = (case.sources.shape[2], case.sources.shape[3])
    flat_points = case.target_points.flatten(0, 1)
    target_mask = person_mask(flat_points, size)
    truth = to_float(case.truth.flatten(0, 1))
    aspect = torch.full((len(flat_points),), size[1] / size[0])
    shots = [r for p in people.persons("test") for c in VISIBLE_CAMERAS for r in people._shots(p, c)]
    gallery_mask = person_mask(exact_points(people, shots), size)
    pictures = torch.stack([picture(people, r, size) for r in shots])
    places, owners = torch.tensor([r.camera for r in shots]), torch.tensor([r.person for r in shots])
    galleries = {who: centred(judge(pictures, gallery_mask), places) for who, judge in judges.items()}
    same_pose = torch.arange(len(flat_points)) % len(POSES)
    number = torch.arange(len(flat_points))
    stranger = (number + 2 * len(POSES)) % len(number)  # the next person, in the same pose
    persons, cameras = (labels.repeat_interleave(len(POSES)) for labels in (case.persons, case.cameras))
    copied_mask = person_mask(case.source_points, size).repeat_interleave(len(POSES), dim=0)
    truths = {who: judge(case.truth.flatten(0, 1), target_mask) for who, judge in judges.items()}
    real_energy = gradient_energy(truth, target_mask)
    table = {}
    for name, images in results.items():
        flat = images.flatten(0, 1)
        points = estimate(estimator, flat)
        seen_mask = copied_mask if name == "copy" else target_mask
        energy = gradient_energy(to_float(flat), target_mask)
        table[name] = {
            "pck": float(pck(points, flat_points, aspect, 0.2).mean()),
            "detected": float((points[..., 2] > 0).any(dim=1).float().mean()),
            "pck_by_pose": [float(pck(points, flat_points, aspect, 0.2)[same_pose == p].mean()) for p in range(4)],
            "ssim": float(masked_mean(ssim_map(grey(to_float(flat)), grey(truth)), target_mask).mean()),
            "sharpness": float(energy.mean() / real_energy.mean()),
            "rank_1": {},
            "own_before_stranger": {},
        }
        for who, judge in judges.items():
            features = centred(judge(flat, seen_mask), cameras)
            found = rank_1(features, persons, cameras, galleries[who], owners, places)
            to_truth = features @ centred(truths[who], cameras).T
            nearer = to_truth[number, number] > to_truth[number, stranger]
            table[name]["rank_1"][who] = found
            table[name]["own_before_stranger"][who] = float(nearer.float().mean())
        if name == "generated":
            swaps = torch.zeros(len(POSES), len(POSES))
            for asked in range(len(POSES)):
                for judged in range(len(POSES)):
                    rows = same_pose == asked
                    wanted = case.target_points[:, judged]
                    swaps[asked, judged] = pck(points[rows], wanted, aspect[: len(wanted)], 0.2).mean()
            table[name]["pck_asked_by_judged"] = swaps.tolist()
    return table


def sheet(case: Case, made: Tensor, rows: int) -> Tensor:
    """A row a source: source, four generated poses, four true ones."""
    step = max(1, len(made) // rows)
    lines = [torch.cat([case.sources[i], *made[i], *case.own_camera[i]], dim=2) for i in range(0, step * rows, step)]
    return torch.cat(lines, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canonical", required=True, help="the embedded set's persons in canonical poses")
    parser.add_argument("--generator", default="embedded")
    parser.add_argument("--people", nargs="*", default=[], help="folders that the generator was trained on")
    parser.add_argument("--persons", type=int, default=100)
    parser.add_argument("--estimator", default="blazepose")
    parser.add_argument(
        "--judges",
        nargs="+",
        default=["imagenet", "histogram"],
        help="what tells persons apart: imagenet (MobileNetV2), histogram, a trained run's folder",
    )
    parser.add_argument("--sheet", default="")
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--out", default="")
    options = parser.parse_args()

    generator, facts = load_generator(options.generator)
    size = (facts.height, facts.width)
    people, canonical = Synthetic(), Synthetic(options.canonical)
    seen = set(facts.training["person_numbers"])
    case = load_case(people, canonical, size, options.persons)
    asked = seen & set(case.persons.tolist())
    if (
        asked and not options.people and options.generator != "embedded"
    ):  # scripts/embed_pose_generator.py has looked at that one's persons
        parser.error("give --people, the folders it was trained on: it saw persons with the test persons' numbers")
    assert not any(same_people(Synthetic(folder), people, asked) for folder in options.people), "it saw test persons"
    targets = torch.stack(list(canonical_poses().values()))
    parts = zip(case.sources.split(16), case.source_points.split(16), strict=True)
    made = torch.cat([repose(generator, pictures, targets, points) for pictures, points in parts])
    results = {
        "generated": made,
        "copy": case.sources[:, None].expand(-1, len(POSES), -1, -1, -1),
        "mean person": mean_person(people, canonical, size)[None].expand(len(made), -1, -1, -1, -1),
        "truth": case.own_camera,
    }
    if options.sheet:
        to_pil(sheet(case, made, options.rows)).save(options.sheet, quality=88)
    kind = plugins.load("pose.estimators", options.estimator, Estimator)
    judges = {name: Judge(name, size) for name in options.judges}
    table = measure(case, results, people, kind(kind.Config()), judges)
    print(f"{facts.training['steps']} steps, pairs {facts.supervision}; {len(made)} sources x {len(POSES)} poses")
    heads = ["PCK@0.2", "SSIM", "sharpness", *(f"{what}, {j}" for j in judges for what in ("rank-1", "own first"))]
    print(f"| | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}")
    for name, row in table.items():
        values = [row["pck"], row["ssim"], row["sharpness"]]
        values += [row[what][judge] for judge in judges for what in ("rank_1", "own_before_stranger")]
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
    print(json.dumps(table["generated"]["pck_asked_by_judged"]))
    if options.out:
        write_json(Path(options.out), {"generator": facts.sha256, "table": table})


if __name__ == "__main__":
    main()
