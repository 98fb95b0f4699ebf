//! CIFAR-10 bytes to batches.
