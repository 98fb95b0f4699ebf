"""A peer of the bench: the same model trained by TensorFlow's own parameter server over gRPC.

    python tf_ps.py [--mode sync|async] [--workers 2] [--seconds 20]

Starts one parameter server and the workers as processes of this script, each with one thread for
arithmetic. In synchronous mode SyncReplicasOptimizer takes the mean over all workers, as the tutorial's
distributed version did. The model, its weight decay and the moving averages are the tutorial's; the input is
one made-up batch, used again and again.

Prints one line of JSON; examples_per_sec counts the examples of all workers, by the global step.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time

BATCH_SIZE = 128
LEARNING_RATE = 0.1
MOVING_AVERAGE_DECAY = 0.9999
# Until every worker has its session and runs at its usual pace.
WARM_UP_SECONDS = 15.0
# What starting TensorFlow may take, besides.
START_SECONDS = 120.0


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["sync", "async"], default="sync")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--job", choices=["ps", "worker"], help="set by the script itself, as are the next two")
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--ports", type=lambda text: [int(port) for port in text.split(",")])
    return parser.parse_args()


def start_all(args):
    """Starts the server and the workers, waits for the first worker, and ends the others."""
    # Asked to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    ports = ",".join(str(port) for port in free_ports(1 + args.workers))
    common = ["--mode", args.mode, "--workers", str(args.workers), "--seconds", str(args.seconds), "--ports", ports]
    jobs = [("ps", 0)] + [("worker", index) for index in range(args.workers)]
    processes = [
        subprocess.Popen([sys.executable, __file__, *common, "--job", job, "--index", str(index)])
        for job, index in jobs
    ]
    try:
        first_worker = processes[1]
        return first_worker.wait(timeout=args.seconds + WARM_UP_SECONDS + START_SECONDS)
    finally:
        for process in processes:
            process.kill()


def free_ports(count):
    """Ports that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def weights(v1, shape, stddev):
    return v1.get_variable("weights", shape, initializer=v1.truncated_normal_initializer(stddev=stddev))


def biases(v1, size, value):
    return v1.get_variable("biases", [size], initializer=v1.constant_initializer(value))


def total_loss(tf, np):
    """The tutorial's network on one made-up batch, and its loss with weight decay."""
    v1 = tf.compat.v1
    random = np.random.default_rng(1)
    images = tf.constant(random.standard_normal((BATCH_SIZE, 24, 24, 3), dtype=np.float32))
    labels = tf.constant(random.integers(0, 10, BATCH_SIZE))
    decay = []

    def convolution(name, x, channels_in, bias):
        with v1.variable_scope(name):
            kernel = weights(v1, [5, 5, channels_in, 64], 5e-2)
            x = tf.nn.conv2d(x, kernel, strides=1, padding="SAME")
            return tf.nn.relu(tf.nn.bias_add(x, biases(v1, 64, bias)))

    def local(name, x, size_in, size):
        with v1.variable_scope(name):
            matrix = weights(v1, [size_in, size], 0.04)
            decay.append(0.004 * tf.nn.l2_loss(matrix))
            return tf.nn.relu(tf.matmul(x, matrix) + biases(v1, size, 0.1))

    def pool(x):
        return tf.nn.max_pool2d(x, ksize=3, strides=2, padding="SAME")

    def norm(x):
        return tf.nn.lrn(x, 4, bias=1.0, alpha=0.001 / 9.0, beta=0.75)

    x = norm(pool(convolution("conv1", images, 3, 0.0)))
    x = pool(norm(convolution("conv2", x, 64, 0.1)))
    x = tf.reshape(x, [BATCH_SIZE, 6 * 6 * 64])
    x = local("local4", local("local3", x, 2304, 384), 384, 192)
    with v1.variable_scope("softmax_linear"):
        logits = tf.matmul(x, weights(v1, [192, 10], 1 / 192.0)) + biases(v1, 10, 0.0)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.add_n([tf.reduce_mean(cross_entropy), *decay])


def run_job(args):
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    import numpy as np
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_eager_execution()
    addresses = [f"127.0.0.1:{port}" for port in args.ports]
    cluster = tf.train.ClusterSpec({"ps": addresses[:1], "worker": addresses[1:]})
    config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=2)
    server = tf.distribute.Server(cluster, job_name=args.job, task_index=args.index, config=config)
    if args.job == "ps":
        server.join()
    train(tf, np, args, cluster, server, config)


def train(tf, np, args, cluster, server, config):
    v1 = tf.compat.v1
    is_chief = args.index == 0
    hooks = []
    with v1.device(v1.train.replica_device_setter(worker_device=f"/job:worker/task:{args.index}", cluster=cluster)):
        global_step = v1.train.get_or_create_global_step()
        optimizer = v1.train.GradientDescentOptimizer(LEARNING_RATE)
        if args.mode == "sync":
            optimizer = v1.train.SyncReplicasOptimizer(
                optimizer, replicas_to_aggregate=args.workers, total_num_replicas=args.workers
            )
            hooks.append(optimizer.make_session_run_hook(is_chief))
        applied = optimizer.minimize(total_loss(tf, np), global_step=global_step)
        averages = tf.train.ExponentialMovingAverage(MOVING_AVERAGE_DECAY, global_step)
        with tf.control_dependencies([applied]):
            step = averages.apply(v1.trainable_variables())

    with v1.train.MonitoredTrainingSession(
        master=server.target, is_chief=is_chief, hooks=hooks, config=config
    ) as session:
        run_for(session, step, WARM_UP_SECONDS)
        before = session.run(global_step)
        elapsed = run_for(session, step, args.seconds)
        steps = int(session.run(global_step) - before)
        if is_chief:
            report(args, steps, elapsed)
            # A synchronous session that is closed waits for the other workers, for ever.
            os._exit(0)
        # The script that started this process ends it once the first worker is done.
        run_for(session, step, START_SECONDS)


def run_for(session, step, seconds):
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        session.run(step)
    return time.perf_counter() - start


def report(args, steps, elapsed):
    # A synchronous step takes a batch of every worker, an asynchronous one a batch of one.
    batches = steps * (args.workers if args.mode == "sync" else 1)
    result = {
        "examples_per_sec": BATCH_SIZE * batches / elapsed,
        "step_ms": 1000.0 * elapsed / steps,
        "steps": steps,
    }
    print(json.dumps(result), flush=True)


def main():
    args = parse_args()
    if args.job is None:
        sys.exit(start_all(args))
    run_job(args)


if __name__ == "__main__":
    main()
