"""Score features of any other program by SYSU-MM01's rules, without files: CMC, mAP and mINP of one gallery.

usage: python examples/score_your_features.py
"""

import torch
from torch.nn import functional

from dapg.core.types import Protocol
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score_features


def main() -> None:
    """Twenty people, infrared queries of cameras 3 and 6, visible gallery images of cameras 1, 2, 4 and 5."""
    generator = torch.Generator().manual_seed(0)
    people = torch.randn(20, 64, generator=generator)
    query_persons, gallery_persons = torch.arange(20).repeat(2), torch.arange(20).repeat(4)
    query_cameras = torch.tensor([3, 6]).repeat_interleave(20)
    gallery_cameras = torch.tensor([1, 2, 4, 5]).repeat_interleave(20)
    query = people[query_persons] + 2.5 * torch.randn(40, 64, generator=generator)
    gallery = people[gallery_persons] + 2.5 * torch.randn(80, 64, generator=generator)

    same_room = Protocol("sysu-mm01", camera_groups={2: 2, 3: 2}, unique_identity_cmc=True)
    labels = Labels(query_persons, gallery_persons, query_cameras, gallery_cameras, same_room)
    scores = score_features(functional.normalize(query), functional.normalize(gallery), labels)
    print(f"rank-1 {100 * scores.rank(1):.1f}, mAP {100 * scores.mAP:.1f}, mINP {100 * scores.mINP:.1f}")


if __name__ == "__main__":
    main()
