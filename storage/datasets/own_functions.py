"""Python functions of the user's own that read answers: found by name, and kept from ending a run."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.datasets.definition import Parsed
from storage.datasets.parsing import NO_ANSWER
from storage.errors import BadFile, one_line
from storage.rows import without_surrogates

PARSER_FAILED = "parser failed"


def entry_point(name: str, key: str, file: Path) -> Callable[..., Any]:
    """The function that a key of the YAML file names; its module may lie beside the file.

    Raises:
        BadFile: there is none, or its module cannot be imported.
    """
    module_name, colon, function_name = name.partition(":")
    if not colon or not module_name or not function_name:
        raise BadFile(f'{file}: {key} is {name!r}; write "package.module:function"')
    folder = str(file.parent.resolve())
    sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except (Exception, SystemExit) as error:  # the user's module may do anything when it is imported
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise BadFile(f"{file}: {key} {name!r} cannot be imported: {reason}") from error
    finally:
        sys.path.remove(folder)
    if not callable(function):
        raise BadFile(f"{file}: {key} {name!r}: the module has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def guarded_parser(
    function: Callable[..., Any], normalise: Callable[[str, tuple[str, ...]], str | None]
) -> Callable[[str, tuple[str, ...]], Parsed]:
    """The user's parser, returning `Parsed`; a text that it fails on is unparsed."""

    def parse(text: str, choices: tuple[str, ...]) -> Parsed:
        try:
            returned = function(text, choices)
            if isinstance(returned, Parsed):
                rationale, answer, reason = returned.rationale, returned.answer, returned.parse_error
            else:
                # A tuple that is not a pair raises a ValueError here.
                rationale, answer = returned if isinstance(returned, tuple) else (text.strip(), returned)
                reason = None
            normalised = None if answer is None else normalise(without_surrogates(str(answer)), choices)
            reason = None if normalised is not None else without_surrogates(str(reason or NO_ANSWER))
            return Parsed(without_surrogates(str(rationale)), normalised, reason)
        except (Exception, SystemExit) as error:  # one strange text must not end a run with thousands
            return Parsed(text.strip(), None, f"{PARSER_FAILED}: {type(error).__name__}")

    return parse


def guarded_normaliser(function: Callable[..., Any]) -> Callable[[str, tuple[str, ...]], str | None]:
    """The user's normaliser; an answer that it fails on is no answer."""

    def normalise(answer: str, choices: tuple[str, ...]) -> str | None:
        try:
            returned = function(answer, choices)
            return None if returned is None else without_surrogates(str(returned))
        except (Exception, SystemExit):  # an answer that the user's function fails on is not an answer
            return None

    return normalise
