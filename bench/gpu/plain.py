"""The same model in plain PyTorch, for `check`: what a step costs without this project around it.

    python3 plain.py [--device cpu] [--steps 300] [--compile]

One process, f32 without TF32, made-up images; a step ends with the update. The network is that of
bench/peers/ddp.py. Each form is timed with a batch that lies on the device, and with batches copied from pinned
memory of the host. Prints one line of JSON for each as it goes.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

# Where it is in the repository; in a packed folder it is beside this file.
sys.path.append(str(Path(__file__).resolve().parent.parent / "peers"))

from ddp import BATCH_SIZE, LEARNING_RATE, BandLrn, Cifar10, plain_lrn  # noqa: E402

# The examples of a step with two towers, and those of one tower.
BATCH_SIZES = (2 * BATCH_SIZE, BATCH_SIZE)
WARM_UP_STEPS = 10
STRETCHES = 5

Step = Callable[[], None]


def steps_of(form: str, device: torch.device, batch_size: int) -> tuple[Step, Step]:
    """One step of training on what lies on the device, and one that copies its batch there first."""
    torch.manual_seed(1)
    is_first_idea = form == "eager, NCHW"
    layout = torch.contiguous_format if is_first_idea else torch.channels_last
    network = Cifar10(plain_lrn if is_first_idea else BandLrn()).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    images = torch.randn(batch_size, 3, 24, 24).contiguous(memory_format=layout)
    on_host = [images, torch.randint(0, 10, (batch_size,))]
    if device.type == "cuda":
        on_host = [tensor.pin_memory() for tensor in on_host]
    on_device = [tensor.to(device, copy=True) for tensor in on_host]

    def total_loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(network(images), labels) + network.weight_decay()

    loss = torch.compile(total_loss) if form == "torch.compile" else total_loss

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(*on_device).backward()
        optimizer.step()

    launch = captured(step) if form == "CUDA graph" else step

    def copy_and_step() -> None:
        for there, here in zip(on_device, on_host, strict=True):
            there.copy_(here, non_blocking=True)
        launch()

    return launch, copy_and_step


def captured(step: Step) -> Step:
    """The step as a CUDA graph: one launch instead of one for each kernel."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Step = graph.replay
    return replay


def milliseconds(step: Step, steps: int) -> float:
    """The time of a step, to a microsecond: the median of a few stretches of them."""
    stretches = min(STRETCHES, steps)
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for _ in range(min(WARM_UP_STEPS, steps)):
        step()
    times = []
    for _ in range(stretches):
        synchronize()
        start = time.perf_counter()
        for _ in range(steps // stretches):
            step()
        synchronize()
        times.append(1000 * (time.perf_counter() - start) / (steps // stretches))
    return round(statistics.median(times), 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--compile", action="store_true", help="time that form alone, which takes long to begin")
    args = parser.parse_args()

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    forms = ["eager, NCHW", "eager, channels_last"] + ["CUDA graph"] * (args.device.type == "cuda")
    for form in ["torch.compile"] if args.compile else forms:
        for batch_size in BATCH_SIZES[: 1 if args.compile else None]:
            result: dict[str, object] = {"form": form, "batch_size": batch_size}
            try:
                step, copy_and_step = steps_of(form, args.device, batch_size)
                result |= {"ms": milliseconds(step, args.steps)}
                result |= {"ms_with_copies": milliseconds(copy_and_step, args.steps)}
            except Exception as error:  # the other forms are still worth having
                result |= {"failed": f"{type(error).__name__}: {error}"}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
