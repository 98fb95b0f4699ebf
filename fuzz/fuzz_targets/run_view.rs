#![no_main]

cifar_fuzz_targets::target!(run_view::run_view);
