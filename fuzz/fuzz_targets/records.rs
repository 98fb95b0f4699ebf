#![no_main]

cifar_fuzz_targets::target!(records::records);
