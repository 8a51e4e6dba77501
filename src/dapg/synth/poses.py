"""Body poses: how a person stands, walks or carries, as directions of limbs, and the bone transforms they give.

Limbs are aimed (upper arm, forearm, thigh, calf have a direction each) because the kit's rest pose is neither straight
nor symmetric in depth: angles added to it bend elbows too far. Bones that are not aimed follow their parent.
"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from dapg.core.key_points import KEY_POINT_NAMES
from dapg.synth.arrays import Array
from dapg.synth.kit import Kit

CANONICAL_YAWS = {"front": 0.0, "left": 270.0, "back": 180.0, "right": 90.0}
"""The four canonical views: degrees the standing person has turned; ``left`` shows their left side."""


@dataclass(frozen=True)
class Pose:
    """Angles in degrees. Swing is forward positive, spread outward positive; pairs are (left, right)."""

    kind: str
    arm_swing: tuple[float, float] = (2.0, 2.0)
    arm_spread: tuple[float, float] = (9.0, 9.0)
    elbow: tuple[float, float] = (14.0, 14.0)
    elbow_inward: tuple[float, float] = (0.0, 0.0)
    leg_swing: tuple[float, float] = (0.0, 0.0)
    leg_spread: tuple[float, float] = (3.0, 3.0)
    knee: tuple[float, float] = (3.0, 3.0)
    lean: float = 0.0
    twist: float = 0.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0

    def description(self) -> dict[str, object]:
        """The angles, rounded, for annotations."""
        return {
            key: [round(v, 1) for v in value] if isinstance(value, tuple) else round(value, 1)
            for key, value in asdict(self).items()
            if key != "kind"
        } | {"kind": self.kind}


def canonical_pose() -> Pose:
    """Standing upright, arms at the sides: the pose that all four canonical views show."""
    return Pose("canonical")


def draw_pose(generator: np.random.Generator, carries: bool = False) -> Pose:
    """A random everyday pose; who carries a hand bag keeps one arm down."""
    draw = generator.uniform
    kind = str(generator.choice(["walk", "walk", "walk", "stand", "stand", "turn", "hold", "phone", "pockets"]))
    head_yaw, head_pitch = float(draw(-28, 28)), float(draw(-8, 14))
    if kind == "walk":
        phase, stride = draw(0, 2 * np.pi), draw(14, 28)
        sine, cosine = float(np.sin(phase)), float(np.cos(phase))
        reach = stride * draw(0.6, 1.1)
        bend = draw(10, 26)
        return Pose(
            kind,
            (-reach * sine, reach * sine),
            (float(draw(5, 12)), float(draw(5, 12))),
            (bend - 8 * sine, bend + 8 * sine),
            (float(draw(-5, 15)), float(draw(-5, 15))),
            (stride * sine, -stride * sine),
            (float(draw(0, 4)), float(draw(0, 4))),
            # The knee bends while its leg swings forward, and a little when it carries the weight.
            (5 + 48 * max(0.0, cosine) ** 1.5, 5 + 48 * max(0.0, -cosine) ** 1.5),
            float(draw(0, 7)),
            float(6 * sine + draw(-3, 3)),
            head_yaw,
            head_pitch,
        )
    leg_swing = (float(draw(-6, 8)), float(draw(-6, 8)))
    leg_spread = (float(draw(1, 8)), float(draw(1, 8)))
    knee = (float(draw(1, 12)), float(draw(1, 12)))
    lean = float(draw(-2, 6))
    hanging = (float(draw(-8, 8)), float(draw(5, 13)), float(draw(8, 25)), float(draw(-5, 15)))
    raised = {
        "stand": (float(draw(-8, 8)), float(draw(5, 14)), float(draw(8, 30)), float(draw(-5, 20))),
        "turn": (float(draw(-15, 15)), float(draw(6, 18)), float(draw(10, 40)), float(draw(0, 20))),
        "hold": (float(draw(5, 30)), float(draw(5, 15)), float(draw(65, 105)), float(draw(0, 35))),
        "phone": (float(draw(20, 45)), float(draw(15, 35)), float(draw(120, 140)), float(draw(5, 20))),
        "pockets": (float(draw(-25, -10)), float(draw(18, 28)), float(draw(45, 65)), float(draw(15, 30))),
    }[kind]
    both = kind in ("stand", "turn", "pockets") or (kind == "hold" and generator.random() < 0.5)
    sides = [raised, raised if both else hanging]
    if generator.random() < 0.5 and not carries:
        sides.reverse()  # a carried bag hangs from the right hand: the left one is raised
    left, right = sides
    return Pose(
        kind,
        (left[0], right[0]),
        (left[1], right[1]),
        (left[2], right[2]),
        (left[3], right[3]),
        leg_swing,
        leg_spread,
        knee,
        lean,
        float(draw(-22, 22)) if kind == "turn" else float(draw(-6, 6)),
        head_yaw,
        head_pitch,
    )


def rotation(axis: str, degrees: float) -> Float[Array, "3 3"]:
    """Rotation about x, y or z, right-handed."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def align(source: Float[Array, "3"], target: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The smallest rotation that turns one direction into another (not its opposite)."""
    a, b = source / np.linalg.norm(source), target / np.linalg.norm(target)
    v = np.cross(a, b)
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.asarray(np.eye(3) + cross + cross @ cross / (1 + a @ b))


class Skeleton:
    """The joints of one body shape; turns poses into bone transforms and key points."""

    def __init__(self, kit: Kit, body: Float[Array, "N 3"]) -> None:
        """Measure the joints of a shaped body."""
        self.bones = list(kit.bones)
        self._parents = [kit.bones[bone][0] for bone in self.bones]
        self._heads = {bone: kit.joint(body, bone) for bone in self.bones}
        limbs = ("upperarm_l", "upperarm_r", "lowerarm_l", "lowerarm_r", "thigh_l", "thigh_r", "calf_l", "calf_r")
        self._rest = {bone: kit.joint(body, bone, "tail") - self._heads[bone] for bone in limbs}
        skin = body[kit.group["body"]]
        middle = skin[(np.abs(skin[:, 0]) < 0.08) & (skin[:, 1] > self._heads["head"][1] - 0.6)]
        sides = skin[(skin[:, 1] > self._heads["head"][1] - 0.6) & (skin[:, 1] < self._heads["head"][1] + 0.9)]
        self._face = {
            "nose": middle[middle[:, 2].argmax()],
            "left_eye": body[kit.group["helper-l-eye"]].mean(0),
            "right_eye": body[kit.group["helper-r-eye"]].mean(0),
            "left_ear": sides[sides[:, 0].argmax()],
            "right_ear": sides[sides[:, 0].argmin()],
        }

    def head(self, bone: str) -> Float[Array, "3"]:
        """Where a bone begins in the rest pose."""
        return self._heads[bone]

    def transforms(self, pose: Pose) -> Float[Array, "J 4 4"]:
        """World transform of each bone, to be applied to rest positions."""
        turn = self._turns(pose)
        rotations: dict[str, Float[Array, "3 3"]] = {}
        matrices: dict[str, Float[Array, "4 4"]] = {}
        for bone, parent in zip(self.bones, self._parents, strict=True):
            above = matrices[parent] if parent else np.eye(4)
            rotations[bone] = self._rotation(bone, parent, rotations, turn, pose)
            head = self._heads[bone]
            matrix = np.eye(4)
            matrix[:3, :3] = rotations[bone]
            matrix[:3, 3] = above[:3, :3] @ head + above[:3, 3] - rotations[bone] @ head
            matrices[bone] = matrix
        return np.stack([matrices[bone] for bone in self.bones])

    def _turns(self, pose: Pose) -> dict[str, Float[Array, "3 3"]]:
        third = pose.twist / 3
        spine = rotation("y", third) @ rotation("x", pose.lean / 3)
        return {
            "spine_01": spine,
            "spine_02": spine,
            "spine_03": spine,
            "neck_01": rotation("y", pose.head_yaw * 0.4) @ rotation("x", -pose.lean * 0.5),
            "head": rotation("y", pose.head_yaw * 0.6) @ rotation("x", pose.head_pitch - pose.lean * 0.5),
        }

    def _rotation(
        self,
        bone: str,
        parent: str,
        rotations: dict[str, Float[Array, "3 3"]],
        turn: dict[str, Float[Array, "3 3"]],
        pose: Pose,
    ) -> Float[Array, "3 3"]:
        above = rotations[parent] if parent else np.eye(3)
        if bone in turn:
            return above @ turn[bone]
        side = 0 if bone.endswith("_l") else 1
        outward = 1.0 if side == 0 else -1.0
        limb = bone[:-2]
        if limb in ("upperarm", "lowerarm"):
            frame = rotations["spine_03"]
            raised = rotation("z", outward * pose.arm_spread[side]) @ rotation("x", -pose.arm_swing[side])
            if limb == "lowerarm":
                raised = raised @ rotation("y", -outward * pose.elbow_inward[side]) @ rotation("x", -pose.elbow[side])
            direction = raised @ np.array([0.0, -1.0, 0.0])
            # The shoulder's skin tears less when the arm turns from its rest direction by the smallest rotation.
            return frame @ align(self._rest[bone], direction)
        if limb in ("thigh", "calf"):
            frame = rotations["pelvis"]
            raised = rotation("z", outward * pose.leg_spread[side]) @ rotation("x", -pose.leg_swing[side])
            if limb == "calf":
                raised = raised @ rotation("x", pose.knee[side])
            return frame @ align(self._rest[bone], raised @ np.array([0.0, -1.0, 0.0]))
        if limb == "foot":
            pitch = 0.55 * (pose.knee[side] - 3) - 0.5 * max(0.0, pose.leg_swing[side])
            return rotations["pelvis"] @ rotation("y", outward * 7) @ rotation("x", max(-14.0, min(pitch, 32.0)))
        return above

    def key_points(self, transforms: Float[Array, "J 4 4"]) -> Float[Array, "18 3"]:
        """The 18 key points in the posed body, in the order of ``KEY_POINT_NAMES``."""

        def moved(point: Float[Array, "3"], bone: str) -> Float[Array, "3"]:
            matrix = transforms[self.bones.index(bone)]
            return np.asarray(matrix[:3, :3] @ point + matrix[:3, 3])

        places = {name: moved(point, "head") for name, point in self._face.items()}
        for side in ("left", "right"):
            for joint, bone in _JOINTS.items():
                name = f"{bone}_{side[0]}"
                places[f"{side}_{joint}"] = moved(self._heads[name], name)
        places["neck"] = (places["left_shoulder"] + places["right_shoulder"]) / 2
        return np.stack([places[name] for name in KEY_POINT_NAMES])


_JOINTS = {
    "shoulder": "upperarm",
    "elbow": "lowerarm",
    "wrist": "hand",
    "hip": "thigh",
    "knee": "calf",
    "ankle": "foot",
}
