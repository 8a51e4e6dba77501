"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """``1 seed``, ``2 boxes``, ``3,000 queries``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun.endswith('x') else 's'}"
    return f"{number:,} {noun if number == 1 else plural}"
