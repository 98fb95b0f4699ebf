#![no_main]

cifar_fuzz_targets::target!(records::data_folder);
