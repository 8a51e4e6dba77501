"""Who did what with a gallery, when and why; and whether anybody has tampered with the list."""

from dataclasses import dataclass

from dapg.commands._next import refuse_problems
from dapg.commands._settings import parse, take_positional
from dapg.core.ranges import Count, CountOrZero

_HELP = """usage: dapg gallery audit GALLERY [--verify BOOL] [--expect HASH] [--after NUMBER] [--limit NUMBER]

Print the audit as JSON lines, or verify its chain of hashes. Whoever can write the file could write a new chain: keep
the last hash that --verify prints in another place, and hand it in with --expect.

examples:
  dapg gallery audit outputs/gallery --after 100
  dapg gallery audit outputs/gallery --verify true --expect 5f3c...
"""


@dataclass(frozen=True)
class AuditSettings:
    """What is asked."""

    verify: bool = False
    """Check the chain instead of printing it."""
    expect: str = ""
    """A hash that --verify printed earlier: it must still be in the chain, which is checked then, too."""
    after: CountOrZero = 0
    """Only entries with larger numbers."""
    limit: Count = 1000
    """At most so many entries."""


def main(words: list[str], program: str) -> None:
    """Parse, print or verify."""
    folder, words = take_positional(words, "GALLERY", None, program)
    settings = parse(program, AuditSettings(), words, _HELP)

    import json
    from dataclasses import asdict

    from dapg.gallery.gallery import Gallery

    gallery = Gallery(folder)
    if not (settings.verify or settings.expect):
        for entry in gallery.audit(settings.after, settings.limit):
            print(json.dumps(asdict(entry), ensure_ascii=False))
        return
    problems, head = gallery.verify_audit(settings.expect)
    refuse_problems(folder, problems, " in the audit")
    print(f"the chain is whole; last hash {head}")
