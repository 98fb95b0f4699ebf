//! Writes summaries into the train dir, on a thread of its own: histograms of millions of numbers and
//! pictures are nothing to have a worker wait for.
//!
//! A run is not ended because it cannot be looked at: when an event file or picture cannot be written,
//! that is said once, and no more summaries are made until the server is started again.
//!
//! Summaries cost the run nothing between them. At every hundredth step a commit hands its gradients and the state
//! before it over to this thread instead of using their memory again; mean, histograms and writing are done here. What
//! only a worker knows, activations and distorted images, is asked for with the work of tower 0, made of copies on a
//! thread of the worker and sent by a request of its own, once. Nothing depends on it: what is late, lost or cannot be
//! written is left out.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use pserver_cli::host::host_name;
use pserver_cli::priority::give_way;
use pserver_events::{EventFile, EventFileError, Image};
use pserver_run::{GlobalStep, Layout};
use pserver_state::Folder;
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::calendar::Calendar;
use crate::summaries::{Part, images, tower_values};

/// Summaries that may wait to be written. One holds the gradients of a step.
const MAX_WAITING: usize = 2;

/// The folder of the last images, in the train dir: `0.png`, `1.png` and `2.png`.
pub(crate) const IMAGES_FOLDER: &str = "images";

/// Hands summaries over to the thread that writes them.
#[derive(Debug)]
pub(crate) struct SummaryWriter {
    parts: SyncSender<Part>,
    finished: oneshot::Receiver<()>,
}

/// The thread has ended, because something could not be written; it has said what.
#[derive(Debug)]
pub(crate) struct Ended;

impl SummaryWriter {
    /// Starts the thread, which begins an event file in a train dir for a run that begins or goes on at
    /// `global_step`.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(crate) fn start(
        folder: &Folder,
        layout: Arc<Layout>,
        calendar: Calendar,
        global_step: GlobalStep,
    ) -> anyhow::Result<Self> {
        let (parts, received) = mpsc::sync_channel(MAX_WAITING);
        let (ended, finished) = oneshot::channel();
        let folder = folder.clone();
        let write = move || {
            give_way();
            if let Err(error) = write_all(&folder, &layout, calendar, global_step, &received) {
                error!(
                    "no more summaries for TensorBoard are written, training goes on: {error:#}"
                );
            }
            drop(received);
            let _ = ended.send(());
        };
        thread::Builder::new()
            .name("summaries".to_owned())
            .spawn(write)
            .context("cannot start the thread that writes summaries")?;
        Ok(SummaryWriter { parts, finished })
    }

    /// Has a part written, without waiting for it. Where the disk is so slow that others wait already,
    /// it is left out.
    ///
    /// # Errors
    ///
    /// [`Ended`].
    pub(crate) fn write(&self, part: Part) -> Result<(), Ended> {
        match self.parts.try_send(part) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                warn!("summaries are not written as fast as they come: leaves one out");
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => Err(Ended),
        }
    }

    /// Waits until all is written, for `patience` at most.
    pub(crate) async fn finish(self, patience: Duration) {
        drop(self.parts);
        if tokio::time::timeout(patience, self.finished).await.is_err() {
            warn!("the last summaries were not written in time");
        }
    }
}

fn write_all(
    folder: &Folder,
    layout: &Layout,
    calendar: Calendar,
    global_step: GlobalStep,
    parts: &Receiver<Part>,
) -> anyhow::Result<()> {
    let explain = |EventFileError { path, source }| EventFileError {
        path: folder.shown(&path),
        source,
    };
    let events = EventFile::create(folder.through(), calendar.since_1970, &host_name());
    let mut events = events.map_err(explain)?;
    let began = events.start_session(calendar.since_1970, global_step.0);
    began.map_err(explain)?;
    for part in parts {
        let (at, step, values) = match part {
            Part::Update(update) => {
                let (at, step) = (update.at, update.global_step());
                (at, step, update.into_values(layout))
            }
            Part::Tower(at, summary) => {
                let images = images(&summary);
                keep_images(folder, &images)?;
                (at, summary.summary_step, tower_values(&summary, &images))
            }
        };
        let at = Duration::from_micros(calendar.micros(at));
        events.write(at, step.0, values).map_err(explain)?;
        debug!(global_step = step.0, "summary is written");
    }
    Ok(())
}

/// Puts the images in the place of those before, each written beside its name and renamed.
fn keep_images(train_dir: &Folder, images: &[Image]) -> anyhow::Result<()> {
    let folder = &train_dir.join(IMAGES_FOLDER);
    let keep = |path: PathBuf, unfinished: PathBuf, image: &Image| {
        fs::create_dir_all(folder)?;
        fs::write(&unfinished, image.png())?;
        fs::rename(unfinished, path)
    };
    for (number, image) in images.iter().enumerate() {
        let path = folder.join(format!("{number}.png"));
        let unfinished = folder.join(format!(".{number}.png"));
        keep(path.clone(), unfinished, image)
            .with_context(|| format!("cannot write {}", train_dir.shown(&path).display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pserver_wire::messages::SUMMARY_IMAGE_BYTES;

    use super::*;
    use crate::fixtures::{calendar, some_time, tower_summary};

    fn start(folder: &Folder) -> SummaryWriter {
        let layout = Arc::new(Layout::example());
        SummaryWriter::start(folder, layout, calendar(1_700_000_000), GlobalStep(0)).unwrap()
    }

    fn part(color: u8) -> Part {
        let image = Bytes::from(vec![color; SUMMARY_IMAGE_BYTES]);
        let summary = tower_summary(100, vec![image; 3]);
        Part::Tower(some_time(), Box::new(summary))
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_was_handed_over_is_written_when_the_writer_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let writer = start(&Folder::open(folder.path()).unwrap());
        writer.write(part(1)).unwrap();
        writer.write(part(2)).unwrap();
        writer.finish(PATIENCE).await;
        let expected = Image::of_rgb(24, 24, &[2; SUMMARY_IMAGE_BYTES]);
        let images = folder.path().join(IMAGES_FOLDER);
        for name in ["0.png", "1.png", "2.png"] {
            assert_eq!(fs::read(images.join(name)).unwrap(), expected.png());
        }
        assert_eq!(fs::read_dir(&images).unwrap().count(), 3);
        let of_events = fs::read_dir(folder.path()).unwrap().find_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let is_events = name.starts_with("events.out.tfevents.1700000000.");
            is_events.then(|| entry.metadata().unwrap().len())
        });
        assert!(
            of_events.unwrap() > 2 * 1000,
            "two summaries: {of_events:?}"
        );
    }

    #[tokio::test]
    async fn a_disk_that_cannot_be_written_ends_the_summaries_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        fs::create_dir(&gone).unwrap();
        let train_dir = Folder::open(&gone).unwrap();
        fs::remove_dir(&gone).unwrap();
        let writer = start(&train_dir);
        let SummaryWriter { parts, finished } = writer;
        tokio::time::timeout(PATIENCE, finished)
            .await
            .unwrap()
            .unwrap();
        let (_, finished) = oneshot::channel();
        let writer = SummaryWriter { parts, finished };
        assert!(writer.write(part(1)).is_err());
    }
}
