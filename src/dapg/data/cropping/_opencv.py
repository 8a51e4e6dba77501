"""OpenCV, asked for where it is needed: the library imports without it."""

from typing import Any

from dapg.core.errors import UsageError


def opencv() -> Any:
    """The module ``cv2``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise UsageError("cropping needs OpenCV: pip install 'dapg[crop]'") from error
    return cv2
