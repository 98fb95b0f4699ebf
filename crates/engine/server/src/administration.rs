//! The verbs of `cifar-ps` that tell a running server what to do.

use anyhow::Context;
use pserver_cli::console;
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_guard::Credentials;
use pserver_run::Layout;
use pserver_wire::client::Client;
use pserver_wire::messages::Order;

use crate::args::ServerArgs;

/// Gives the server an order, and prints the step of the checkpoint that it has written.
///
/// # Errors
///
/// [`Exit::TryAgain`] if no server runs or it does not answer, [`Exit::Permanent`] if it refuses,
/// [`Exit::Usage`] if its address is none.
pub(crate) fn give(order: Order, args: &ServerArgs) -> Result<Exit, Failure> {
    let address = args.place.address().or_exit(Exit::TryAgain)?;
    let credentials = Credentials::new(&args.credentials()).or_exit(Exit::Permanent)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an event loop")?;
    let answer = runtime.block_on(async {
        let client = Client::new(&address, &Layout::default(), &credentials);
        let mut client = client.or_exit(Exit::Usage)?;
        client.administer(order).await.map_err(|error| {
            let exit = match error.is_transient() {
                true => Exit::TryAgain,
                false => Exit::Permanent,
            };
            let error = anyhow::Error::new(error);
            Failure::new(exit, error.context(format!("the server at {address}")))
        })
    });
    // The order was carried out, whether or not anybody reads of it.
    let _ = console::print(&format!("step {}\n", answer?))?;
    Ok(Exit::Complete)
}
