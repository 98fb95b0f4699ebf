#![no_main]

cifar_fuzz_targets::target!(ledger::ledger_file);
