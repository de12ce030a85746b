"""``semcodec bench --executor ray`` on a real cluster of two nodes, one of which is taken away in the middle."""

from __future__ import annotations

import logging
from itertools import product

import pytest

from semcodec.bench.cells import cell_of, ordered
from semcodec.bench.runner import run
from semcodec.bench.worker import Settings, Worker
from semcodec.composition.composition import compose_spec
from semcodec.errors import SemcodecError, UsageError

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'semcodec[ray]'")
Cluster = pytest.importorskip("ray.cluster_utils").Cluster

from semcodec.bench.ray_pool import OnRay  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


class Together(OnRay):
    """Begins when the workers of both nodes are up, however long one of them takes."""

    def submit(self, slot, cell):
        super().submit(slot, cell)
        if not self._tries:
            ray.wait([self._running[slot].answer])


def test_no_cluster_is_one_line_at_once():
    with pytest.raises(SemcodecError, match=r"no Ray cluster at 127\.0\.0\.1:1: .*refused"):
        OnRay(Settings("digits-scenes"), address="127.0.0.1:1")
    with pytest.raises(UsageError, match="expects HOST:PORT"):
        OnRay(Settings("digits-scenes"), address="here")


@pytest.mark.slow
def test_a_node_that_is_killed_costs_no_record(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    specs = [f"{e}:{q}+vit-nano-{s}" for e, q, s in product(("jpeg", "webp"), range(10, 90, 5), ("edge", "server"))]
    cells = ordered(cell_of(compose_spec(spec), "digits-scenes", "test", 16, 0) for spec in specs)
    settings = Settings("digits-scenes", limit=16, offline=True)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        other = cluster.add_node(**NODE)
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        pool = Together(settings)
        found = {}
        for done in run(cells, pool, 2):
            assert done.cell.digest not in found
            found[done.cell.digest] = done.record
            if len(found) == 6:
                assert len(pool._actors) == 2
                cluster.remove_node(other, allow_graceful=False)
        assert sum(pool._tries.values()) >= 1  # a cell was lost and begun again
    finally:
        ray.shutdown()
        cluster.shutdown()
    worker = Worker(settings)
    drop = {"stages_ms", "machine"}
    for cell in cells[::8]:
        here = worker.measure(cell)
        assert {k: v for k, v in found[cell.digest].items() if k not in drop} == {
            k: v for k, v in here.items() if k not in drop
        }
