"""The only command line: finds the command's file, runs it, and turns errors into one line and an exit code.

Nothing heavy is imported here, so that ``dapg --help`` answers at once. Exit codes: 0 done, 2 wrong use, 1 failed,
130 interrupted from the keyboard, 143 stopped by SIGTERM with the checkpoint named.
"""

import importlib
import os
import sys

from dapg import __version__
from dapg.core import plugins
from dapg.core.errors import DapgError, UsageError, killed_loader, nearest

_USAGE = """usage: dapg COMMAND [OPTIONS]

Pre-training for visible-infrared person re-identification that survives fog, noise, blur and compression.

commands:
{commands}

  dapg COMMAND --help    what a command takes, with examples
  dapg --version         the version
  dapg COMMAND --debug   show the full traceback of an error
  dapg COMMAND --plugins FOLDER    with methods, corruptions, networks and data sets of your own (CONTRIBUTING.md)

first steps:
  dapg demo                                       the whole pipeline on embedded people, a page at the end
  dapg pretrain mocov2 --data FOLDER --out RUN    pre-train on your own images
  dapg evaluate RUN --data synthetic --out SCORES score what came out
"""


def commands() -> dict[str, str]:
    """Command -> its file in ``dapg/commands``: ``data verify`` is ``data_verify.py``."""
    return {name.replace("_", " "): name for name in plugins.names("commands")}


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("DAPG_DEBUG") == "1"
    words = [word for word in words if word != "--debug"]
    try:
        _refuse_broken_words(words)
        return _flushed(_with_plugins(words))
    except DapgError as error:
        return _report(error, error.exit_code, debug)
    except KeyboardInterrupt:
        print("dapg: interrupted; what is finished is kept, run the command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # no space, no permission
        from pathlib import Path

        from dapg.core.files import full_disk

        place = f"{error.filename}: " if error.filename else ""
        told = DapgError(f"{place}{error.strerror or error}{full_disk(Path(error.filename or '.'), error)}")
        return _report(told.with_traceback(error.__traceback__), 1, debug)
    except Exception as error:
        if isinstance(error, RuntimeError) and (said := killed_loader(error)):
            return _report(error, 1, debug, said)
        print(f"dapg: unexpected {type(error).__name__}: {error}", file=sys.stderr)
        return _report(error, 1, debug, "this is a bug; run again with --debug and report the traceback")


def _refuse_broken_words(words: list[str]) -> None:
    """One decision for all commands: what is not UTF-8 cannot be written down in settings, lists and results."""
    for word in words:
        if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in word):
            raise UsageError(f"{word!r} is not UTF-8 or holds a null character; rename the file or folder")


def _with_plugins(words: list[str]) -> list[str]:
    """The words without ``--plugins FOLDER``, which may come anywhere and more than once; the folders are added."""
    rest: list[str] = []
    plugins.GIVEN.clear()
    remaining = iter(words)
    for word in remaining:
        option, equals, folder = word.partition("=")
        if option != "--plugins":
            rest.append(word)
            continue
        folder = folder if equals else next(remaining, "")
        if not folder:
            raise UsageError("--plugins needs a folder")
        plugins.add(folder)
        plugins.GIVEN.append(folder)
    return rest


def _flushed(words: list[str]) -> int:
    """Run, and write out all output while a vanished reader can still be noticed."""
    try:
        return _dispatch(words)
    finally:
        sys.stdout.flush()


def _dispatch(words: list[str]) -> int:
    known = commands()
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, known))
        lines = [f"  {name:{width}}  {plugins.summary('commands', file)}" for name, file in known.items()]
        print(_USAGE.format(commands="\n".join(lines)), end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"dapg {__version__}")
        return 0
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in known and len(words) >= length:
            module = importlib.import_module(f"dapg.commands.{known[name]}")
            module.main(words[length:], f"dapg {name}")
            return 0
    group = sorted(name for name in known if name.startswith(words[0] + " "))
    if group:
        if len(words) == 1 or words[1] in ("-h", "--help"):
            width = max(map(len, group))
            lines = [f"  dapg {name:{width}}  {plugins.summary('commands', known[name])}" for name in group]
            print(f"usage: dapg {words[0]} COMMAND [OPTIONS]\n\n" + "\n".join(lines))
            return 0 if len(words) > 1 else 2
        hint = nearest(" ".join(words[:2]), group)
        raise UsageError(f"no command is called {' '.join(words[:2])!r}{hint or '; known: ' + ', '.join(group)}")
    raise UsageError(f"no command is called {words[0]!r}{nearest(words[0], list(known))}; see dapg --help")


def _report(error: BaseException, code: int, debug: bool, note: str = "") -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    if note:
        print(f"dapg: {note}", file=sys.stderr)
    else:
        print(f"dapg: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
