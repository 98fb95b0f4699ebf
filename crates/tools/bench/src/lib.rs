//! What this project costs and yields on this machine, beside what its peers do.
//!
//! Every measurement is one call of a program that prints one line of JSON: [`figures`]. Those of this
//! project are verbs of `cifar-bench` itself: [`machine`] is the measure of the machine, [`mod@apply`] the update alone, [`lone_worker`]
//! a worker without a server, [`training`] a server with its workers, [`transport`] a push and a pull
//! with nothing computed, [`load`] a server with up to many idle workers. [`spectators`] look at a run that is
//! measured, with a [`browser`]. The peers are the scripts below `bench/peers`.
//!
//! [`compare`] runs the [`rows`] of a comparison in turns, A B C A B C, because the machine's own speed
//! drifts by half over minutes, and [`report`] makes tables of the medians. [`statistics`], [`table`]
//! and the parsing in [`process_usage`] and [`ledger_window`] are pure.
//!
//! [`record`] measures nothing: it makes of a run's train dir a folder that shows the run.

pub mod figures;
pub mod statistics;
pub mod table;

pub mod ledger_window;
pub mod process_usage;
pub mod server_process;

pub mod browser;
pub mod spectators;

pub mod machine;

pub mod apply;

pub mod lone_worker;

pub mod training;

pub mod transport;

pub mod fake_worker;
pub mod load;
pub mod readers;

pub mod rows;

pub mod results;

pub mod compare;

pub mod hardware;
pub mod report;

pub mod curve_chart;
pub mod record;

pub mod program;

pub use program::main;
