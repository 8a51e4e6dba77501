"""Shapes in signatures are checked whenever tests run: the hook must come before the first import of dapg."""

from jaxtyping import install_import_hook

install_import_hook("dapg", "beartype.beartype")
