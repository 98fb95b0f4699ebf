#![no_main]

cifar_fuzz_targets::target!(wire_reply::wire_reply);
