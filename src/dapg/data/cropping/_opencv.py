"""OpenCV, asked for where it is needed: the library imports without it."""

from types import ModuleType

from dapg.core.errors import UsageError


def opencv() -> ModuleType:
    """The module ``cv2``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise UsageError("cropping needs OpenCV: pip install 'dapg[crop]'") from error
    return cv2
