//! What changes, sent to each open page as it comes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, watch as signal};

use crate::page::routes::Site;
use crate::page::watch::PageCursor;

/// A stream on which nothing happens shows that it is alive this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// One open page.
struct OpenPage {
    site: Arc<Site>,
    changes: signal::Receiver<bool>,
    cursor: PageCursor,
    is_over: bool,
    /// Its place among the open pages.
    _place: OwnedSemaphorePermit,
}

/// The events of one page: everything first, then what changes, until the server leaves.
pub(crate) fn events(
    site: Arc<Site>,
    place: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut changes = site.changes.clone();
    // The page knows nothing yet.
    changes.mark_changed();
    let page = OpenPage {
        changes,
        site,
        cursor: PageCursor::default(),
        is_over: false,
        _place: place,
    };
    Sse::new(stream::unfold(page, next)).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE))
}

async fn next(mut page: OpenPage) -> Option<(Result<Event, Infallible>, OpenPage)> {
    if page.is_over {
        return None;
    }
    // That nobody can tell is an end, too.
    page.changes.changed().await.ok()?;
    page.is_over = *page.changes.borrow_and_update();
    let text = page.site.message(&mut page.cursor, page.is_over);
    Some((Ok(Event::default().data(text)), page))
}
