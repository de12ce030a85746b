"""Which operating points are of a pipeline: those that differ from it in call parameters alone."""

from __future__ import annotations

from semcodec.composition.composition import compose_spec
from semcodec.errors import SemcodecError, UsageError
from semcodec.interfaces import Composed
from semcodec.planning.latency import OperatingPoint, Profile
from semcodec.planning.plan import timed


def matching(profile: Profile, name: str, composition: Composed) -> list[OperatingPoint]:
    """The profile's timed points of ``composition`` with what its spec sets; in a profile by its Encoder, in records by
    all but call parameters. name: of the profile, for UsageError where there is none."""
    known = timed(profile)
    kept = [p for p in known if p.knobs and _is_of(profile, composition, p) and _agrees(composition, p)]
    if not kept:
        fixed = ", ".join(f"{name}={composition.call[name]}" for name in _fixed(composition))
        raise UsageError(f"{name} has no operating point of {composition.spec}" + f" with {fixed}" * bool(fixed))
    return kept


def answering_here(profile: Profile, composition: Composed) -> OperatingPoint | None:
    """The most accurate record of this pipeline whose gate sends nothing: the Encoder answers itself. None without."""
    found = [p for p in profile.points if not p.sent and not p.needs and _is_of(profile, composition, p, gate=False)]
    return max(found, key=lambda p: (p.accuracy or 0.0, -p.compute_ms), default=None)


def _is_of(profile: Profile, composition: Composed, point: OperatingPoint, gate: bool = True) -> bool:
    """gate: whether it counts."""
    if profile.encoder:
        return profile.encoder == composition.encoder.name
    try:
        other = compose_spec(point.spec, composition.registry)
    except SemcodecError:  # measured where there were other plugins
        return False
    if other.point is not None:
        return False
    if gate:
        return bool(other.weights_signature() == composition.weights_signature())
    return bool(other.decoding_signature() == composition.decoding_signature())


def _fixed(composition: Composed) -> list[str]:
    return [name for name in composition.call if name in composition.given]


def _agrees(composition: Composed, point: OperatingPoint) -> bool:
    return all(point.knobs.get(name, composition.call[name]) == composition.call[name] for name in _fixed(composition))
