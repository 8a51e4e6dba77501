"""Seeds from names and numbers, the same on every machine; the corruption of a test image depends on one."""

import hashlib


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from names and numbers: BLAKE2b over their text, the same on every machine and run."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
