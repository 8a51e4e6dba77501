"""From the words of a command line to one settings object, and the help: a short one, and all of it."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dapg.core import plugins
from dapg.core.errors import UsageError, nearest
from dapg.core.settings import (
    Dataclass,
    Setting,
    describe,
    dump_yaml,
    from_text,
    merge,
    nested,
    read_yaml,
    settings_in,
    to_dict,
    to_plain,
)
from dapg.core.types import JsonObject

if TYPE_CHECKING:
    from dapg.core.train_config import DataConfig

SettingsT = TypeVar("SettingsT", bound=Dataclass)

_HELP = ("-h", "--help", "--help-all")

_SHORTHANDS = {
    "on_bad_image": (
        "loader.on_bad_image",
        "replace|fail",
        "another image in place of one that cannot be read, or stop",
    ),
    "data": ("data.name", "SOURCE", "a data set as NAME or NAME=PATH, or a folder of images"),
    "gallery": ("gallery.name", "SOURCE", "a data set as NAME or NAME=PATH, or a folder of images"),
    "backbone": ("backbone.name", "NAME", ", ".join(plugins.names("models.backbones"))),
    "init": ("backbone.init", "WEIGHTS", "random, imagenet, a weights file, a run's folder, a name of `dapg weights`"),
    "engine": ("engine.name", "NAME", "local (processes), slurm or ray: who does the work"),
    "workers": ("engine.workers", "N", "of the engine; 0: one for each processor or GPU"),
    "rerank": ("rerank.method", "NAME", "none, k-reciprocal or query-expansion"),
    "corruption": (
        "corruption.types",
        "POLICY",
        "vi-c-1.0, vi-c-1.0/both-query, cil, mlmda-C*, seen, a family, fog or fog-3",
    ),
}
"""Short option -> the setting it stands for (the first of them), what it takes, and what that may be.

One applies where the command has that setting, and no setting of the shorthand's own name.
"""


def parse(
    program: str,
    defaults: SettingsT,
    words: list[str],
    about: str,
    positionals: tuple[str, ...] = (),
    common: str = "",
) -> SettingsT:
    """Settings from the command line.

    Precedence: options, then the ``--config`` file, then ``defaults`` (a preset).

    Args:
        program: as the user typed it, for messages.
        defaults: complete settings.
        words: arguments after the command's name and what is given by place.
        about: first part of the help: usage, what the command does, examples.
        positionals: fields given by place instead of by option; ``defaults`` has their values.
        common: settings that the short help shows, spaces between them, all if empty; ``method.`` stands for the plain
            ones right below it.

    Raises:
        UsageError: unknown option or key, or a value of the wrong kind or out of range; says which.
        SystemExit: 0, after --help, --help-all or --print_config.
    """
    known = {setting.name: setting for setting in settings_in(defaults) if setting.name not in positionals}
    asked = next((word for word in words if word in _HELP), None)
    if asked:
        print(about.strip("\n"), end="\n\n")
        print("\n".join(_help_all(known) if asked == "--help-all" else _help(program, known, common.split())))
        sys.exit(0)
    config, words = take_option(words, "--config", "")
    if config:
        values = read_yaml(Path(config))
        for key in ("stage", *positionals):  # what is given by place does not come from the file
            values.pop(key, None)
        defaults = merge(defaults, values, f"{config}: ")
    given = _options([word for word in words if word != "--print_config"], known, program)
    settings = merge(defaults, nested(given), "--")
    if "--print_config" in words:
        print(dump_yaml(to_dict(settings, whole=True)), end="")
        sys.exit(0)
    return settings


def _options(words: list[str], known: dict[str, Setting], program: str) -> JsonObject:
    """Dotted name -> plain value; those of shorthands first, so that single options beside them win."""
    shorthands = _shorthands(known)
    short: JsonObject = {}
    plain: JsonObject = {}
    while words:
        word, *words = words
        option, equals, text = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not word.startswith("-"):
            raise UsageError(f"unexpected word {word!r}; see {program} --help")
        if not word.startswith("--") or (name not in known and name not in shorthands):
            listed = [f"--{setting}" for setting in (*known, *shorthands, "config")]
            raise UsageError(f"unknown option {option}{nearest(option, listed)}; see {program} --help")
        if not equals:
            if words and not words[0].startswith("--"):
                text, *words = words
            elif name in known and known[name].hint is bool:
                text = "true"
            else:
                raise UsageError(f"{option} needs a value")
        if name in known:
            plain[name] = from_text(known[name].hint, text)
        else:
            short |= _meaning(name, text, known)
    return short | plain


def _shorthands(known: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    return {name: what for name, what in _SHORTHANDS.items() if what[0] in known and name not in known}


def _meaning(shorthand: str, text: str, known: dict[str, Setting]) -> JsonObject:
    """The settings that ``--data sysu=/x``, ``--corruption cil`` or ``--init x`` stands for."""
    if shorthand == "corruption":
        from dapg.evaluation.corrupted_sets import policy  # imports torch, which --help does without

        chosen = to_dict(policy(text))
        return {f"corruption.{key}": chosen[key] for key in ("types", "modality", "severities", "side", "weather")}
    if shorthand in ("data", "gallery"):
        from dapg.data.source import parse_source

        source = parse_source(text)
        return {f"{shorthand}.name": source.name, f"{shorthand}.root": source.root}
    name = _SHORTHANDS[shorthand][0]
    return {name: from_text(known[name].hint, text)}


def _help(program: str, known: dict[str, Setting], common: list[str]) -> Iterator[str]:
    """Shorthands and the settings people change, one line each."""
    rows = [(f"--{name} {metavar}", doc) for name, (_, metavar, doc) in _shorthands(known).items()]
    rows.append(("--config FILE", "settings as YAML, such as the config.yaml of an earlier run"))
    rows.append(("--print_config", "print all settings as YAML, and stop"))
    yield "shorthands:"
    yield from _table(rows)
    shown = [setting for setting in known.values() if not common or _is_common(setting.name, common)]
    if shown:
        yield "\nsettings, with their values here:" if len(shown) == len(known) else "\nsettings most often changed:"
        yield from _table([(_option(setting), setting.doc) for setting in shown])
    yield f"\nevery setting ({len(known)}), with kinds and ranges: {program} --help-all"


def _is_common(name: str, common: list[str]) -> bool:
    return name in common or f"{name.rpartition('.')[0]}." in common


def _table(rows: list[tuple[str, str]]) -> Iterator[str]:
    width = _terminal_width()
    column = max(len(option) for option, _ in rows if len(option) <= 34)
    for option, doc in rows:
        line = f"  {option:{column}}  {doc.replace('``', '')}"
        yield line if len(line) <= width else f"{line[: width - 4].rsplit(' ', 1)[0]} ..."


def _help_all(known: dict[str, Setting]) -> Iterator[str]:
    """Every setting with value, docstring, kind and range, below the first line of the docstring of what holds it."""
    width = _terminal_width()
    for prefix, group in groupby(known.values(), lambda setting: setting.name.rpartition(".")[0]):
        members = list(group)
        about = (members[0].owner.__doc__ or "").split("\n", 1)[0]
        yield f"{prefix}: {about}" if prefix else f"{about}"
        for setting in members:
            yield f"  {_option(setting)}"
            text = f"{setting.doc} ({describe(setting.hint)})".replace("``", "")
            yield from textwrap.wrap(text, width, initial_indent="      ", subsequent_indent="      ")
        yield ""


def _option(setting: Setting) -> str:
    value = to_plain(setting.value)
    return f"--{setting.name} {value if value and isinstance(value, str) else json.dumps(value)}"


def _terminal_width() -> int:
    return min(max(shutil.get_terminal_size((100, 24)).columns, 80), 120)


def take_option(words: list[str], option: str, default: str) -> tuple[str, list[str]]:
    """The value of an option that decides how the rest is read (a preset), and the words without it.

    Raises:
        UsageError: no value follows the option.
    """
    value, rest, remaining = default, list[str](), iter(words)
    for word in remaining:
        if word == option:
            value = next(remaining, "--")
            if value.startswith("--"):
                raise UsageError(f"{option} needs a value")
        elif word.startswith(f"{option}="):
            value = word.split("=", 1)[1]
        else:
            rest.append(word)
    return value, rest


def take_positional(
    words: list[str], what: str, known: list[str] | None, program: str, hint: str = ""
) -> tuple[str, list[str]]:
    """The first word, which must not be an option; ``known`` limits it. Where help is asked for instead, an empty one.

    ``hint`` ends the message about one that is not known.

    Raises:
        UsageError: it is missing or unknown; the nearest name is suggested.
    """
    if known is None and words and words[0] in _HELP:
        return "", words
    if not words or words[0].startswith("-"):
        listed = f" ({', '.join(known)})" if known else ""
        raise UsageError(f"{program} needs {what}{listed}; see {program} --help")
    if known is not None and words[0] not in known:
        listed = "; ".join(filter(None, [f"known: {', '.join(known)}", hint]))
        raise UsageError(f"no {what} is called {words[0]!r}{nearest(words[0], known)}; {listed}")
    return words[0], words[1:]


def take_source(words: list[str], what: str, program: str) -> "tuple[DataConfig, list[str]]":
    """The data set that the first word names; the embedded one where help is asked for instead.

    Raises:
        UsageError: it is missing, or neither a data set nor a path.
    """
    from dapg.core.train_config import DataConfig
    from dapg.data.source import parse_source

    text, words = take_positional(words, what, None, program)
    return (parse_source(text) if text else DataConfig()), words


def take_words(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest."""
    count = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:count], words[count:]


def wants_help(words: list[str]) -> bool:
    """Whether the first word asks for help."""
    return bool(words) and words[0] in ("-h", "--help")
