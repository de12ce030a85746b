"""``semcodec plugins check``: the checks of ``semcodec.testing`` without pytest."""

from __future__ import annotations

import click

from semcodec._progress import Progress
from semcodec.cli import options
from semcodec.cli.output import echo_json, echo_table
from semcodec.component import KINDS, Kind


@click.command("check")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), help="What NAME is, where it stands for several kinds.")
@options.as_json
@click.pass_context
def command(ctx: click.Context, name: str, kind: Kind | None, form: str) -> None:
    """Check that the component NAME, or KIND/NAME, keeps every promise of its kind and of its traits.

    NAME may be a member of a family, as timm/resnet18. A check passes, fails, fails as expected (the component's trait
    expected_failures gives the reason) or is skipped, because the component has no such thing or fails what it rests
    on. The exit code is 1 where one fails.
    """
    from dataclasses import asdict

    from semcodec.composition.registry import get_registry, lacking
    from semcodec.errors import PluginError
    from semcodec.testing import checks_for, outcomes

    registry = get_registry()
    prefix = next((k for k in KINDS if name.startswith(f"{k}/")), None)
    component = registry.find(name.removeprefix(f"{prefix}/"), prefix or kind)
    if reason := lacking(component):
        raise PluginError(reason)
    checks = checks_for(component, registry=registry)
    progress, rows = Progress(), []
    progress.count(checks[0].name, 0, len(checks))
    for done, outcome in enumerate(outcomes(component, registry=registry), 1):
        rows.append(outcome)
        progress.note(f"{done}/{len(checks)}  {outcome.check} {outcome.result}, {outcome.seconds:.1f} s")
        progress.count(checks[min(done, len(checks) - 1)].name, done, len(checks))
    results = ("passed", "failed", "expected", "skipped")
    count = {result: sum(row.result == result for row in rows) for result in results}
    if form == "json":
        found = {"kind": component.kind, "name": component.name, **count, "checks": [asdict(row) for row in rows]}
        echo_json(found)
    else:
        echo_table(
            ("check", "result", "seconds", "reason"),
            [(row.check, row.result, row.seconds, row.reason) for row in rows],
        )
        said = ", ".join(f"{n} {result}" for result, n in count.items() if n)
        click.echo(f"\n{component.kind} {component.name}: {said}")
    if count["failed"]:
        ctx.exit(1)
