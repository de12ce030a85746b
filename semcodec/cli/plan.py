"""``semcodec plan``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_json, echo_table, tamed
from semcodec.cli.streams import check_output
from semcodec.errors import UsageError

if TYPE_CHECKING:
    from semcodec.planning.latency import Profile
    from semcodec.planning.link import Link
    from semcodec.planning.plan import Plan, Replay, Row


@click.command()
@click.option("--results", metavar="DIR", help="Choose among what 'semcodec bench' measured.")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="TASK[=FLOAT],...",
    help="With --results of several tasks: the one whose score counts, or weights of their mean, as in "
    "classification=1,detection=2.",
)
@click.option("--profile", metavar="NAME|FILE", help="Choose among the points of a profile; 'list' lists what ships.")
@click.option("--assume", multiple=True, metavar="NAME=VALUE", help="A figure that a profile's source leaves out.")
@click.option("--device-speed", type=float, default=1.0, help="Of the device, times that of the one that was timed.")
@click.option("--server-speed", type=float, default=1.0, help="Of the server, likewise.")
@click.option("--deadline-ms", type=float, help="Completion time that a sample may take.")
@click.option("--rate-mbps", type=float, help="Rate of the link, in 10^6 bit/s.")
@click.option(
    "--trace",
    metavar="FILE|GENERATOR",
    help="Replay a varying link: lines of 'time_s, mbps', or rayleigh:snr_db=5,seed=1 or markov:low=1,high=20,seed=1.",
)
@click.option("--rtt-ms", type=float, default=0.0, show_default=True, help="Round-trip time; half of it is on the way.")
@click.option("--loss", type=float, default=0.0, show_default=True, help="Share of packets that are lost, sent again.")
@click.option("--mtu", type=int, default=1500, show_default=True, help="Bytes of a packet on the link.")
@click.option("--energy-mj", type=float, help="Energy that a sample may cost the device.")
@click.option(
    "--joules-per-mac", type=float, help="Joule of one multiply-accumulate of the device, in place of the profile's."
)
@click.option("--joules-per-bit", type=float, help="Joule of one bit that is sent, likewise.")
@click.option(
    "--max-device-share",
    type=float,
    help="Part of what both ends compute that the device may compute, as in 0.35.",
)
@click.option("--period-ms", type=float, help="With --trace: a sample comes every so often.  [default: the deadline]")
@click.option(
    "--headroom", type=float, help="With --trace: share of the deadline that the choice leaves.  [default: 0]"
)
@click.option("--seconds", type=float, help="With --trace: how long.  [default: to its last line]")
@click.option(
    "--save-trace", type=click.Path(path_type=Path, dir_okay=False), help="Write the trace that was generated."
)
@click.option("--streams", type=click.IntRange(1), help="Size a server for so many streams, in place of a choice.")
@click.option("--fps", type=float, help="With --streams: samples a second of each.  [default: 10]")
@click.option("--accelerator-speed", type=float, help="With --streams: of the server's networks on a GPU, times "
              "that of the processor that was timed.  [default: 1]")  # fmt: skip
@click.option("--use", type=float, help="With --streams: share of a process that may be busy.  [default: 0.7]")
@options.as_json
def command(
    results: str | None,
    tasks: tuple[str, ...],
    profile: str | None,
    assume: tuple[str, ...],
    device_speed: float,
    server_speed: float,
    deadline_ms: float | None,
    rate_mbps: float | None,
    trace: str | None,
    rtt_ms: float,
    loss: float,
    mtu: int,
    energy_mj: float | None,
    joules_per_mac: float | None,
    joules_per_bit: float | None,
    max_device_share: float | None,
    period_ms: float | None,
    headroom: float | None,
    seconds: float | None,
    save_trace: Path | None,
    streams: int | None,
    fps: float | None,
    accelerator_speed: float | None,
    use: float | None,
    form: str,
) -> None:
    """Choose the operating point for a link and a deadline: the most accurate whose completion time fits.

    Completion time is computing at both ends plus sending, with an entropy coder that may be left out used only where
    it pays. Beside the choice: the runner-up, what local computing and full offloading would do, and where nothing
    fits what misses by least. With --trace, how the adaptive choice fares beside each fixed point. With --streams, what
    a server needs for so many.
    """
    from semcodec._files import refuse_overwrite
    from semcodec.evaluation.records import PLAN, RECORDS
    from semcodec.planning.latency import Energy
    from semcodec.planning.link import Link, write_trace
    from semcodec.planning.operating_points import open_points, shipped
    from semcodec.planning.plan import plan, replay
    from semcodec.tasks.weighted import Asked

    if profile == "list":
        rows = [(name, open_points(name).title) for name in shipped()]
        echo_json(dict(rows)) if form == "json" else echo_table(["profile", "what it is"], rows)
        return
    asked, assumed = Asked.parse(tasks), options.numbers(assume, "NAME=NUMBER", "device_ms=30")
    if (results is None) == (profile is None):
        raise UsageError("choose among what? give one of --results DIR and --profile NAME|FILE")
    if results is not None and not Path(results).is_dir():
        raise UsageError(f"--results {results} is no folder; 'semcodec bench --out DIR' makes one")
    if streams is not None:
        if rate_mbps is not None or trace is not None or deadline_ms is not None:
            raise UsageError("--streams sizes a server for every point: leave out the link and the deadline")
        known = open_points(str(results or profile), assumed, asked).at_speeds(device_speed, server_speed)
        _show_sizes(known, streams, fps or 10.0, accelerator_speed or 1.0, use, form)
        return
    if not all(option is None for option in (fps, accelerator_speed, use)):
        raise UsageError("--fps, --accelerator-speed and --use are about --streams")
    if (rate_mbps is None) == (trace is None):
        raise UsageError("over which link? give one of --rate-mbps and --trace")
    if deadline_ms is None:
        raise UsageError("by when? give --deadline-ms")
    if trace is None and not all(option is None for option in (period_ms, headroom, seconds, save_trace)):
        raise UsageError("--period-ms, --headroom, --seconds and --save-trace are about a --trace")
    for name, value in (("energy-mj", energy_mj), ("max-device-share", max_device_share)):
        if trace is not None and value is not None:
            raise UsageError(f"--{name} is for a link of one rate: give --rate-mbps")
    if (joules_per_mac is None) != (joules_per_bit is None):
        raise UsageError("--joules-per-mac and --joules-per-bit go together: computing and sending both take energy")
    points = open_points(str(results or profile), assumed, asked).at_speeds(device_speed, server_speed)
    if joules_per_mac is not None and joules_per_bit is not None:
        points = replace(points, energy=Energy(joules_per_mac, joules_per_bit))
    if trace is None:
        assert rate_mbps is not None
        link = Link.fixed(rate_mbps, rtt_ms, loss, mtu)
        found = plan(points, link, deadline_ms, energy_mj, max_device_share)
        _show_plan(points, link, found, deadline_ms, form)
        return
    link = Link.trace(trace, rtt_ms, loss, mtu)
    read = [Path(trace), Path(results or profile or ""), *(Path(results or "") / name for name in (PLAN, RECORDS))]
    if save_trace:
        check_output(save_trace, stdout=False)
        refuse_overwrite(save_trace, read)
        write_trace(link, save_trace)
    fared = replay(points, link, deadline_ms, period_ms, seconds, headroom or 0.0)
    _show_replay(points, link, fared, deadline_ms, form)


def _show_plan(profile: Profile, link: Link, found: Plan, deadline_ms: float, form: str) -> None:
    from semcodec.planning.latency import FULL, LOCAL

    fastest, rate = found.fastest, float(link.mbps[0])
    if form == "json":
        echo_json(
            {
                "profile": profile.name,
                "rate_mbps": rate,
                "rtt_ms": link.rtt_ms,
                "loss": link.loss,
                "deadline_ms": deadline_ms,
                "assumed": dict(profile.assumed),
                "notes": dict(profile.notes),
                "best": _or_none(found.best),
                "runner_up": _or_none(found.runner_up),
                "local": _or_none(found.local),
                "best_at_home": found.best_at_home,
                "full_offload": _or_none(found.full),
                "fastest": fastest.document(),
                "why": None if found.best else _why(fastest),
                "points": [row.document() for row in found.rows],
                "unknown": {point.label: list(point.needs) for point in found.unknown},
            }
        )
        return
    over = f", {link.rtt_ms:g} ms round trip" * bool(link.rtt_ms) + f", {link.loss:.2%} loss" * bool(link.loss)
    click.echo(f"{tamed(profile.title)}\n{rate:g} Mbit/s{over}, within {deadline_ms:g} ms\n")
    named = [("best", found.best), ("runner-up", found.runner_up), ("local", found.local)]
    rows = [_cells(profile, name, row) for name, row in [*named, ("full-offload", found.full)] if row]
    if not found.best:
        rows.insert(0, _cells(profile, "fastest", fastest))
    energy = ["mJ"] if profile.energy else []
    echo_table(["", "point", "accuracy %", "bytes", "share", *energy, "ms", "device", "link", "server", "fits"], rows)
    click.echo()
    fields = [] if found.best else [("nothing fits", _why(fastest))]
    for base, point in ((LOCAL, profile.local), (FULL, profile.full)):
        if point is None or point.needs:
            fields.append(("not known", f"{base}: " + (f"needs {', '.join(point.needs)}" if point else "no figures")))
    fields += [("left out", f"{point.label}: lacks {', '.join(point.needs)}") for point in found.unknown]
    fields += [("assumed", f"{name} = {why}") for name, why in profile.assumed.items()]
    if found.best:
        fields.insert(0, ("spec", found.best.point.spec or _knobs(profile, found.best)))
    if found.best_at_home and found.local:
        accuracy = 100 * (found.local.point.accuracy or 0)
        fields.insert(0, ("best of all", f"{LOCAL}: {accuracy:.2f} % in {found.local.ms:.2f} ms, with nothing sent"))
    fields += profile.notes.items()
    if fields:
        echo_fields(fields)


def _why(fastest: Row) -> str:
    return f"the fastest, {fastest.point.label}, is {fastest.why}"


def _knobs(profile: Profile, row: Row) -> str:
    knobs = ",".join(f"{name}={value}" for name, value in row.point.knobs.items())
    return f"{profile.encoder}:{knobs}" if knobs else profile.encoder


def _cells(profile: Profile, name: str, row: Row) -> list[Any]:
    from semcodec.planning.latency import LINK

    p, coded = row.point, ", entropy-coded" * row.coded
    times = [sum(p.device_ms.values()), row.stages_ms[LINK], p.sent * sum(p.server_ms.values())]
    accuracy = None if p.accuracy is None else 100 * p.accuracy
    share = "-" if p.share is None else f"{p.share:.3f}"
    energy = [row.energy_mj] if profile.energy else []
    figures = [accuracy, round(p.bytes), share, *energy, row.ms, *map(float, times)]
    return [name, p.label + coded, *figures, row.why or "yes"]


def _or_none(row: Row | None) -> dict[str, Any] | None:
    return row.document() if row else None


def _show_replay(profile: Profile, link: Link, fared: list[Replay], deadline_ms: float, form: str) -> None:
    if form == "json":
        head = {"profile": profile.name, "deadline_ms": deadline_ms, "assumed": dict(profile.assumed)}
        echo_json({**head, "samples": fared[0].samples, "choices": [row.document() for row in fared]})
        return
    click.echo(f"{tamed(profile.title)}\n{fared[0].samples:,} samples, each within {deadline_ms:g} ms\n")
    rates = [float(rate) for rate in (link.mbps.min(), link.mbps.mean(), link.mbps.max())]
    rows = [
        [r.label, 100 * r.hits, None if r.accuracy is None else 100 * r.accuracy, 100 * r.useful, r.median_ms, r.p95_ms]
        for r in [fared[0], *sorted(fared[1:], key=lambda r: (-r.useful, r.median_ms))]
    ]
    echo_table(["choice", "in time %", "accuracy % of these", "of all", "median ms", "95 % within ms"], rows)
    click.echo()
    chosen = ", ".join(f"{label} {share:.0%}" for label, share in fared[0].share.items())
    echo_fields(
        [
            ("adaptive took", chosen),
            ("link, Mbit/s", "{:.3g} least, {:.3g} mean of its lines, {:.3g} most".format(*rates)),
            *[("assumed", f"{name} = {why}") for name, why in profile.assumed.items()],
        ]
    )


def _show_sizes(profile: Profile, streams: int, fps: float, speed: float, use: float | None, form: str) -> None:
    from semcodec.planning.plan import timed
    from semcodec.planning.sizing import USE, size

    share = USE if use is None else use
    sizes = [size(point, streams, fps, speed=speed, use=share) for point in timed(profile) if point.sent]
    sizes.sort(key=lambda one: one.sample_ms)
    if form == "json":
        head = {"profile": profile.name, "streams": streams, "fps": fps, "accelerator_speed": speed, "use": share}
        echo_json({**head, "points": [one.document() for one in sizes]})
        return
    title = tamed(profile.title)
    click.echo(f"{title}\n{streams:,} streams of {fps:g} samples a second, processes busy for {share:.0%}\n")
    rows = [
        [one.point.label, None if one.point.accuracy is None else 100 * one.point.accuracy, one.sample_ms,
         f"{one.decode_ms:.2f} + {one.networks_ms:.2f} + {one.message_ms:.2f}", one.per_process,
         one.processes or "none can", one.up_mbps, one.down_mbps, round(one.memory_mb)]
        for one in sizes
    ]  # fmt: skip
    headers = ["point", "accuracy %", "ms a sample", "decoding + networks + messages", "streams a process", "processes",
               "Mbit/s up", "Mbit/s down", "MB of sessions"]  # fmt: skip
    echo_table(headers, rows)
