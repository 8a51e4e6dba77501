"""Shape and type checks of every signature while tests run."""

from jaxtyping import install_import_hook

install_import_hook("dapg", "beartype.beartype")
