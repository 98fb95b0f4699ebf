#!/usr/bin/env python3
"""TensorFlow's cifar10 tutorial model, in TensorFlow: what this project's numbers are held against.

    pip install tensorflow-cpu==2.19.1 numpy safetensors

    tf_reference.py init    INIT --seed 1                  variables to start from
    tf_reference.py train   INIT THEIRS --data-dir DATA    six steps of two towers
    tf_reference.py compare INIT OURS THEIRS               how far apart two trained checkpoints are
    tf_reference.py eval    CKPT --data-dir DATA           score on the 10,000 test examples

Checkpoints are safetensors files in the project's format: the ten variables (f32) under the tutorial's
names, each again with the suffix `/ExponentialMovingAverage`, and `global_step` (i64 scalar).
DATA is the folder of the binary CIFAR-10 files, or the folder that holds `cifar-10-batches-bin`.

The input is that of `--input plain`: examples in file order, the central 24x24 pixels, standardized, no
distortion. The whole path of a step can be read downwards: `inference`, `losses`, `tower_step`, `apply`.

Source of the model: tensorflow/models, `tutorials/image/cifar10/cifar10.py` and
`cifar10_multi_gpu_train.py`.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else TensorFlow reports on the machine

import numpy as np
import safetensors.numpy
import tensorflow as tf

AVERAGE_SUFFIX = "/ExponentialMovingAverage"
MOVING_AVERAGE_DECAY = 0.9999
LEARNING_RATE_DECAY_FACTOR = 0.1
NUM_EPOCHS_PER_DECAY = 350.0
NUM_TRAINING_EXAMPLES = 50_000
RECORD_BYTES = 1 + 3 * 32 * 32
# Largest accepted error of a tensor, as a fraction of how far the tensor moved: see ../parity.md.
TOLERANCE = 5e-3


class Variable(NamedTuple):
    """One row of the model's table: it starts at `constant` plus a truncated normal of `stddev`."""

    shape: tuple
    stddev: float = 0.0
    constant: float = 0.0
    weight_decay: float = 0.0


VARIABLES = {
    "conv1/weights": Variable((5, 5, 3, 64), stddev=5e-2),
    "conv1/biases": Variable((64,), constant=0.0),
    "conv2/weights": Variable((5, 5, 64, 64), stddev=5e-2),
    "conv2/biases": Variable((64,), constant=0.1),
    "local3/weights": Variable((2304, 384), stddev=0.04, weight_decay=0.004),
    "local3/biases": Variable((384,), constant=0.1),
    "local4/weights": Variable((384, 192), stddev=0.04, weight_decay=0.004),
    "local4/biases": Variable((192,), constant=0.1),
    "softmax_linear/weights": Variable((192, 10), stddev=1 / 192.0),
    "softmax_linear/biases": Variable((10,), constant=0.0),
}


# The model ------------------------------------------------------------------------------------------


def lrn(x):
    return tf.nn.lrn(x, 4, bias=1.0, alpha=0.001 / 9.0, beta=0.75)


def max_pool(x):
    return tf.nn.max_pool2d(x, ksize=3, strides=2, padding="SAME")


def inference(variables, images, lrn=lrn):
    """The weighted sum of every layer, before its ReLU, by the layer's name.

    `images` is [N, 24, 24, 3], standardized. `softmax_linear` holds the logits, [N, 10]. Another
    `lrn` is for float64, for which TensorFlow has no kernel.
    """

    def conv(x, layer):
        weights, biases = variables[f"{layer}/weights"], variables[f"{layer}/biases"]
        return tf.nn.bias_add(tf.nn.conv2d(x, weights, strides=1, padding="SAME"), biases)

    def local(x, layer):
        return tf.matmul(x, variables[f"{layer}/weights"]) + variables[f"{layer}/biases"]

    relu = tf.nn.relu
    conv1 = conv(images, "conv1")
    norm1 = lrn(max_pool(relu(conv1)))
    conv2 = conv(norm1, "conv2")
    pool2 = max_pool(lrn(relu(conv2)))  # here the normalisation comes first
    local3 = local(tf.reshape(pool2, [-1, 6 * 6 * 64]), "local3")
    local4 = local(relu(local3), "local4")
    softmax_linear = local(relu(local4), "softmax_linear")
    return dict(conv1=conv1, conv2=conv2, local3=local3, local4=local4, softmax_linear=softmax_linear)


def losses(variables, logits, labels):
    """The terms of the total loss: the batch's mean cross entropy, and a weight loss per decayed variable."""
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    terms = {"cross_entropy": tf.reduce_mean(cross_entropy)}
    for name, spec in VARIABLES.items():
        if spec.weight_decay:
            terms[name] = spec.weight_decay * tf.nn.l2_loss(variables[name])
    return terms


@tf.function
def tower_step(variables, images, labels, lrn=lrn):
    """One tower's share of a step: logits, terms of the loss, total loss, and the gradient of each variable."""
    with tf.GradientTape() as tape:
        tape.watch(variables)
        logits = inference(variables, images, lrn)["softmax_linear"]
        terms = losses(variables, logits, labels)
        total_loss = tf.add_n(list(terms.values()))
    return logits, terms, total_loss, tape.gradient(total_loss, variables)


# Training -------------------------------------------------------------------------------------------


class State(NamedTuple):
    """What a step changes; variables and averages are tensors by the variable's name."""

    variables: dict
    averages: dict
    global_step: int


def learning_rate_at(global_step, initial, batch_size):
    """A staircase: the rate falls to a tenth every 350 epochs, counted in steps of one tower."""
    decay_steps = int(NUM_TRAINING_EXAMPLES / batch_size * NUM_EPOCHS_PER_DECAY)
    return initial * LEARNING_RATE_DECAY_FACTOR ** (global_step // decay_steps)


def apply(state, tower_gradients, learning_rate):
    """The state after one step: descent along the towers' mean gradient, then the moving averages."""
    variables, averages = {}, {}
    global_step = state.global_step + 1
    decay = min(MOVING_AVERAGE_DECAY, (1 + global_step) / (10 + global_step))
    for name in VARIABLES:
        mean = tf.add_n([gradients[name] for gradients in tower_gradients]) / len(tower_gradients)
        variables[name] = state.variables[name] - learning_rate * mean
        average = state.averages[name]
        averages[name] = average - (1 - decay) * (average - variables[name])
    return State(variables, averages, global_step)


# Data -----------------------------------------------------------------------------------------------


def read_records(data_dir, *names):
    """The records of the named files, u8 [N, 3073]: a label, then 32x32 bytes each of red, green and blue."""
    folder = Path(data_dir)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder /= "cifar-10-batches-bin"
    return np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, RECORD_BYTES) for name in names])


def decode(records):
    """Images f32 [N, 32, 32, 3] in 0..255 and labels i32 [N]."""
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return planes.transpose(0, 2, 3, 1).astype(np.float32), records[:, 0].astype(np.int32)


def plain(images):
    """Evaluation's input, and that of `--input plain`: the central 24x24 pixels, standardized."""
    return tf.image.per_image_standardization(tf.image.resize_with_crop_or_pad(images, 24, 24))


def plain_batch(records):
    images, labels = decode(records)
    return plain(images), labels


# Checkpoints ----------------------------------------------------------------------------------------


def save_checkpoint(path, state):
    tensors = {"global_step": np.array(state.global_step, np.int64)}
    for name in VARIABLES:
        tensors[name] = np.asarray(state.variables[name], np.float32)
        tensors[name + AVERAGE_SUFFIX] = np.asarray(state.averages[name], np.float32)
    safetensors.numpy.save_file(tensors, path)


def load_checkpoint(path):
    tensors = safetensors.numpy.load_file(path)
    for name, spec in VARIABLES.items():
        for each in (name, name + AVERAGE_SUFFIX):
            found = tensors[each].shape if each in tensors else "nothing"
            if found != spec.shape:
                sys.exit(f"{path}: {each} should be {spec.shape}, found {found}")
    variables = {name: tf.constant(tensors[name]) for name in VARIABLES}
    averages = {name: tf.constant(tensors[name + AVERAGE_SUFFIX]) for name in VARIABLES}
    return State(variables, averages, int(tensors["global_step"]))


# Commands -------------------------------------------------------------------------------------------


def init(args):
    rng = np.random.default_rng(args.seed)
    variables = {}
    for name, spec in VARIABLES.items():
        normal = rng.standard_normal(spec.shape)
        while (far := np.abs(normal) > 2).any():
            normal[far] = rng.standard_normal(far.sum())
        variables[name] = (spec.constant + spec.stddev * normal).astype(np.float32)
    save_checkpoint(args.out, State(variables, variables, global_step=0))


def train(args):
    records = read_records(args.data_dir, *(f"data_batch_{i}.bin" for i in range(1, 6)))
    state = load_checkpoint(args.init)
    for step in range(state.global_step, state.global_step + args.steps):
        total_losses, tower_gradients = [], []
        for tower in range(args.towers):
            first = (step * args.towers + tower) * args.batch_size
            positions = np.arange(first, first + args.batch_size) % len(records)
            _, _, total_loss, gradients = tower_step(state.variables, *plain_batch(records[positions]))
            total_losses.append(float(total_loss))
            tower_gradients.append(gradients)
        state = apply(state, tower_gradients, learning_rate_at(step, args.learning_rate, args.batch_size))
        print(f"step {step}, loss = {np.mean(total_losses):.6f}", flush=True)
    save_checkpoint(args.out, state)


def evaluate(args):
    records = read_records(args.data_dir, "test_batch.bin")
    state = load_checkpoint(args.checkpoint)
    variables = state.variables if args.raw else state.averages
    correct = 0
    for batch in np.array_split(records, 20):
        images, labels = plain_batch(batch)
        logits = inference(variables, images)["softmax_linear"]
        correct += int(np.sum(tf.math.in_top_k(labels, logits, k=1)))
    print(json.dumps({"examples": len(records), "correct": correct, "precision_at_1": correct / len(records)}))


def compare(args):
    start, ours, theirs = (load_checkpoint(path) for path in (args.init, args.ours, args.theirs))
    if ours.global_step != theirs.global_step:
        sys.exit(f"{args.ours} is at step {ours.global_step}, {args.theirs} at step {theirs.global_step}")

    print(f"{'tensor':<48}{'moved':>12}{'error/moved':>14}")
    errors = []
    for kind, suffix in (("variables", ""), ("averages", AVERAGE_SUFFIX)):
        for name in VARIABLES:
            a, b, c = (np.asarray(getattr(state, kind)[name], np.float64) for state in (start, ours, theirs))
            moved, error = np.linalg.norm(c - a), np.linalg.norm(b - c)
            errors.append(error / moved if error else 0.0)
            print(f"{name + suffix:<48}{moved:>12.4e}{errors[-1]:>14.2e}")
    worst = np.max(errors)
    print(f"median {np.median(errors):.2e}, worst {worst:.2e}, accepted below {TOLERANCE:.0e}")
    if not worst < TOLERANCE:  # so that NaN fails as well
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    p = commands.add_parser("init", help="write a checkpoint of initial variables")
    p.add_argument("out", metavar="OUT")
    p.add_argument("--seed", type=int, required=True)
    p.set_defaults(run=init)

    p = commands.add_parser("train", help="train some steps from a checkpoint")
    p.add_argument("init", metavar="INIT")
    p.add_argument("out", metavar="OUT")
    p.add_argument("--data-dir", required=True)
    p.add_argument("--towers", type=int, default=2)
    p.add_argument("--batch-size", type=int, default=128, help="examples per tower")
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--learning-rate", type=float, default=0.1)
    p.set_defaults(run=train)

    p = commands.add_parser("eval", help="count the correct test examples")
    p.add_argument("checkpoint", metavar="CKPT")
    p.add_argument("--data-dir", required=True)
    p.add_argument("--raw", action="store_true", help="by the variables, not their moving averages")
    p.set_defaults(run=evaluate)

    p = commands.add_parser("compare", help="compare two checkpoints trained from the same one")
    p.add_argument("init", metavar="INIT")
    p.add_argument("ours", metavar="OURS")
    p.add_argument("theirs", metavar="THEIRS")
    p.set_defaults(run=compare)

    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
