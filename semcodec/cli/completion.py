"""What a shell completes: specs with their components, parameters, values, targets and cuts, and data sets.

By click's own mechanism, which asks this program with an environment variable set. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

if TYPE_CHECKING:
    from semcodec.component import Component, Param
    from semcodec.specs import BackboneSpec

    Text = click.ParamType[str]
else:
    Text = click.ParamType  # generic for types alone

SPECS = ("spec", "specs")
DATA = ("data",)
SWEPT = ("swept",)
COMPONENTS = {"show", "check"}
"""Subcommands of 'plugins' whose argument is a component's name."""


class SpecType(Text):
    """A spec, as far as it was typed."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(text, help=told) for text, told in complete_spec(incomplete)]


class DataType(Text):
    """A data set by name, or a folder, for which the shell asks its own files."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from semcodec.data.datasets import rows

        found = [row for row in rows() if row["name"].startswith(incomplete)]
        if not found:
            return [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(row["name"], help=row["description"]) for row in found]


class NameType(Text):
    """A component by name."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from semcodec.composition.registry import get_registry

        found = (c for c in get_registry() if c.name.startswith(incomplete))
        return [CompletionItem(component.name, help=component.summary) for component in found]


class SweepType(Text):
    """``ITEM.KEY=``, of what the spec before it names."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        named = [ctx.params.get(name) for name in SPECS]  # of a line that is not whole, click keeps it in args
        said = [*(one for one in named if isinstance(one, str)), *ctx.args]
        items = _items(said[0]) if said else []
        keys = [(f"{c.name}.{p.name}=", p.help) for c in items for p in c.params if p.when == "call"]
        return [CompletionItem(text, help=told) for text, told in keys if text.startswith(incomplete)]


def typed(command: click.Command) -> click.Command:
    """The command with these types where a spec, a data set or a component is asked for."""
    for param in command.params:
        if param.name in SPECS and isinstance(param, click.Argument):
            param.type = SpecType()
        elif param.name in DATA:
            param.type = DataType()
        elif param.name in SWEPT:
            param.type = SweepType()
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            typed(one)
            for param in one.params:
                if param.name == "name" and name in COMPONENTS:
                    param.type = NameType() if "check" in command.commands else DataType()
    return command


# -- specs -------------------------------------------------------------------------------------------------------------


def complete_spec(text: str) -> Iterator[tuple[str, str]]:
    """Whole specs that begin as ``text`` does, one step further, each with what is told of it."""
    done, plus, item = text.rpartition("+")
    head = done + plus
    if ":" in item:
        steps = _arguments(item, head)
    elif "@" in item:
        steps = _targets(item, done)
    else:
        steps = _names(item, done)
    for step, told in steps:
        yield head + step, told


def _names(begun: str, done: str) -> Iterator[tuple[str, str]]:
    """Components that may come next: encoders first, then what fits."""
    from semcodec.composition.registry import get_registry

    taken = {component.kind for component in _items(done)}
    for component in get_registry():
        name = component.name.removesuffix("*")
        if not name.startswith(begun) or (not done and component.kind != "encoder"):
            continue
        if component.kind in taken - {"selector"}:
            continue
        if component.kind == "backbone" and not name.endswith("/") and not _fits(f"{done}+{name}"):
            continue
        yield name, component.summary


def _fits(spec: str) -> bool:
    from semcodec.composition.composition import compose_spec
    from semcodec.errors import SemcodecError

    try:
        compose_spec(spec)
    except SemcodecError:
        return False
    return True


def _arguments(item: str, head: str) -> Iterator[tuple[str, str]]:
    """Parameters that are not given yet, or the values of the one that is begun."""
    named, _, given = item.partition(":")
    found = _items(named)
    if not found:
        return
    [component] = found
    earlier, comma, last = given.rpartition(",")
    before = f"{named}:{earlier}{comma}"
    key, equals, value = last.partition("=")
    params = {param.name: param for param in component.params}
    if equals:
        if key in params:
            for text in _values(params[key]):
                if text.startswith(value):
                    yield f"{before}{key}={text}", params[key].help
        return
    set_already = {argument.partition("=")[0] for argument in earlier.split(",")}
    for param in component.params:
        if param.name.startswith(last) and param.name not in set_already:
            yield f"{before}{param.name}=", param.help
    if component.positional and not earlier:
        for text in _values(params[component.positional]):
            if text.startswith(last):
                yield f"{before}{text}", params[component.positional].help


def _values(param: Param) -> list[str]:
    """What is allowed, or the usual sweep, and the default."""
    if param.type is bool:
        return ["true", "false"]
    values = [*param.values, *([] if param.default is None or param.default in param.values else [param.default])]
    return [str(value) for value in values]


def _targets(item: str, done: str) -> Iterator[tuple[str, str]]:
    """Cuts of a backbone, or targets of the encoder for a selector."""
    name, _, begun = item.partition("@")
    found = _items(name)
    if not found:
        return
    [component] = found
    if component.kind == "selector":
        encoders = [one for one in _items(done) if one.kind == "encoder"]
        targets = {target: f"of {one.name}" for one in encoders for target in one.traits.get("targets", ())}
    elif component.kind == "backbone" and (spec := _backbone(component)):
        targets = {cut: ", ".join(f"{k} {v}" for k, v in port.items()) for cut, port in spec.cuts.items()}
    else:
        return
    for target, told in targets.items():
        if target.startswith(begun):
            yield f"{name}@{target}", told


def _backbone(component: Component) -> BackboneSpec | None:
    """What it says of itself unbuilt, at its defaults."""
    from semcodec.composition.registry import get_registry
    from semcodec.errors import SemcodecError

    try:
        function = get_registry().spec_function(component)
        found: BackboneSpec | None = function({p.name: p.default for p in component.params}) if function else None
    except SemcodecError:
        return None
    return found


def _items(text: str) -> list[Component]:
    """The components that part of a spec names, as far as they are known."""
    from semcodec.composition.grammar import parse
    from semcodec.composition.registry import get_registry
    from semcodec.errors import SemcodecError

    found = []
    for part in text.split("+"):
        try:
            [item] = parse(part).items
            found.append(get_registry().find(item.name, item.kind))
        except (SemcodecError, ValueError):
            continue
    return found


# -- bash --------------------------------------------------------------------------------------------------------------

BREAKS = ":=@"
"""What bash takes for the end of a word in the middle of a spec."""


class Bash(BashComplete):
    """As click's, for words that hold ``:``, ``=`` and ``@``, at which bash breaks words; and no blank behind."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        if [[ $type == dir ]]; then compopt -o dirnames
        elif [[ $type == file ]]; then compopt -o default
        elif [[ $type == plain ]]; then COMPREPLY+=("$value")
        fi
    done < <(env COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete $1)
    [[ $COMP_LINE == *' '*[+:@=]* ]] && compopt -o nospace
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, broken at blanks alone, and the one that is begun."""
        line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
        words = split_arg_string(line)
        begun = "" if line[-1:].isspace() or len(words) < 2 else words.pop()
        return words[1:], begun

    def format_completion(self, item: CompletionItem) -> str:
        """``type,value``, the value without what bash holds for words of their own."""
        breaks = [mark for mark in BREAKS if mark in os.environ.get("COMP_WORDBREAKS", "")]
        begun = self.get_completion_args()[1]
        kept = max((begun.rfind(mark) for mark in breaks), default=-1) + 1
        return f"{item.type},{item.value[kept:]}"

    @staticmethod
    def _check_version() -> None:
        """Bash from 4.4 on, which every current system has; asking it would start a process."""


add_completion_class(Bash, "bash")
