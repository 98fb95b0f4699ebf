#![no_main]

cifar_fuzz_targets::target!(wire_push::wire_push);
