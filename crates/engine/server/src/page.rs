//! The live page of a run, its metrics and its pictures, over HTTP.
//!
//! The page is a reader of the train dir: one thread follows the ledger file, folds it into a `RunView` (`watch`), and
//! sends each open page what changed (`stream`), every five seconds. So the way of a commit knows nothing of it, and the
//! verb `view` is the same code on a run that is over. `metrics` are a fold of the same lines, which is why counters go on
//! where a killed server left them. Only the activity of the moment (`live`) and the bytes that travelled are asked of the
//! running server. `entry` lets in who may look, `host` refuses those who ask under the name of a web site, and `routes`
//! answers.
//!
//! `pictures` are what the model sees and has learnt. They are part of the messages, so that the last ones are there
//! when the server has left. Text reaches the page as text nodes only, and the policy it is sent with lets no other
//! script run. A page without TLS or tokens answers only under names that no web site can have (`page/host.rs`).

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use pserver_guard::Guard;
use pserver_guard::tls::Speaks;
use pserver_wire::messages::Status;
use pserver_wire::traffic::Traffic;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch as signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, warn};

use crate::calendar::Calendar;
use crate::date_header;
use crate::page::entry::{Connections, PagePeer};
use crate::page::host::Names;
use crate::page::routes::Site;

mod live;

mod entry;

mod host;

mod metrics;

mod pictures;

mod routes;

mod stream;

mod watch;

/// How often the ledger is looked at. Whatever changes makes a browser draw, perhaps on the cores that train.
const TICK: Duration = Duration::from_secs(5);

/// How long open pages may take to be told that the server leaves.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a page shows.
pub(crate) struct Source {
    /// Folder of the run.
    pub(crate) train_dir: PathBuf,
    /// The date, on the server's clock.
    pub(crate) calendar: Calendar,
    /// How the run stands, where its server is this process.
    pub(crate) status: Option<Box<dyn Fn() -> Status + Send + Sync>>,
    /// What travels to and from workers, where their server is this process.
    pub(crate) traffic: Option<Arc<Traffic>>,
}

/// A page that is being served.
pub(crate) struct Page {
    leave: oneshot::Sender<()>,
    left: oneshot::Receiver<()>,
}

impl Page {
    /// Serves the page on a thread of its own, to whom `guard` lets in: nothing that it does can hold the
    /// run up. `address` is where it was told to listen.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(crate) fn start(
        listener: std::net::TcpListener,
        address: &str,
        source: Source,
        guard: &Guard,
    ) -> anyhow::Result<Self> {
        let (tls, gate) = (guard.tls(Speaks::Http1), guard.gate().clone());
        let names = match guard.is_encrypted() || !gate.is_open() {
            true => Names::Any,
            false => Names::of_open_page(listener.local_addr()?, address),
        };
        let (changed, changes) = signal::channel(false);
        let site = Arc::new(Site::new(source, changes));
        let router = routes::router(Arc::clone(&site), gate, names);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the event loop of the page")?;
        let (leave, asked_to_leave) = oneshot::channel();
        let (leaving, left) = oneshot::channel();
        thread::Builder::new()
            .name("page".to_owned())
            .spawn(move || {
                date_header::make_first();
                let served = async {
                    let connections = Connections::to(TcpListener::from_std(listener)?, tls);
                    serve(connections, router, &site, &changed, asked_to_leave).await
                };
                if let Err(error) = runtime.block_on(served) {
                    error!("the page is not shown any more: {error:#}");
                }
                // Nobody may wait for it.
                let _ = leaving.send(());
            })
            .context("cannot start the thread of the page")?;
        Ok(Page { leave, left })
    }

    /// Shows open pages the end of the ledger, and takes leave of them.
    pub(crate) async fn finish(self) {
        // It may have ended before, and said so.
        let _ = self.leave.send(());
        if timeout(2 * FAREWELL, self.left).await.is_err() {
            warn!("the page does not end in time");
        }
    }
}

async fn serve(
    connections: Connections,
    router: Router,
    site: &Site,
    changed: &signal::Sender<bool>,
    asked_to_leave: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let router = router.into_make_service_with_connect_info::<PagePeer>();
    let mut changes = changed.subscribe();
    let is_over = async move {
        // That nobody can tell is an end, too.
        let _ = changes.wait_for(|is_over| *is_over).await;
    };
    let answering = axum::serve(connections, router).with_graceful_shutdown(is_over);
    let answering = tokio::spawn(answering.into_future());
    follow(site, changed, asked_to_leave).await;
    if let Ok(ended) = timeout(FAREWELL, answering).await {
        ended??;
    }
    Ok(())
}

/// Looks at the ledger again and again, and once more at the end.
async fn follow(
    site: &Site,
    changed: &signal::Sender<bool>,
    mut asked_to_leave: oneshot::Receiver<()>,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_over = false;
    while !is_over {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut asked_to_leave => is_over = true,
        }
        let before = site.watch().version;
        while site.watch().look(&site.source) {
            // A long ledger comes in pieces, and requests in between.
            tokio::task::yield_now().await;
        }
        if is_over || site.watch().version != before {
            changed.send_replace(is_over);
        }
    }
}
