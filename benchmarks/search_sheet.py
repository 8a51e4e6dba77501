"""The image of a search on the first page: infrared queries, the visible answers, clean and in fog.

python benchmarks/search_sheet.py --out docs/images/search.jpg

Queries are drawn by the seed, never chosen by their result. The gallery is the first trial of mode all-100: 100
rendered test persons that the network has not seen. In fog every gallery image is fogged (severity 3 at 160 x 80).
"""

import argparse
import io
import random
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

import dapg
from dapg.core.seeds import derive_seed
from dapg.core.types import Record
from dapg.data.sets.synthetic import Synthetic

SHOWN, SIZE, FOG_SIZE, GAP, LINE = 5, (72, 144), (80, 160), 6, 26
RIGHT, WRONG, INK = (0, 114, 178), (213, 94, 0), (60, 60, 60)


def clean(people: Synthetic, record: Record) -> Image.Image:
    """The stored image."""
    return Image.open(io.BytesIO(people.read(record))).convert("RGB")


def foggy(people: Synthetic, record: Record) -> Image.Image:
    """The same in fog, each image with a seed of its own."""
    small = clean(people, record).resize(FOG_SIZE, Image.Resampling.BILINEAR)
    return dapg.corrupt(small, "fog", severity=3, seed=derive_seed("search sheet", record.path))


def framed(image: Image.Image, colour: tuple[int, int, int], right: bool | None) -> Image.Image:
    """The image in a coloured frame; a tick or a cross in the corner says the same without colour."""
    tile = ImageOps.expand(image.resize(SIZE, Image.Resampling.BICUBIC), 3, fill=colour)
    if right is not None:
        draw = ImageDraw.Draw(tile)
        x, y = tile.width - 22, tile.height - 22
        draw.rectangle((x, y, x + 19, y + 19), fill=colour)
        lines = [[(4, 10), (8, 15), (16, 4)]] if right else [[(4, 4), (15, 15)], [(15, 4), (4, 15)]]
        for line in lines:
            draw.line([(x + a, y + b) for a, b in line], fill="white", width=3)
    return tile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/search.jpg"))
    parser.add_argument("--model", default="agw-imagenet-small")
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    people, model = Synthetic(), dapg.load(arguments.model)
    trial = people.trials("all-100")[0]
    queries = random.Random(arguments.seed).sample(trial.query, arguments.queries)
    asked = model.encode([clean(people, record) for record in queries], modality="infrared")
    font = ImageFont.load_default(15)
    tile = (SIZE[0] + 6, SIZE[1] + 6)
    block = (tile[0] + GAP) * (SHOWN + 1) + 3 * GAP
    sheet = Image.new("RGB", (block * len(queries), 2 * (tile[1] + LINE) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, source) in enumerate((("clean", clean), ("in fog", foggy))):
        images = [source(people, record) for record in trial.gallery]
        likeness = torch.as_tensor(asked) @ torch.as_tensor(model.encode(images, modality="visible")).T
        for column, (query, scores) in enumerate(zip(queries, likeness, strict=True)):
            hidden = {2} if query.camera == 3 else set()  # both cameras see one room: the protocol leaves it out
            order = [i for i in scores.argsort(descending=True).tolist() if trial.gallery[i].camera not in hidden]
            persons = list(dict.fromkeys(trial.gallery[i].person for i in order))
            rank = persons.index(query.person) + 1
            left, top = column * block + GAP, row * (tile[1] + LINE) + LINE
            said = f"gallery {name}: right person is number {rank} of {len(persons)}"
            draw.text((left, top - LINE + 5), said, fill=INK, font=font)
            sheet.paste(framed(clean(people, query), INK, None), (left, top))
            for place, i in enumerate(order[:SHOWN]):
                right = trial.gallery[i].person == query.person
                answer = framed(images[i], RIGHT if right else WRONG, right)
                sheet.paste(answer, (left + (place + 1) * (tile[0] + GAP) + 2 * GAP, top))
            print(f"{query.path}, {said}")
    sheet.save(arguments.out, quality=85, optimize=True)
    print(arguments.out, sheet.size, arguments.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
