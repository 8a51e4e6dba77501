"""Pre-train for a few steps on the embedded people and score: the calls behind `dapg pretrain` and `evaluate`.

usage: python examples/pretrain_and_score.py OUT
"""

import sys
from dataclasses import replace
from pathlib import Path

from dapg.evaluation.evaluate import EvaluateSettings, evaluate
from dapg.recipes import pretraining
from dapg.training.pretrain import pretrain


def main(out: Path) -> None:
    """A recipe is a complete settings object; a variant is the object with a few fields replaced."""
    recipe = pretraining("mocov2", "demo")
    short = replace(recipe.train, steps=3, batch_size=16)
    loader = replace(recipe.loader, workers=0)
    result = pretrain(replace(recipe, train=short, loader=loader, out=str(out / "run"), device="cpu"))
    print(f"loss after {result['steps']} steps: {result['logs']['loss']:.3f}")

    base = EvaluateSettings(model=str(out / "run"), mode="all", ranked_lists=2)
    scoring = replace(base, workers=0, device="cpu", out=str(out / "scores"))
    scores = evaluate(scoring)
    headline = scores["scores"][scores["feature"]]
    print(f"infrared to visible: rank-1 {100 * headline['cmc'][0]:.1f}, mAP {100 * headline['mAP']:.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
