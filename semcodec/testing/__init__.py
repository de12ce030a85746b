"""Conformance checks for components: one's own, a colleague's, those that ship here.

    >>> from semcodec.testing import check_component
    >>> check_component(my_record)                  # raises CheckFailed at the first promise that is not kept

or, under pytest, one test for every check ::

    @parametrize_with_checks([my_encoder, my_recoverer])
    def test_my_components(check):
        check()

or, for what is installed, ``semcodec plugins check NAME``. A check is a plain function of a component. It fails by
raising ``CheckFailed``, an AssertionError. Components need not be installed: companions (an entropy stage, a backbone)
come from the registry of what is. ``docs/testing.md`` lists the checks; ``semcodec.testing.strategies`` has Hypothesis
strategies for specs, symbols and streams.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, TypeVar

from semcodec.component import Component
from semcodec.composition.registry import Registry, get_registry, missing
from semcodec.testing.subject import MODULES, CheckFailed, CheckSkipped, Subject, describe, shorten

__all__ = [
    "Check",
    "CheckFailed",
    "CheckSkipped",
    "Outcome",
    "check_component",
    "checks_for",
    "outcomes",
    "parametrize_with_checks",
]

Function = Callable[[Subject], None]
Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True, eq=False)
class Check:
    """One check of one component. Calling it returns None or raises CheckFailed, or CheckSkipped with a reason.

    after: checks that it rests on; where one of them fails, this one has nothing to look at.
    """

    name: str
    subject: Subject
    function: Function
    after: Sequence[Function] = ()

    def __call__(self) -> None:
        for earlier in self.after:
            if self._outcome(earlier):
                raise CheckSkipped(f"{earlier.__name__} fails")
        failure = self._outcome(self.function)
        if failure:
            raise CheckFailed(f"{self.subject}: {self.name}: {failure}") from failure.__cause__

    def _outcome(self, function: Function) -> CheckFailed | None:
        """Found once where other checks rest on it. CheckSkipped passes."""
        known = self.subject.outcomes
        if function in known:
            return known[function]
        outcome = None
        try:
            function(self.subject)
        except CheckFailed as failure:
            outcome = failure
        except CheckSkipped:
            raise
        except Exception as error:
            outcome = CheckFailed(f"raises {describe(error)}")
            outcome.__cause__ = error
        if function is not self.function:
            known[function] = outcome
        return outcome

    def __str__(self) -> str:
        return f"{self.subject.component.kind}/{self.subject.component.name}-{self.name}"


@dataclass(frozen=True)
class Outcome:
    """How a check ended. reason: why it failed, is expected to or was skipped, cut short; "" where it passed."""

    check: str
    result: Literal["passed", "failed", "expected", "skipped"]
    seconds: float
    reason: str = ""


def checks_for(component: Component, *, registry: Registry | None = None) -> list[Check]:
    """The checks of a component's kind and traits, in the order in which a failure is best understood.

    registry: where companions are looked up; what is installed, and the component itself, if left out.
    """
    registry = registry or _around(component)
    if component.name.endswith("/*"):  # a family stands or falls with the member that it names
        member = component.name.replace("*", component.traits["example"])
        component = registry.find(member, component.kind)
    subject = Subject(component, registry)
    checks: list[Check] = []
    for group in _functions(component):
        # Those of the record come before any of the kind's, whose first, that builds it, comes before the others.
        after = [check.function for check in checks]
        checks += [Check(function.__name__, subject, function, tuple(after)) for function in group]
    return checks


def outcomes(
    component: Component, *, registry: Registry | None = None, expected_failures: Mapping[str, str] | None = None
) -> Iterator[Outcome]:
    """Run every check, one after the other, whether or not those before it pass.

    expected_failures: {check name: reason} of checks that are known to fail, beside those that the component's trait
    of that name declares. One of them that passes is a failure too, so that the list stays true.
    """
    checks = checks_for(component, registry=registry)
    expected = _expected(component, expected_failures, checks)
    for check in checks:
        began = time.perf_counter()
        result: Literal["passed", "failed", "expected", "skipped"] = "passed"
        reason = ""
        try:
            check()
        except CheckSkipped as skip:
            result, reason = "skipped", str(skip)
        except CheckFailed as failure:
            result, reason = "failed", str(failure).removeprefix(f"{check.subject}: {check.name}: ")
            if check.name in expected:
                result, reason = "expected", expected[check.name]
        else:
            if check.name in expected:
                result, reason = "failed", f"passes, and is expected to fail: {expected[check.name]}"
        yield Outcome(check.name, result, time.perf_counter() - began, shorten(reason))


def check_component(
    component: Component, *, registry: Registry | None = None, expected_failures: Mapping[str, str] | None = None
) -> None:
    """Run the checks. Raises CheckFailed at the first that fails, naming component and check.

    expected_failures: as of ``outcomes``.
    """
    for outcome in outcomes(component, registry=registry, expected_failures=expected_failures):
        if outcome.result == "failed":
            raise CheckFailed(f"{component.kind} {component.name}: {outcome.check}: {outcome.reason}")


def parametrize_with_checks(
    components: Iterable[Component],
    *,
    registry: Registry | None = None,
    expected_failures: Callable[[Component], Mapping[str, str]] | None = None,
) -> Callable[[Test], Test]:
    """Pytest decorator of a test that takes ``check`` and calls it: one test for each check of each component.

    expected_failures: gives {check name: reason} for a component, beside those of its trait; they are strict xfails.
    A component whose optional dependency is not installed is skipped with the remedy.
    """
    import pytest

    rows = []
    for component in components:
        remedy = missing(component)
        checks = checks_for(component, registry=registry)
        expected = _expected(component, expected_failures and expected_failures(component), checks)
        for check in checks:
            marks = [pytest.mark.skip(reason=remedy)] if remedy else []
            if check.name in expected:
                marks.append(pytest.mark.xfail(reason=expected[check.name], strict=True, raises=CheckFailed))
            rows.append(pytest.param(check, id=str(check), marks=marks))
    decorator: Callable[[Test], Test] = pytest.mark.parametrize("check", rows)
    return decorator


def _functions(component: Component) -> Iterator[list[Function]]:
    """Groups of checks, each of which rests on those before it."""
    first, *others = import_module("semcodec.testing.records").checks(component)
    yield from ([first], others)
    if component.kind in MODULES:
        first, *others = import_module(f"semcodec.testing.{MODULES[component.kind]}").checks(component)
        yield [first]
        yield [*others, *import_module("semcodec.testing.process_checks").checks(component)]


def _expected(component: Component, given: Mapping[str, str] | None, checks: Iterable[Check]) -> dict[str, str]:
    expected = {**component.traits.get("expected_failures", {}), **(given or {})}
    names = [check.name for check in checks]
    unknown = [name for name in expected if name not in names]
    if unknown:
        raise ValueError(f"no check is called {unknown[0]!r}; there are {', '.join(names)}")
    return expected


def _around(component: Component) -> Registry:
    """What is installed, with ``component`` in the place of any other of its kind and name."""
    installed = get_registry()
    if any(one is component for one in installed):
        return installed
    key = component.kind, component.name
    return Registry.of([*(one for one in installed if (one.kind, one.name) != key), component])
