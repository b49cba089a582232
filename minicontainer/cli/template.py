r"""The part of Go's template language that `--format` is used with.

    {{.A.B}}  {{json .}}  {{range $k, $v := .M}}..{{else}}..{{end}}  {{with .X}}..{{end}}
    {{if and .A (eq .B "c")}}..{{else if ..}}..{{end}}  {{index .L 0}}  {{.A | join ", "}}
    {{- trim -}}  {{$x := .A}}  {{/* comment */}}

`parse` makes a tree, `render` walks it over dicts, lists and plain values; there is no attribute
access and no evaluation of Python.  `\t` and `\n` in the text are a tab and a new line.  See Go's
text/template; the functions are in `template_functions`.
"""

from __future__ import annotations

import re
from collections import namedtuple

from minicontainer.cli import template_functions
from minicontainer.cli.options import BadCommandLine, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Union

    Node = Union["Text", "Action", "Block"]

Text = namedtuple("Text", "text")
Action = namedtuple("Action", "pipeline")
# kind is if, with or range.
Block = namedtuple("Block", "kind pipeline body otherwise")
# variables are declared (or with assign set) to the value of the commands, each fed to the next.
Pipeline = namedtuple("Pipeline", "variables assign commands")
# An operand: kind is field, variable, constant, function or pipeline; path are fields after it.
Operand = namedtuple("Operand", "kind value path")
Token = namedtuple("Token", "kind text start end")

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<comment>/\*.*?\*/)
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<raw>`[^`]*`)
      | (?P<char>'(?:\\.|[^'\\])')
      | (?P<number>[-+]?\d+(?:\.\d+)?)
      | (?P<variable>\$\w*)
      | (?P<field>\.\w+)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<end>-?\}\})
      | (?P<symbol>:=|[.|(),=])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"'])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))")
_ESCAPES = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'"))
_CONSTANTS = {"true": True, "false": False, "nil": None}


def parse(source: str) -> list[Node]:
    """The tree of `source`. Raises UsageError where it is no template."""
    parser = _Parser(source)
    try:
        nodes, ending = parser.nodes()
    except RecursionError:
        raise BadCommandLine("template: nested too deeply") from None
    if ending:
        raise parser.error(f"unexpected {{{{{ending}}}}}")
    return nodes


def render(nodes: Sequence[Node], data: Any) -> str:
    """The text of `nodes` for `data`. Raises Error (code 1) for an unknown field."""
    output: list[str] = []
    try:
        _walk(nodes, data, {"$": data}, output)
    except RecursionError:
        raise Refusal("template: nested too deeply") from None
    except (TypeError, ValueError, IndexError, OverflowError) as reason:
        raise Refusal(f"template: {reason}") from None
    return "".join(output)


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.position = 0
        self.trim = False
        self.commented = False
        self.token = Token("start", "", 0, 0)

    def error(self, reason: str) -> BadCommandLine:
        return BadCommandLine(f"template: {reason}, at character {self.token.start + 1}")

    def nodes(self) -> tuple[list[Node], str]:
        """The nodes up to the end of the source, `end` or `else`, and that word."""
        found: list[Node] = []
        while self.position < len(self.source):
            self.text(found)
            if self.position >= len(self.source):
                break
            self.begin_action()
            if self.token.kind == "end" and self.commented:
                self.end_action()
            elif self.token.text in ("if", "with", "range"):
                found.append(self.block(self.token.text))
            elif self.token.kind == "word" and self.token.text in ("end", "else"):
                return found, self.token.text
            else:
                found.append(Action(self.pipeline()))
                self.end_action()
        return found, ""

    def text(self, found: list[Node]) -> None:
        """Read up to the next `{{`, whose `-` trims the text before it."""
        start, opening = self.position, self.source.find("{{", self.position)
        self.position = len(self.source) if opening < 0 else opening
        text = self.source[start : self.position].replace("\\t", "\t").replace("\\n", "\n")
        if self.trim:
            text, self.trim = text.lstrip(), False
        if re.match(r"\{\{-\s", self.source[self.position :]):
            text = text.rstrip()
        if text:
            found.append(Text(text))

    def begin_action(self) -> None:
        self.position += 2
        if re.match(r"-\s", self.source[self.position :]):
            self.position += 1
        self.commented = False
        self.advance()

    def end_action(self) -> None:
        if self.token.kind != "end":
            raise self.error(f"unexpected {self.token.text!r}")
        self.trim = self.token.text.startswith("-")
        # Reading on would lex the text after the action.
        self.position = self.token.end

    def advance(self) -> None:
        while True:
            match = _TOKEN.match(self.source, self.position)
            if match is None:
                self.token = Token("error", "", self.position, self.position)
                ended = self.position >= len(self.source)
                raise self.error(
                    "unclosed action" if ended else f"unexpected {self.source[self.position]!r}"
                )
            self.position = match.end()
            self.commented = self.commented or match.lastgroup == "comment"
            if match.lastgroup not in ("space", "comment"):
                self.token = Token(match.lastgroup, match.group(), match.start(), match.end())
                return

    def block(self, kind: str) -> Block:
        """`if`, `with` or `range` up to its `end`."""
        self.advance()
        pipeline = self.pipeline()
        self.end_action()
        body, ending = self.nodes()
        otherwise: list[Node] = []
        if ending == "else":
            self.advance()
            if self.token.kind == "word" and self.token.text in ("if", "with"):
                return Block(kind, pipeline, body, [self.block(self.token.text)])
            self.end_action()
            otherwise, ending = self.nodes()
        if ending != "end":
            raise self.error(f"{kind} without end")
        self.advance()
        self.end_action()
        return Block(kind, pipeline, body, otherwise)

    def pipeline(self) -> Pipeline:
        variables, assign = self.declaration()
        commands = [self.command()]
        while self.token.text == "|":
            self.advance()
            commands.append(self.command())
        return Pipeline(variables, assign, commands)

    def declaration(self) -> tuple[list[str], bool]:
        """`$x :=`, `$x, $y :=` or `$x =`, if that is what comes."""
        position, token = self.position, self.token
        names = []
        while self.token.kind == "variable":
            names.append(self.token.text)
            self.advance()
            if self.token.text in (":=", "="):
                assign = self.token.text == "="
                self.advance()
                return names, assign
            if self.token.text != ",":
                break
            self.advance()
        self.position, self.token = position, token
        return [], False

    def command(self) -> list[Operand]:
        operands = []
        while self.token.kind != "end" and self.token.text not in ("|", ")"):
            operands.append(self.operand())
        if not operands:
            raise self.error("missing value")
        return operands

    def operand(self) -> Operand:
        kind, text = self.token.kind, self.token.text
        if kind == "field":
            return Operand("field", None, self.path())
        if text == "(":
            self.advance()
            value = self.pipeline()
            if self.token.text != ")":
                raise self.error("unclosed parenthesis")
            return Operand("pipeline", value, self.path_after())
        operand = self.simple(kind, text)
        if operand.kind == "variable":
            return operand._replace(path=self.path_after())
        self.advance()
        return operand

    def simple(self, kind: str, text: str) -> Operand:
        if kind == "variable":
            return Operand("variable", text, [])
        if text == ".":
            return Operand("field", None, [])
        if kind == "number":
            return Operand("constant", float(text) if "." in text else int(text), [])
        if kind in ("string", "char"):
            return Operand("constant", _unquote(text[1:-1]), [])
        if kind == "raw":
            return Operand("constant", text[1:-1], [])
        if kind == "word" and text in _CONSTANTS:
            return Operand("constant", _CONSTANTS[text], [])
        if kind == "word" and (text in template_functions.FUNCTIONS or text in ("and", "or")):
            return Operand("function", text, [])
        if kind == "word":
            raise self.error(f"unknown function {text}")
        raise self.error(f"unexpected {text!r}")

    def path_after(self) -> list[str]:
        """The fields that follow the current token without a space."""
        end = self.token.end
        self.advance()
        return self.path() if self.token.kind == "field" and self.token.start == end else []

    def path(self) -> list[str]:
        names, end = [], self.token.start
        while self.token.kind == "field" and self.token.start == end:
            names.append(self.token.text[1:])
            end = self.token.end
            self.advance()
        return names


def _unquote(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match.group(1):
            return _ESCAPES[match.group(1)]
        return chr(int(match.group(2) or match.group(3), 16))

    return _ESCAPE.sub(replace, text)


def _walk(nodes: Sequence[Node], dot: Any, names: dict[str, Any], output: list[str]) -> None:
    for node in nodes:
        if isinstance(node, Text):
            output.append(node.text)
        elif isinstance(node, Action):
            value = _value(node.pipeline, dot, names)
            if not node.pipeline.variables:
                output.append(template_functions.text(value))
        elif node.kind == "range":
            _range(node, dot, names, output)
        else:
            inner = dict(names)
            value = _value(node.pipeline, dot, inner)
            chosen = node.body if template_functions.truth(value) else node.otherwise
            enters = node.kind == "with" and chosen is node.body
            _walk(chosen, value if enters else dot, inner, output)


def _range(node: Block, dot: Any, names: dict[str, Any], output: list[str]) -> None:
    value = _value(node.pipeline._replace(variables=[]), dot, names)
    if isinstance(value, dict):
        pairs: list[tuple[Any, Any]] = sorted(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value))
    elif isinstance(value, int) and not isinstance(value, bool):
        pairs = [(number, number) for number in range(min(value, 1 << 16))]
    elif value is None:
        pairs = []
    else:
        raise TypeError(f"range over {template_functions.kind(value)}")
    for key, item in pairs:
        inner = dict(names)
        if node.pipeline.variables:
            inner.update(zip(reversed(node.pipeline.variables), (item, key)))
        _walk(node.body, item, inner, output)
    if not pairs:
        _walk(node.otherwise, dot, dict(names), output)


def _value(pipeline: Pipeline, dot: Any, names: dict[str, Any]) -> Any:
    value: Any = None
    for index, command in enumerate(pipeline.commands):
        value = _call(command, dot, names, [value] if index else [])
    for name in pipeline.variables:
        if pipeline.assign and name not in names:
            raise ValueError(f"undefined variable {name}")
        names[name] = value
    return value


def _call(command: list[Operand], dot: Any, names: dict[str, Any], piped: list[Any]) -> Any:
    first, rest = command[0], command[1:]
    if first.kind == "function":
        if first.value in ("and", "or"):
            return _shortcut(first.value == "or", rest, dot, names, piped)
        arguments = [_operand(operand, dot, names) for operand in rest] + piped
        return template_functions.call(first.value, arguments)
    value = _operand(first, dot, names)
    arguments = [_operand(operand, dot, names) for operand in rest] + piped
    if callable(value):
        return value(*arguments)
    if arguments:
        raise TypeError(f"{template_functions.text(value)} is no function and takes no arguments")
    return value


def _shortcut(
    wanted: bool, operands: list[Operand], dot: Any, names: dict[str, Any], piped: list[Any]
) -> Any:
    """`or` ends at the first true value, `and` at the first false one."""
    if not operands and not piped:
        raise TypeError("and, or need a value")
    value: Any = None
    for operand in operands:
        value = _operand(operand, dot, names)
        if template_functions.truth(value) is wanted:
            return value
    return piped[0] if piped else value


def _operand(operand: Operand, dot: Any, names: dict[str, Any]) -> Any:
    if operand.kind == "constant":
        return operand.value
    if operand.kind == "field":
        value = dot
    elif operand.kind == "variable":
        if operand.value not in names:
            raise ValueError(f"undefined variable {operand.value}")
        value = names[operand.value]
    elif operand.kind == "pipeline":
        value = _value(operand.value, dot, dict(names))
    else:
        value = _call([operand], dot, names, [])
    for name in operand.path:
        value = _field(value, name)
    return value


def _field(value: Any, name: str) -> Any:
    """The field `name` of `value`; an unknown one is an error, but not in a free mapping."""
    if isinstance(value, template_functions.Mapping):
        found = value.get(name, template_functions.NO_VALUE)
    elif isinstance(value, dict):
        if name not in value:
            raise ValueError(_missing(value, name))
        found = value[name]
    else:
        raise TypeError(f"cannot take the field {name} of {template_functions.kind(value)}")
    free = name in template_functions.FREE and isinstance(found, dict)
    return template_functions.Mapping(found) if free else found


def _missing(value: Mapping[str, Any], name: str) -> str:
    known = sorted(key for key in value if isinstance(key, str))
    return f"no field {name}; there are {', '.join(known[:40])}"
