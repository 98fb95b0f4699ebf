//! What is where: the page, its files and pictures, its updates, the metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pserver_guard::gate::Gate;
use tokio::sync::{Semaphore, watch as signal};

use crate::page::host::{Names, is_asked_by_name};
use crate::page::watch::{PageCursor, Watch};
use crate::page::{Source, entry, metrics, stream};

/// Pages that may be open at a time: each has a connection.
const MAX_OPEN_PAGES: usize = 100;

const HTML: &str = include_str!("../../page/index.html");
const STYLE: &str = include_str!("../../page/style.css");
const ICON: &str = include_str!("../../page/icon.svg");
/// The script's parts, in the order of which one uses another.
const SCRIPT: &str = concat!(
    include_str!("../../page/format.js"),
    include_str!("../../page/draw.js"),
    include_str!("../../page/run.js"),
    include_str!("../../page/charts.js"),
    include_str!("../../page/lanes.js"),
    include_str!("../../page/panels.js"),
    include_str!("../../page/main.js"),
);

/// Everything comes from here, and nothing that a worker calls itself is ever run. Pictures of the run come in
/// its messages.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the routes share.
pub(crate) struct Site {
    pub(crate) source: Source,
    watch: Mutex<Watch>,
    /// Hears of every change, and whether it is the last.
    pub(crate) changes: signal::Receiver<bool>,
    open_pages: Arc<Semaphore>,
}

impl Site {
    pub(crate) fn new(source: Source, changes: signal::Receiver<bool>) -> Self {
        Site {
            watch: Mutex::new(Watch::new(&source.train_dir)),
            source,
            changes,
            open_pages: Arc::new(Semaphore::new(MAX_OPEN_PAGES)),
        }
    }

    /// Never held while something is waited for.
    pub(crate) fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_micros(&self) -> u64 {
        self.source
            .calendar
            .micros(tokio::time::Instant::now().into_std())
    }

    /// What a page has not been told yet, as JSON.
    pub(crate) fn message(&self, cursor: &mut PageCursor, is_last: bool) -> String {
        let mut watch = self.watch();
        let message = watch.message(cursor, self.now_micros(), is_last);
        serde_json::to_string(&message).expect("a message has no map with keys that JSON lacks")
    }
}

pub(crate) fn router(site: Arc<Site>, gate: Gate, names: Names) -> Router {
    Router::new()
        .route("/", get(|| typed("text/html; charset=utf-8", HTML)))
        .route(
            "/style.css",
            get(|| typed("text/css; charset=utf-8", STYLE)),
        )
        .route(
            "/page.js",
            get(|| typed("text/javascript; charset=utf-8", SCRIPT)),
        )
        .route("/icon.svg", get(|| typed("image/svg+xml", ICON)))
        .route("/run.json", get(run))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .layer(from_fn_with_state(gate, entry::may_look))
        // Whether the server is well is no secret.
        .route("/healthz", get(health))
        .layer(from_fn_with_state(names, is_asked_by_name))
        .layer(map_response(with_safe_headers))
        .with_state(site)
}

async fn typed(content_type: &'static str, body: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, content_type)], body).into_response()
}

async fn with_safe_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut set = |name, value| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(CACHE_CONTROL, "no-cache");
    response
}

async fn run(State(site): State<Arc<Site>>) -> Response {
    let text = site.message(&mut PageCursor::default(), false);
    typed("application/json", text).await
}

async fn events(State(site): State<Arc<Site>>) -> Response {
    match Arc::clone(&site.open_pages).try_acquire_owned() {
        Ok(place) => stream::events(site, place).into_response(),
        Err(_) => unavailable(format!(
            "{MAX_OPEN_PAGES} pages are open, which is all there may be"
        )),
    }
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let watch = site.watch();
    if !watch.has_read_all() {
        // Half of a ledger would show as a leap at the next scrape.
        return unavailable("the ledger is still being read".to_owned());
    }
    let traffic = site.source.traffic.as_deref();
    let text = metrics::text(&watch, traffic, site.now_micros());
    drop(watch);
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    match &site.watch().problem {
        None => "ok\n".into_response(),
        Some(problem) => unavailable(problem.clone()),
    }
}

async fn nothing(uri: Uri) -> Response {
    let why = format!("there is nothing at {}\n", uri.path());
    (StatusCode::NOT_FOUND, why).into_response()
}

fn unavailable(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}
