"""docs/cli.md: every verb with its flags, as the parsers have them.

    make docs        # python -m benchmarks.pictures.command_line > docs/cli.md

Made of the parsers and not of the text of --help, whose form changes with Python's version and the terminal's width.
"""

import argparse

from ghost import cli


def page() -> str:
    lines = [
        "# The command line",
        "",
        "Written by `make docs`; a test fails when it is stale. Every verb exits with 0 on success, 1 on a reported",
        "failure, 2 on bad usage, and 128 + n when signal n stops it.",
    ]
    for verb, row in cli.VERBS.items():
        needs = f" Needs `pip install '.[{row.extra}]'`." if row.extra else ""
        lines += ["", f"## ghost {verb}", "", f"{_sentence(row.help).removesuffix('.')}.{needs}"]
        parser = _parser(verb)
        flags = [f"- `{_spelled(action)}` {_help(parser, action)}".rstrip() for action in _actions(parser)]
        lines += ["", *flags] if flags else []
        if parser.epilog:
            lines += ["", _sentence(parser.epilog)]
    return "\n".join(lines) + "\n"


def _parser(verb: str) -> argparse.ArgumentParser:
    (verbs,) = (one for one in cli.build_parser(verb)._actions if isinstance(one, argparse._SubParsersAction))
    parser: argparse.ArgumentParser = verbs.choices[verb]
    return parser


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest != "help" and action.help != argparse.SUPPRESS]


def _spelled(action: argparse.Action) -> str:
    name = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    value = "" if action.nargs == 0 else name if isinstance(name, str) else " ".join(name)
    value += "…" if action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction) else ""
    return ", ".join(f"{flag} {value}".strip() for flag in action.option_strings) or f"[{value}]" * bool(value)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    words = {**vars(action), "prog": parser.prog}
    return _sentence((action.help or "") % words) if action.help else ""


def _sentence(text: str) -> str:
    text = text.replace("<", "\\<").strip()
    text = text[:1].upper() + text[1:]
    return text if not text or text.endswith((".", "?", "!", ")")) else f"{text}."


if __name__ == "__main__":
    print(page(), end="")
