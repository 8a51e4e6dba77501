"""Scores of any retrieval from numbers alone: distances or features, person numbers, camera numbers; NumPy or torch.

Two queries, of persons 7 and 8, search four images; the second query finds its match last:

    >>> import numpy as np
    >>> from dapg.core.types import Protocol
    >>> from dapg.scoring.labels import Labels
    >>> from dapg.scoring.metrics import score
    >>> distances = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    >>> labels = Labels(query_persons=[7, 8], gallery_persons=[7, 8, 7, 9], query_cameras=[1, 1],
    ...                 gallery_cameras=[2, 2, 1, 2], protocol=Protocol("Market-1501", same_person_same_camera=True))
    >>> scores = score(distances, labels)  # camera 1's image of person 7 is left out for the first query
    >>> scores.rank(1), scores.rank(3), round(scores.mAP, 3), round(scores.mINP, 3)
    (0.5, 1.0, 0.667, 0.667)

Intervals over persons and comparisons of two models are in ``bootstrap``, known and unknown persons (FNIR at FPIR,
TAR@FAR, AUROC, thresholds) in ``open_set``, ranked lists in ``ranking``, k-reciprocal re-ranking in ``rerank``.
"""
