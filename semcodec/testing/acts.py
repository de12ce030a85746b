"""What a component does, for checks that hold for every kind, here and in another process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import import_module

from semcodec.testing.subject import MODULES, Act, Subject


def acts_of(subject: Subject, whole: bool = False) -> Sequence[Act]:
    """What a component of its kind does; ``whole``: in a whole pipeline, where it is known in one."""
    module = import_module(f"semcodec.testing.{MODULES[subject.component.kind]}")
    acts: Sequence[Act] = getattr(module, "whole_acts" if whole and hasattr(module, "whole_acts") else "acts")(subject)
    return acts


def digests(subject: Subject) -> dict[str, str]:
    """By act, what the first sample comes to."""
    return {act.what: hashlib.sha256(act.do(act.who, 0)).hexdigest() for act in acts_of(subject)}
