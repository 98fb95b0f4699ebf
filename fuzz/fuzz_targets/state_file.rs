#![no_main]

cifar_fuzz_targets::target!(state_file::state_file);
