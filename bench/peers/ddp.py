"""A peer of the bench: the same model trained by PyTorch DistributedDataParallel, gloo, on the CPU.

    python -m torch.distributed.run --standalone --nproc-per-node 2 ddp.py [--tuned] [--seconds 20]

Plain is what one writes first: NCHW and torch's own local response normalisation. Tuned lays images and
kernels out as channels_last and sums the normalisation's window of channels with a 1x1 convolution.

It does less than this project's workers do: one made-up batch, used again and again, and no moving
averages. Rank 0 prints one line of JSON; examples_per_sec counts the examples of all ranks.
"""

import argparse
import json
import os
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

BATCH_SIZE = 128
CHANNELS = 64
LRN_RADIUS = 4
LRN_ALPHA = 0.001 / 9.0
LRN_BETA = 0.75
WEIGHT_DECAY = 0.004
LEARNING_RATE = 0.1
WARM_UP_STEPS = 5
# The ranks agree to stop together, and not at every step.
STEPS_BETWEEN_LOOKS = 4


def plain_lrn(x):
    size = 2 * LRN_RADIUS + 1
    return F.local_response_norm(x, size, alpha=LRN_ALPHA * size, beta=LRN_BETA, k=1.0)


class BandLrn(nn.Module):
    """The normalisation with its sum over neighbouring channels as a matrix product."""

    def __init__(self):
        super().__init__()
        band = torch.ones(CHANNELS, CHANNELS).tril(LRN_RADIUS).triu(-LRN_RADIUS)
        self.register_buffer("band", band.reshape(CHANNELS, CHANNELS, 1, 1))

    def forward(self, x):
        return x * (1.0 + LRN_ALPHA * F.conv2d(x * x, self.band)).pow(-LRN_BETA)


class Cifar10(nn.Module):
    """The tutorial's network: 1,068,298 numbers."""

    def __init__(self, lrn):
        super().__init__()
        self.lrn = lrn
        self.conv1 = nn.Conv2d(3, CHANNELS, 5, padding=2)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2)
        self.local3 = nn.Linear(6 * 6 * CHANNELS, 384)
        self.local4 = nn.Linear(384, 192)
        self.softmax_linear = nn.Linear(192, 10)

    def forward(self, images):
        x = F.relu(self.conv1(images))
        x = self.lrn(F.max_pool2d(x, 3, 2, ceil_mode=True))
        x = self.lrn(F.relu(self.conv2(x)))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True).flatten(1)
        x = F.relu(self.local3(x))
        x = F.relu(self.local4(x))
        return self.softmax_linear(x)

    def weight_decay(self):
        squares = self.local3.weight.square().sum() + self.local4.weight.square().sum()
        return 0.5 * WEIGHT_DECAY * squares


def training(tuned):
    """One step of training, as a function without arguments."""
    network = Cifar10(BandLrn() if tuned else plain_lrn)
    images = torch.randn(BATCH_SIZE, 3, 24, 24)
    labels = torch.randint(0, 10, (BATCH_SIZE,))
    if tuned:
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    replica = DistributedDataParallel(network, broadcast_buffers=False)
    optimizer = torch.optim.SGD(replica.parameters(), lr=LEARNING_RATE)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(replica(images), labels) + network.weight_decay()
        loss.backward()
        optimizer.step()

    return step


def timed(step, seconds):
    """Runs steps until rank 0's clock says that it is enough; their number and time."""
    enough = torch.zeros(1)
    steps = 0
    start = time.perf_counter()
    while True:
        for _ in range(STEPS_BETWEEN_LOOKS):
            step()
        steps += STEPS_BETWEEN_LOOKS
        elapsed = time.perf_counter() - start
        enough[0] = elapsed >= seconds
        dist.broadcast(enough, src=0)
        if enough.item():
            return steps, elapsed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(1)
    dist.init_process_group("gloo")
    step = training(args.tuned)
    for _ in range(WARM_UP_STEPS):
        step()
    steps, elapsed = timed(step, args.seconds)
    if dist.get_rank() == 0:
        examples = dist.get_world_size() * BATCH_SIZE * steps
        result = {"examples_per_sec": examples / elapsed, "step_ms": 1000.0 * elapsed / steps, "steps": steps}
        print(json.dumps(result), flush=True)
    # Not in good order, by destroy_process_group: now and then libtorch aborts a rank in that.
    os._exit(0)


if __name__ == "__main__":
    main()
