"""Prefect's workers on the nodes of a Ray cluster, so that the shards of a teacher run there.

    ray job submit --address http://HEAD:8265 -- python deploy/ray_workers.py --pool qcrd-shards-process
    python deploy/ray_workers.py --pool qcrd-shards-process --workers 4 --gpus 0    # where there are no GPUs

Ray gives each worker a GPU (or `--gpus` of them, or cores alone) and keeps it there. Prefect shares out the shards,
starts dead ones again and shows how far they are, as everywhere (docs/deployment.md). The nodes need this project's
environment with `ray` in it. The variables that a worker needs anywhere (PREFECT_API_URL, QCRD_STORE, QCRD_CODE and the
rest) belong into the environment that Ray is started in: they are not handed on, for there are keys among them.
"""

import argparse
import sys

import ray

from models.watchdog import Watched


@ray.remote(max_retries=-1)  # a node that is lost: its worker begins anew on another
def work(pool: str) -> int:
    """Runs a worker that takes one shard at a time, until it ends; its exit code.

    It ends with this process, however that ends: cancelled, with the driver, or by kill -9.
    """
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--limit", "1"]
    # Ray has set CUDA_VISIBLE_DEVICES to the GPUs that are this worker's.
    with Watched(command) as worker:
        return worker.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", required=True, help="work pool of type process, that of deploy/shards.yaml")
    parser.add_argument("--workers", type=int, help="as many as the cluster's GPUs are enough for, if left out")
    parser.add_argument("--gpus", type=int, help="of each worker (1 where the cluster has any)")
    parser.add_argument("--cpus", type=int, default=1, help="of each worker (%(default)s)")
    parser.add_argument("--address", default="auto", help="of the cluster (%(default)s: the one that this node is in)")
    given = parser.parse_args()
    ray.init(address=given.address)
    have = int(ray.cluster_resources().get("GPU", 0))
    gpus = given.gpus if given.gpus is not None else int(have > 0)
    count = given.workers or have // max(1, gpus)
    if not count:
        parser.error(f"this cluster has {have} GPUs: say how many workers, as in --workers 4 --gpus 0")
    started = [work.options(num_gpus=gpus, num_cpus=given.cpus).remote(given.pool) for _ in range(count)]
    print(f"{count} workers of pool {given.pool}, each with {gpus} GPUs and {given.cpus} cores.", flush=True)
    return max(ray.get(started))


if __name__ == "__main__":
    sys.exit(main())
