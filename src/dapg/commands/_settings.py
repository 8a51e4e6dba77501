"""From defaults, a --config file and dotted options to one settings object; errors name the nearest word."""

import dataclasses
import json
import re
import sys
import typing
from collections.abc import Set
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jsonargparse

from dapg.core.errors import UsageError, nearest
from dapg.core.settings import dump_yaml, flat, merge, read_yaml, to_dict

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)

T = TypeVar("T")

_SHORTHANDS = {"--init": "--backbone.init", "--backbone": "--backbone.name", "--rerank": "--rerank.method"}


class _Parser(jsonargparse.ArgumentParser):
    """Raises our error instead of printing usage; a misspelt option is answered with the nearest one."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Turn jsonargparse's message into one line.

        Raises:
            UsageError: always.
        """
        text = " ".join(message.split())
        unknown = re.match(r"unrecognized arguments: (\S+)", text)
        if unknown:
            word = unknown.group(1).split("=")[0]
            if not word.startswith("-"):
                raise UsageError(f"unexpected word {word!r}; see {self.prog} --help")
            known = [option for option in self._option_string_actions if option.startswith("--")]
            raise UsageError(f"unknown option {word}{nearest(word, known)}; see {self.prog} --help")
        text = re.sub(r'^Parser key "([^"]+)": ', r"--\1: ", text)
        text = re.sub(r"Expected a <class '(\w+)'>\. Got value: (.*)", r"must be \1, not '\2'", text)
        text = re.sub(r"Expected a typing\.Literal\[(.*)\]\. Got value: (.*)", r"must be one of \1, not '\2'", text)
        raise UsageError(f"{text}; see {self.prog} --help") from ex


def parse(program: str, defaults: T, words: list[str], description: str, positionals: tuple[str, ...] = ()) -> T:
    """Settings from the command line.

    Precedence: options, then the ``--config`` file, then ``defaults`` (a preset).

    Args:
        program: as the user typed it, for messages.
        defaults: complete settings.
        words: arguments after the command's name.
        description: first paragraph of the help, with examples.
        positionals: fields given by place instead of by option; fixed already where ``defaults`` has them.

    Raises:
        UsageError: unknown option or key, or a value of the wrong kind; says which, and the nearest known one.
        SystemExit: 0, after --help or --print_config.
    """
    plain = {f"--{name}" for name, value in vars(defaults).items() if not dataclasses.is_dataclass(value)}
    words = _long_forms(words, _SHORTHANDS.keys() - plain)
    config, words = _take(words, "--config")
    if config is not None:
        values = read_yaml(Path(config))
        for key in ("stage", *positionals):  # what is given by place does not come from the file
            values.pop(key, None)
        defaults = merge(defaults, values, config)
    parser = _Parser(prog=program, description=description, allow_abbrev=False, formatter_class=_formatter())
    parser.add_argument("--config", metavar="FILE", help="settings as YAML, e.g. the config.yaml of an earlier run")
    parser.add_argument("--print_config", action="store_true", help="print the settings as YAML and stop")
    groups = _add_fields(parser, defaults, positionals)
    print_config = "--print_config" in words
    namespace = parser.parse_args([word for word in words if word != "--print_config"])
    built = parser.instantiate(namespace)
    chosen = {name: built[name] for name in groups}
    settings = dataclasses.replace(defaults, **chosen)  # type: ignore[type-var]
    if print_config:
        print(dump_yaml(to_dict(settings)), end="")
        sys.exit(0)
    return settings


def _add_fields(parser: _Parser, defaults: Any, positionals: tuple[str, ...]) -> list[str]:
    """One option per plain field, one group per nested dataclass; returns the names the parser will give values for."""
    hints = typing.get_type_hints(type(defaults))
    docs = field_docs(type(defaults))
    names = []
    for field in dataclasses.fields(defaults):
        if field.name in positionals:
            continue
        value = getattr(defaults, field.name)
        names.append(field.name)
        if not dataclasses.is_dataclass(value):
            parser.add_argument(f"--{field.name}", type=hints[field.name], default=value, help=docs.get(field.name, ""))
            continue
        parser.add_class_arguments(type(value), field.name)
        parser.set_defaults({f"{field.name}.{key}": item for key, item in flat(to_dict(value)).items()})
        for action in parser._actions:
            if action.dest == field.name:
                action.help = _GROUP_HELP.get(field.name, jsonargparse.SUPPRESS)
                action.metavar = _GROUP_METAVAR.get(field.name)
    _name_groups(parser, defaults)
    return names


_GROUP_HELP = {
    "data": "NAME, NAME=PATH or a folder: shorthand for --data.name and --data.root",
    "corruption": "cil, mlmda-C*, infrared, seen, unseen, a family, a corruption or e.g. fog-3: sets what follows",
}
_GROUP_METAVAR = {"data": "SOURCE", "corruption": "POLICY"}


def _name_groups(parser: _Parser, defaults: Any) -> None:
    """Headings of the help: the section's name and the first line of its settings' docstring."""
    titles: dict[str, str] = {}

    def collect(settings: Any, prefix: str) -> None:
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if dataclasses.is_dataclass(value):
                name = f"{prefix}{field.name}"
                first = (type(value).__doc__ or "").split("\n", 1)[0]
                titles[name] = f"{name}: {first}"
                collect(value, f"{name}.")

    collect(defaults, "")
    for group in parser._action_groups:
        dests = [action.dest for action in group._group_actions if "." in action.dest or action.dest in titles]
        prefix = dests[0] if dests and dests[0] in titles else ""
        if prefix:
            group.title = titles[prefix]


def field_docs(kind: type) -> dict[str, str]:
    """The one-line docstring under each field of a dataclass and of those it inherits from, read from the source."""
    import ast
    import inspect
    import textwrap

    docs: dict[str, str] = {}
    for owner in reversed([each for each in kind.__mro__ if dataclasses.is_dataclass(each)]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for before, after in zip(tree.body, tree.body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and is_text:
                docs[before.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return docs


def _long_forms(words: list[str], shorthands: Set[str]) -> list[str]:
    """``--data sysu=/x`` as --data.name and --data.root, ``--init x`` as --backbone.init, ``--corruption x`` likewise.

    ``shorthands`` are those that are no options of their own. What a named corruption policy says comes first, so that
    single options beside it win.
    """
    policy, words = _take(words, "--corruption")
    result = _policy_options(policy) if policy is not None else []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option != "--data" and option not in shorthands:
            result.append(word)
            continue
        if not equals:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise UsageError(f"{option} needs a value")
            value = following
        if option == "--data":
            from dapg.data.source import parse_source  # imports torch, which --help does without

            for key, part in parse_source(value).items():
                result += [f"--data.{key}", part]
        else:
            result += [_SHORTHANDS[option], value]
    return result


def _policy_options(name: str) -> list[str]:
    from dapg.evaluation.corrupted_sets import policy  # imports torch, which --help does without

    chosen = policy(name)
    parts = {"types": list(chosen.types), "modality": chosen.modality, "severities": list(chosen.severities)}
    return [
        f"--corruption.{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in parts.items()
    ]


def _take(words: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of an option, and the words without it."""
    rest: list[str] = []
    found: str | None = None
    remaining = iter(words)
    for word in remaining:
        if word == option:
            found = next(remaining, None)
            if found is None:
                raise UsageError(f"{option} needs a value")
        elif word.startswith(option + "="):
            found = word.split("=", 1)[1]
        else:
            rest.append(word)
    return found, rest


def take_option(words: list[str], option: str, default: str) -> tuple[str, list[str]]:
    """The value of an option that decides how the rest is parsed (a preset), and the words without it."""
    found, rest = _take(words, option)
    return found if found is not None else default, rest


def take_positional(words: list[str], what: str, known: list[str] | None, program: str) -> tuple[str, list[str]]:
    """The first word, which must not be an option; ``known`` limits it.

    Raises:
        UsageError: it is missing or unknown; the nearest name is suggested.
    """
    if not words or words[0].startswith("-"):
        listed = f" ({', '.join(known)})" if known else ""
        raise UsageError(f"{program} needs {what}{listed}; see {program} --help")
    if known is not None and words[0] not in known:
        raise UsageError(f"no {what} is called {words[0]!r}{nearest(words[0], known)}; known: {', '.join(known)}")
    return words[0], words[1:]


def wants_help(words: list[str]) -> bool:
    """Whether the first word asks for help."""
    return bool(words) and words[0] in ("-h", "--help")


def _formatter() -> Any:
    """Keeps the line breaks of descriptions, shows defaults."""
    from argparse import RawDescriptionHelpFormatter

    class Formatter(jsonargparse.DefaultHelpFormatter, RawDescriptionHelpFormatter):
        pass

    return Formatter
