#![no_main]

cifar_fuzz_targets::target!(wire_request::wire_request);
