"""cli/template: the part of Go's templates that --format knows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import template
from minicontainer.errors import Error

DATA = {
    "Id": "abc",
    "Name": "/web",
    "State": {"Running": True, "Paused": False, "ExitCode": 0, "Error": ""},
    "Args": ["-c", "echo"],
    "Empty": [],
    "Nothing": None,
    "Count": 3,
    "Share": 0.5,
    "Whole": 2.0,
    "Config": {"Labels": {"a": "1", "b.c": "2"}, "Env": ["A=1", "B=2"]},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}},
    "Mounts": [{"Source": "/a", "RW": True}, {"Source": "/b", "RW": False}],
    "Label": lambda key: {"a": "1"}.get(key, ""),
}


def render(source: str, data: object = DATA) -> str:
    return template.render(template.parse(source), data)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{.Id}}", "abc"),
        ("{{ .Id }}-{{.Name}}", "abc-/web"),
        ("{{.State.Running}} {{.State.ExitCode}}", "true 0"),
        (r"{{.Id}}\t{{.Name}}\n", "abc\t/web\n"),
        ("{{.Args}}", "[-c echo]"),
        ("{{.Config.Labels}}", "map[a:1 b.c:2]"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Whole}} {{.Share}}", "2 0.5"),
        ("{{json .Args}}", '["-c","echo"]'),
        ("{{json .State}}", '{"Running":true,"Paused":false,"ExitCode":0,"Error":""}'),
        ("{{.Config.Labels.a}}", "1"),
        ("{{.Config.Labels.zz}}", "<no value>"),
        ('{{index .Config.Labels "b.c"}}', "2"),
        ('{{index .Config.Labels "zz"}}', ""),
        ("{{index .Args 1}}", "echo"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Empty}}a{{else if .Args}}b{{else}}c{{end}}", "b"),
        ("{{if .Empty}}a{{else if .Empty}}b{{else}}c{{end}}", "c"),
        ("{{if and .State.Running (eq .Id \"abc\")}}yes{{end}}", "yes"),
        ("{{or .Empty .Id}}", "abc"),
        ("{{and .Id .Name}}", "/web"),
        ("{{not .State.Paused}}", "true"),
        ("{{range .Args}}<{{.}}>{{end}}", "<-c><echo>"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}} {{end}}", "0=-c 1=echo "),
        ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}},{{end}}", "a:1,b.c:2,"),
        ("{{range $a := .Args}}{{$a}}{{end}}", "-cecho"),
        (
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}->{{(index $c 0).HostPort}}{{end}}",
            "80/tcp->8080",
        ),
        ("{{range .Mounts}}{{.Source}}{{if .RW}}+{{end}} {{end}}", "/a+ /b "),
        ("{{with .State}}{{.ExitCode}}{{end}}", "0"),
        ("{{with .Empty}}x{{else}}{{.Id}}{{end}}", "abc"),
        ("{{with $x := .Id}}{{$x}}{{end}}", "abc"),
        ("{{with .State}}{{$.Id}}{{end}}", "abc"),
        ("{{$x := .Count}}{{$x}}{{$x = 4}}{{$x}}", "34"),
        ("{{len .Args}} {{len .Id}}", "2 3"),
        ("{{eq .Id \"x\" \"abc\"}} {{ne .Count 3}}", "true false"),
        ("{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge \"b\" \"a\"}}", "true true false true"),
        ("{{.Args | join \", \"}}", "-c, echo"),
        ("{{join .Args \"+\"}}", "-c+echo"),
        ("{{.Id | upper | printf \"%s!\"}}", "ABC!"),
        ("{{printf \"%5s|%-5s|%05d|%.2f|%q|%%\" .Id .Id 7 .Share .Id}}",
         "  abc|abc  |00007|0.50|\"abc\"|%"),
        ("{{printf \"%d %s\" 1}}", "1 %!s(MISSING)"),
        ("{{printf \"x\" 1}}", "x%!(EXTRA 1)"),
        ("{{printf \"%d\" \"x\"}}", "%!d(x)"),
        ("{{println .Id 1}}", "abc 1\n"),
        ("{{print .Id 1 2}}", "abc1 2"),
        ("{{split \"a,b\" \",\"}}", "[a b]"),
        ("{{title \"one two\"}} {{lower \"ABC\"}}", "One Two abc"),
        ("{{pad .Id 1 2}}|{{truncate .Id 2}}", " abc  |ab"),
        ("{{\"a\\tb\"}}{{`a\\tb`}}", "a\tba\\tb"),
        ("a {{- .Id -}} b", "aabcb"),
        ("{{/* note */}}x", "x"),
        ("{{- /* note */ -}} x", "x"),
        ("{{true}} {{nil | json}}", "true null"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{.Label \"a\"}}", "1"),
        ("{{.Label \"zz\"}}", ""),
        ("{{if eq (.Label \"a\") \"1\"}}one{{end}}", "one"),
        ("}}", "}}"),
        ("{{\"}}\"}}", "}}"),
        ("{ {{.Id}} }", "{ abc }"),
    ],
)  # fmt: skip
def test_templates_give_what_go_gives(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("{{.Nope}}", 1, "no field Nope; there are Args, Config"),
        ("{{.State.Nope}}", 1, "no field Nope"),
        ("{{.Id.Nope}}", 1, "cannot take the field Nope of a string"),
        ("{{.Nothing.Nope}}", 1, "cannot take the field Nope of nothing"),
        ("{{range .Mounts}}{{.Nope}}{{end}}", 1, "no field Nope; there are RW, Source"),
        ("{{index .Args 9}}", 1, "out of range"),
        ("{{range .Id}}{{end}}", 1, "range over a string"),
        ("{{len 3}}", 1, "len of a number"),
        ('{{eq 1 "a"}}', 1, "cannot compare"),
        ("{{upper 1}}", 1, "expected a string"),
        ("{{upper}}", 1, "takes 1 arguments"),
        ("{{.Id 1}}", 1, "no function"),
        ("{{$x}}", 1, "undefined variable"),
        ("{{.Id", 125, "unclosed action"),
        ("{{", 125, "unclosed action"),
        ("{{}}", 125, "missing value"),
        ("{{.Id}", 125, "unexpected"),
        ("{{end}}", 125, "unexpected {{end}}"),
        ("{{else}}", 125, "unexpected {{else}}"),
        ("{{if .Id}}x", 125, "if without end"),
        ("{{range .Id}}x{{else}}y", 125, "range without end"),
        ("{{nope .Id}}", 125, "unknown function nope"),
        ('{{__import__ "os"}}', 125, "unknown function"),
        ("{{(.Id}}", 125, "unclosed parenthesis"),
        ("{{.Id | }}", 125, "missing value"),
        ('{{"x}}', 125, "unexpected"),
        ("{{.Id}}{{if}}{{end}}", 125, "missing value"),
    ],
)
def test_mistakes_are_named(source: str, code: int, words: str) -> None:
    with pytest.raises(Error) as caught:
        render(source)
    assert words in str(caught.value)
    assert caught.value.exit_code == code


def test_templates_reach_no_attributes_of_python() -> None:
    for name in ("__class__", "__dict__", "keys", "items", "format"):
        with pytest.raises(Error, match=r"no field|cannot take"):
            render("{{." + name + "}}")
        with pytest.raises(Error, match="cannot take"):
            render("{{.Id." + name + "}}")


def test_deep_templates_are_refused() -> None:
    with pytest.raises(Error, match="nested too deeply"):
        render("{{if 1}}" * 3000 + "{{end}}" * 3000)
    with pytest.raises(Error, match="nested too deeply"):
        render("{{" + "(" * 3000 + "1" + ")" * 3000 + "}}")


@given(
    st.text(
        alphabet=st.sampled_from(
            ["{{", "}}", ".Id", ".Args", ".", "$x", ":=", "range ", "if ", "else", "end", "with ",
             "index ", "json ", "(", ")", "|", " ", '"a"', "1", "-", "eq ", "and ", "printf ", "x",
             "`", "/*", "*/", ",", "len ", "%s"]
        ).flatmap(lambda piece: st.just(piece[0])) | st.characters(),
        max_size=60,
    )
)  # fmt: skip
def test_any_text_is_rendered_or_refused(source: str) -> None:
    try:
        render(source)
    except Error as failure:
        assert str(failure).startswith("template: ")


PIECES = (
    "{{", "}}", "{{end}}", "{{else}}", ".Id ", ".Args ", ". ", "$x ", ":= ", "range ", "if ",
    "with ", "index ", "json ", "(", ")", "| ", '"a" ', "1 ", "- ", "eq ", "and ", "printf ",
    "x", "len ", "join ", "{{- ", " -}}", ".Config.Labels ", "nil ", "not ", "lt ", ".Label ",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_any_tokens_are_rendered_or_refused(pieces: list[str]) -> None:
    try:
        render("".join(pieces))
    except Error as failure:
        assert str(failure).startswith("template: ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(json_values)
def test_json_gives_the_value_back(value: object) -> None:
    assert json.loads(render("{{json .X}}", {"X": value})) == value


@given(st.text().filter(lambda text: "{{" not in text and "\\" not in text))
def test_text_without_actions_is_itself(text: str) -> None:
    assert render(text) == text
