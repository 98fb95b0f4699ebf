//! The next batch, ready before it is asked for.
//!
//! A worker that has executed tower `m` of step `t` is most likely given tower `m` of `t + 1`, so
//! that batch is prepared on a thread of its own while the model computes. A wrong guess costs
//! nothing but that thread's time: batches are pure, and one that is not there is made on the spot
//! with the same bits. The memory of a batch that was used goes back to the thread, for another.
//!
//! ```text
//! worker      take (4, 1)   compute . . . . . . . . . .   take (5, 1): there
//! thread                    (5, 1) prepared               (6, 1) prepared
//! ```

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::thread::{self, JoinHandle};

use pserver_cli::priority::give_way;
use pserver_run::{InputKind, SampleSequence, TowerStep};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::pipeline::{self, Batch};

/// Prepared batches that are kept, and requests that may wait. One of 128 examples takes 885 kB, so
/// this is 7 MB; a worker that executes up to this many towers in turn finds each prepared.
const MAX_PREPARED: usize = 8;

/// Makes the training batches of a run.
#[derive(Clone, Debug)]
pub struct TrainBatches {
    /// Where the examples are.
    pub dataset: Arc<Dataset>,
    /// Which examples a tower step takes.
    pub sequence: SampleSequence,
    /// How they are prepared.
    pub input: InputKind,
    /// The run's seed.
    pub seed: u64,
}

impl TrainBatches {
    /// Makes `batch` that of a tower step.
    ///
    /// # Panics
    ///
    /// If `sequence` is of a larger data set than `dataset`.
    pub fn prepare(&mut self, tower_step: TowerStep, batch: &mut Batch) {
        let samples = self.sequence.samples(tower_step);
        pipeline::train_batch(&self.dataset, self.input, self.seed, &samples, batch);
    }
}

/// Prepares batches ahead on a thread of its own, which ends when this is dropped.
pub struct Prefetcher {
    on_the_spot: TrainBatches,
    /// The oldest first; never more than [`MAX_PREPARED`].
    prepared: VecDeque<(TowerStep, Batch)>,
    /// The one that was taken last.
    taken: Batch,
    /// Batches that were used, to be overwritten.
    used: Vec<Batch>,
    thread: PrefetchThread,
}

impl Prefetcher {
    /// Starts the thread. Nothing is prepared before the first [`take`](Self::take).
    ///
    /// # Errors
    ///
    /// [`DataError::PrefetchStart`] if the system gives no thread.
    pub fn start(batches: TrainBatches) -> Result<Self, DataError> {
        let mut ahead = batches.clone();
        Ok(Prefetcher {
            on_the_spot: batches,
            prepared: VecDeque::new(),
            taken: Batch::empty(),
            used: Vec::new(),
            thread: PrefetchThread::start(move |tower_step, batch| {
                ahead.prepare(tower_step, batch);
            })?,
        })
    }

    /// The batch of `tower_step`, prepared ahead or made now; has the same tower of the next step
    /// prepared.
    ///
    /// Waits for nothing: where the thread is still at this very batch, making it here is done
    /// almost as soon.
    ///
    /// # Errors
    ///
    /// [`DataError::PrefetchPanic`] if the thread panicked.
    pub fn take(&mut self, tower_step: TowerStep) -> Result<&Batch, DataError> {
        self.collect_prepared()?;
        let kept = self.prepared.iter().position(|(of, _)| *of == tower_step);
        match kept.and_then(|index| self.prepared.remove(index)) {
            Some((_, batch)) => self.used.push(std::mem::replace(&mut self.taken, batch)),
            None => self.on_the_spot.prepare(tower_step, &mut self.taken),
        }
        let next = TowerStep {
            global_step: tower_step.global_step.next(),
            ..tower_step
        };
        let memory = self.used.pop().unwrap_or_else(Batch::empty);
        if let Some(memory) = self.thread.request(next, memory)? {
            self.used.push(memory);
        }
        Ok(&self.taken)
    }

    fn collect_prepared(&mut self) -> Result<(), DataError> {
        while let Some(prepared) = self.thread.next()? {
            if self.prepared.len() == MAX_PREPARED {
                let forgotten = self.prepared.pop_front();
                self.used.extend(forgotten.map(|(_, batch)| batch));
            }
            self.prepared.push_back(prepared);
        }
        Ok(())
    }
}

impl fmt::Debug for Prefetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefetcher")
            .field("prepared", &self.prepared)
            .finish_non_exhaustive()
    }
}

/// A thread that answers requests in order.
struct PrefetchThread {
    /// `None` once the thread was told to end, by closing it.
    requests: Option<SyncSender<(TowerStep, Batch)>>,
    /// Bounded by the requests: each is answered once.
    answers: Receiver<(TowerStep, Batch)>,
    handle: Option<JoinHandle<()>>,
}

impl PrefetchThread {
    fn start(
        mut prepare: impl FnMut(TowerStep, &mut Batch) + Send + 'static,
    ) -> Result<Self, DataError> {
        let (requests, requested) = mpsc::sync_channel::<(TowerStep, Batch)>(MAX_PREPARED);
        let (answer, answers) = mpsc::channel();
        let run = move || {
            // It has a whole step's time, and a step has moments in which its core is idle.
            give_way();
            for (tower_step, mut batch) in requested {
                prepare(tower_step, &mut batch);
                if answer.send((tower_step, batch)).is_err() {
                    return;
                }
            }
        };
        let handle = thread::Builder::new()
            .name("prefetch".to_owned())
            .spawn(run)
            .map_err(DataError::PrefetchStart)?;
        Ok(PrefetchThread {
            requests: Some(requests),
            answers,
            handle: Some(handle),
        })
    }

    /// Asks for a batch in this memory, unless so many are asked for that this one would come too late
    /// anyway: then the memory comes back.
    fn request(
        &mut self,
        tower_step: TowerStep,
        memory: Batch,
    ) -> Result<Option<Batch>, DataError> {
        match self
            .requests
            .as_ref()
            .map(|requests| requests.try_send((tower_step, memory)))
        {
            Some(Ok(())) => Ok(None),
            Some(Err(TrySendError::Full((_, memory)))) => Ok(Some(memory)),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(self.panic()),
        }
    }

    /// The next batch that is ready, if there is one.
    fn next(&mut self) -> Result<Option<(TowerStep, Batch)>, DataError> {
        match self.answers.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.panic()),
        }
    }

    /// Why the thread ended although its requests are open.
    fn panic(&mut self) -> DataError {
        let message = match self.handle.take().map(JoinHandle::join) {
            Some(Err(payload)) => message_of(&*payload),
            _ => "it ended before".to_owned(),
        };
        DataError::PrefetchPanic { message }
    }
}

/// The text of a panic.
fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

impl Drop for PrefetchThread {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(handle) = self.handle.take() {
            // A panic of the thread was or would have been reported by `take`.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pserver_run::{DataSet, GlobalStep, Tower};

    use super::*;
    use crate::obtain::WhenAbsent;

    fn batches() -> TrainBatches {
        let data_set: DataSet = "synthetic:50".parse().unwrap();
        let dataset = Dataset::open(data_set, "unused".as_ref(), &WhenAbsent::Fail).unwrap();
        TrainBatches {
            dataset: Arc::new(dataset),
            sequence: SampleSequence::new(5, 2, 16, 50, InputKind::Distorted),
            input: InputKind::Distorted,
            seed: 5,
        }
    }

    fn tower_step(step: u64, tower: u32) -> TowerStep {
        TowerStep {
            global_step: GlobalStep(step),
            tower: Tower(tower),
        }
    }

    #[test]
    fn a_batch_is_the_same_prepared_or_made_on_the_spot() {
        let mut prefetcher = Prefetcher::start(batches()).unwrap();
        let (mut on_the_spot, mut expected) = (batches(), Batch::empty());
        for (step, tower) in [
            (0, 0),
            (1, 0),
            (1, 1),
            (2, 1),
            (2, 0),
            (9, 0),
            (10, 0),
            (1, 0),
        ] {
            let tower_step = tower_step(step, tower);
            let batch = prefetcher.take(tower_step).unwrap();
            on_the_spot.prepare(tower_step, &mut expected);
            assert!(*batch == expected, "{tower_step}");
        }
    }

    #[test]
    fn the_next_step_of_a_tower_is_prepared() {
        let mut prefetcher = Prefetcher::start(batches()).unwrap();
        prefetcher.take(tower_step(3, 1)).unwrap();
        let patience = Duration::from_secs(60);
        let (prepared, _) = prefetcher.thread.answers.recv_timeout(patience).unwrap();
        assert_eq!(prepared, tower_step(4, 1));
    }

    #[test]
    fn only_so_many_batches_are_kept() {
        let mut prefetcher = Prefetcher::start(batches()).unwrap();
        for step in 0..100 {
            prefetcher.take(tower_step(2 * step, 0)).unwrap();
            assert!(prefetcher.prepared.len() <= MAX_PREPARED);
        }
    }

    #[test]
    fn a_panic_of_the_thread_is_an_error() {
        let mut prefetcher = Prefetcher::start(batches()).unwrap();
        prefetcher.thread = PrefetchThread::start(|_, _| panic!("no such example")).unwrap();
        // It lets others go before: on a busy machine it takes a while until it runs.
        let error = (0..60_000).find_map(|step| {
            thread::sleep(Duration::from_millis(1));
            prefetcher.take(tower_step(step, 0)).err()
        });
        let error = error.unwrap();
        assert!(
            error.to_string().ends_with("panicked: no such example"),
            "{error}"
        );
    }
}
