"""The models in replicas of a Ray Serve deployment, anywhere on a cluster; one that dies is made anew.

Here are the connections, sessions, queue and messages. To a replica goes the header of a stream with a batch of its
records, and back come messages: neither predictions nor features cross.
"""

from __future__ import annotations

import io
import logging
import os
import re
import secrets
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from typing import Any, Self

from semcodec._network import check_cluster
from semcodec.data.notes import DataNote
from semcodec.errors import PluginError, SemcodecError, UsageError, WeightsMismatch, first_line, printable
from semcodec.pipeline.server import Server
from semcodec.serving.computing import Computed, Item, compute, draw
from semcodec.serving.engine import TRIES, Hosted, Models, WorkerLost
from semcodec.serving.loading import Loading, lighten
from semcodec.serving.log import Log
from semcodec.serving.messages import Answer

EACH = 2
"""Batches that a replica has at a time: one is computed while the next is on its way."""
MOST = 64
"""Replicas of a deployment that grows by itself, at most."""
POLL_S = 0.5
TOLD_S = 15.0
"""Between two lines about what is waited for."""
PATIENCE_S = 120.0
"""For the answers of a batch, and for a replica where there is none."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Replica:
    """A process with the models. known: digests of the weights that the front has, which have to be the same here."""

    def __init__(self, loading: Loading, known: Sequence[Mapping[str, str]]) -> None:
        warnings.simplefilter("ignore", DataNote)
        self.models = Models(loading.load())
        for server, there in zip(self.models.servers, known, strict=True):
            if digests_of(server) != there:
                raise WeightsMismatch(f"{server.spec}: other weights on {socket.gethostname()} than at the front")

    def compute(self, header: bytes, task: str, items: Sequence[Item]) -> tuple[Computed, float, list[Exception]]:
        """What a batch comes to, seconds that it took, and errors that are ours."""
        began = time.perf_counter()
        faults: list[Exception] = []

        def fault(error: BaseException) -> None:
            carried = RuntimeError(f"{type(error).__name__}: {first_line(error)}")  # its own class may not be known
            carried.add_note("".join(traceback.format_exception(error)))
            faults.append(carried)

        computed = compute(self.models.host(header, task).server, items, fault)
        return computed, time.perf_counter() - began, faults

    def draw(self, header: bytes, task: str, item: Item, answer: Answer) -> list[Mapping[str, Any]]:
        return draw(self.models.host(header, task).server, item, answer)


def digests_of(server: Server) -> dict[str, str]:
    """Of all weights that a server has, by slot."""
    return {**server.header.weights, **server.digests}


class OnRay:
    """An ``Executor`` whose batches are computed by replicas on a Ray cluster. Entered, it deploys them and returns;
    ``ready`` says when one of them answers. Left, it removes them, and the cluster where it is its own.

    servers: what ``loading`` gives, less the networks, which replicas have. address: of a running cluster, "auto" for
    that of this machine; without, a new one. replicas: None: as many as the load asks for, up to the cluster's CPUs, or
    GPUs. gpus: share of a GPU that each has.

    Raises PluginError where Ray is absent, SemcodecError where there is no cluster, UsageError for an address or GPU
    that cannot be.
    """

    def __init__(
        self,
        loading: Loading,
        log: Log,
        address: str | None = None,
        replicas: int | None = None,
        gpus: float | None = None,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            from ray import serve
        except ImportError:
            raise PluginError("--executor ray needs Ray with Serve: pip install 'semcodec[ray]'") from None
        self.ray: Any = ray
        self.serve: Any = serve
        self.log = log
        self.address, self.replicas, self.gpus = address, replicas, gpus
        self.name = f"semcodec-{secrets.token_hex(4)}"
        self.failure = ""
        self._up = self._busy = 0
        self._down: float | None = time.monotonic()  # since when there is no replica
        self._free = threading.Condition()
        self._ended = threading.Event()
        self._closing = ExitStack()
        if address:
            check_cluster(address)
        self.loading = loading
        self.servers = replace(loading, device="cpu", half=False).load()
        for server in self.servers:
            lighten(server)

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as undone:
            # Ray prints to stdout, where there is nothing but this server's address, what goes wrong on the cluster.
            undone.enter_context(redirect_stdout(_Told(self.log, self._ended)))
            self._connect(undone)
            try:
                self._deploy(undone)
            except (RuntimeError, self.ray.exceptions.RayError, self.serve.exceptions.RayServeException) as error:
                raise SemcodecError(f"Ray Serve deploys no models: {first_line(error)}") from error
            self._closing = undone.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self.log("waiting", message="for Ray to end the replicas" + ("" if self.address else " and its processes"))
        self._closing.close()

    def _connect(self, undone: ExitStack) -> None:
        where = f"at {self.address}" if self.address else "on this machine"
        self.log("waiting", message=f"for the Ray cluster {where}" if self.address else "for Ray, to be started here")
        more: dict[str, Any] = {}
        if not self.address:
            more = {"include_dashboard": False, "num_cpus": max(os.cpu_count() or 1, self.replicas or 1)}
        try:
            self.ray.init(self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **more)
        except Exception as error:
            raise SemcodecError(f"no Ray cluster {where}: {first_line(error)}") from error
        undone.callback(self.ray.shutdown)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        # Serve asks replicas that are gone how busy they are, and leaves it to asyncio to tell of it.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    def _deploy(self, undone: ExitStack) -> None:
        there = self.ray.cluster_resources()
        if self.gpus and not self.address and there.get("GPU", 0) < self.gpus:
            raise UsageError("--num-gpus: Ray finds no such GPU on this machine; leave it out for the CPU")
        room = there.get("GPU", 0) / self.gpus if self.gpus else there.get("CPU", 0)
        most = self.replicas or min(MOST, max(1, int(room)))
        self.at_once = EACH * most
        self.log(
            "waiting", message=f"for the models of {self.replicas or f'1 to {most}'} replicas", application=self.name
        )
        self.serve.start(proxy_location="Disabled")
        undone.callback(self._remove)
        size: dict[str, Any] = {"num_replicas": self.replicas}
        if self.replicas is None:
            scaling = {"min_replicas": 1, "max_replicas": most, "target_ongoing_requests": 1, "upscale_delay_s": 10}
            size = {"autoscaling_config": scaling}
        deployment = self.serve.deployment(
            name="models",
            ray_actor_options={"num_cpus": 1, "num_gpus": self.gpus or 0},
            max_constructor_retry_count=TRIES,
            # One replica that is left takes all that is sent, and a record for the page.
            max_ongoing_requests=self.at_once + 1,
            max_queued_requests=self.at_once + 1,
            graceful_shutdown_timeout_s=5,
            **size,
        )(Replica)
        application = deployment.bind(self.loading.anywhere(), [digests_of(server) for server in self.servers])
        target = self.serve.RunTarget(application, name=self.name, route_prefix=None)
        [self._handle] = self.serve.run_many(
            [target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )
        threading.Thread(target=self._watch, name="semcodec-replicas", daemon=True).start()

    def _remove(self) -> None:
        try:
            if self.address:
                self.serve.delete(self.name)
            else:
                self.serve.shutdown()
        except Exception as error:  # the cluster is gone, or goes before us
            self.log("warning", message=f"{self.name} was not removed from the cluster: {first_line(error)}")

    def _watch(self) -> None:
        """Know how many replicas there are, and say so where it changes or is waited for."""
        told = time.monotonic()
        while not self._ended.wait(POLL_S):
            up, failure = self._ask()
            self.failure = failure and f"no replica could be started: {failure}"
            if up != self._up:
                self.log("replicas", up=up)
                told = time.monotonic()
            elif not up and time.monotonic() - told > TOLD_S:
                self.log("waiting", message="for a replica: its models are loaded, or the cluster has no room for it")
                told = time.monotonic()
            with self._free:
                self._up = up
                self._down = None if up else self._down or time.monotonic()
                self._free.notify_all()

    def _ask(self) -> tuple[int, str]:
        """Replicas that answer, and why there will be none."""
        try:
            found = self.serve.status().applications[self.name]
        except Exception:  # the cluster is going, or Serve's controller is being made anew
            return 0, ""
        up, failure = 0, ""
        for deployment in found.deployments.values():
            up += deployment.replica_states.get("RUNNING", 0)
            if found.status == "DEPLOY_FAILED":
                failure = (deployment.message or found.message).strip().splitlines()[-1]
        return up, failure

    # -- as an Executor ------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self._up > 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Batches go out by the number of replicas that there are: the queue of deadlines is here, not there. Where
        there is none some wait for one, and are told when it has been too long."""
        with self._free:
            self._free.wait_for(lambda: self._busy < EACH * max(1, self._up) or self._ended.is_set())
            self._busy += 1
        try:
            yield
        finally:
            with self._free:
                self._busy -= 1
                self._free.notify()

    def compute(self, hosted: Hosted, items: Sequence[Item]) -> Computed:
        began = time.perf_counter()
        computed: Computed
        computed, took, faults = self._call(self._handle.compute, hosted.header, hosted.task, items)
        for error in faults:
            self.log.fault(error)
        return replace(computed, away=max(0.0, time.perf_counter() - began - took))

    def draw(self, hosted: Hosted, item: Item, answer: Answer) -> list[Mapping[str, Any]]:
        try:
            panels: list[Mapping[str, Any]] = self._call(self._handle.draw, hosted.header, hosted.task, item, answer)
        except WorkerLost as lost:
            raise SemcodecError(first_line(lost)) from lost
        return panels

    def _call(self, method: Any, *arguments: Any) -> Any:
        began = time.monotonic()
        try:
            response = method.remote(*arguments)
            while True:
                try:
                    return response.result(timeout_s=POLL_S)
                except TimeoutError:
                    since = began if self._down is None else min(began, self._down)
                    if time.monotonic() - since > PATIENCE_S or self._ended.is_set():
                        response.cancel()
                        raise SemcodecError("no replica has answered in time") from None
        except SemcodecError:
            raise
        except Exception as error:
            gone = self.ray.exceptions.RayError, self.serve.exceptions.RayServeException
            if isinstance(error, self.ray.exceptions.RayTaskError) or not isinstance(error, gone):
                self.log.fault(error)  # nothing has died, and this is ours
            self.log("lost", message=f"a replica, by {type(error).__name__}: what it had is sent again")
            raise WorkerLost(first_line(error)) from error

    def end(self) -> None:
        self._ended.set()
        with self._free:
            self._free.notify_all()


class _Told(io.TextIOBase):
    """The first line of what is printed, in a log, until it is ended."""

    def __init__(self, log: Log, ended: threading.Event) -> None:
        self.log, self.ended = log, ended

    def write(self, text: str) -> int:
        line = COLOUR.sub("", text).strip().partition("\n")[0]  # of those behind it some hundreds may be a dump
        if line and not self.ended.is_set():
            self.log("ray", message=printable(line)[:300])
        return len(text)
