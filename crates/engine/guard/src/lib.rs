//! Who may connect to a server, and what they may do there. Knows nothing of runs.
//!
//! [`args`] are the flags, and an [`address`] is the value of some. From the server's comes a [`guard`]: [`reach`] says where it may listen at all,
//! [`admission`] takes connections in, as many as the [`door`] lets wait and enter, over [`tls`] where that
//! is asked for; what a peer may do follows from its certificate ([`identity`]) and its [`token`], and is a
//! [`role`], which the [`gate`] compares with what is needed. From a client's flags come [`credentials`]
//! for each [`connection`] and request. Files that flags name ([`flag_file`]) are read again when they change ([`watched`]). All numbers are
//! in [`limits`], and [`rate`] says what is too often.

pub mod args;

pub mod address;

pub mod guard;

pub mod reach;

pub mod limits;

pub mod rate;

pub mod door;

pub mod admission;

pub mod flag_file;

pub mod watched;

mod secret_file;

pub mod tls;

mod validity;

pub mod identity;

pub mod token;

pub mod role;

pub mod gate;

pub mod credentials;

pub mod connection;

pub mod error;

pub use credentials::Credentials;
pub use error::GuardError;
pub use guard::Guard;
