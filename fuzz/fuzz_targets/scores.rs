#![no_main]

cifar_fuzz_targets::target!(ledger::scores);
