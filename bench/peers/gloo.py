"""A peer of the bench: gloo's all-reduce of as many numbers as the model has.

    python -m torch.distributed.run --standalone --nproc-per-node 2 gloo.py [--seconds 2]

With two ranks each sends and receives the 4,273,192 bytes once, which is also what a push and a pull move.
Rank 0 prints one line of JSON; cpu_s_per_gb is the CPU time of one rank over the bytes it sent and received.
"""

import argparse
import json
import os
import statistics
import time

import torch
import torch.distributed as dist

NUM_VALUES = 1_068_298
WARM_UP_ROUNDS = 20
ROUNDS_BETWEEN_LOOKS = 10


def timed(values, seconds):
    """Reduces until rank 0's clock says that it is enough; the time of each round."""
    enough = torch.zeros(1)
    times = []
    start = time.perf_counter()
    while True:
        for _ in range(ROUNDS_BETWEEN_LOOKS):
            began = time.perf_counter()
            dist.all_reduce(values)
            times.append(time.perf_counter() - began)
        enough[0] = time.perf_counter() - start >= seconds
        dist.broadcast(enough, src=0)
        if enough.item():
            return times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    # Zeros stay zeros, however often they are added up.
    values = torch.zeros(NUM_VALUES)
    for _ in range(WARM_UP_ROUNDS):
        dist.all_reduce(values)
    cpu_before = time.process_time()
    times = timed(values, args.seconds)
    cpu = time.process_time() - cpu_before
    if dist.get_rank() == 0:
        bytes_moved = 2 * values.nbytes * len(times)
        result = {
            "push_pull_ms": 1000.0 * statistics.median(times),
            "client_cpu_s_per_gb": cpu / (bytes_moved / 1e9),
            "rounds": len(times),
        }
        print(json.dumps(result), flush=True)
    # Not in good order, by destroy_process_group: now and then libtorch aborts a rank in that.
    os._exit(0)


if __name__ == "__main__":
    main()
