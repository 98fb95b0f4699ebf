//! An evaluator as the server sees one: fetches checkpoints and tells scores, some of them made up.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use pserver_run::request::PULL_HOLD;
use pserver_run::{Confusion, EvalData, GlobalStep, Score, ScoredVariables};
use pserver_state::checkpoint;
use pserver_wire::client::Client;
use pserver_wire::messages::{CheckpointReply, CheckpointRequest, FollowerId};

use crate::dice::{Dice, Purpose};
use crate::model::layout;
use crate::wire;
use crate::world::Shared;

/// How long a request may go without an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Follows the run until it is told that there is nothing more.
pub(crate) async fn follow(shared: Rc<Shared>, number: u64) -> turmoil::Result {
    let mut follower = FakeFollower {
        dice: Dice::new(shared.plan.seed, Purpose::Follower, number, 0),
        client: wire::client(),
        id: FollowerId(number),
        newest: None,
        shared,
    };
    while !follower.fetch().await {
        let scoring = follower.dice.millis(0, 300);
        tokio::time::sleep(scoring).await;
    }
    Ok(())
}

struct FakeFollower {
    shared: Rc<Shared>,
    client: Client,
    dice: Dice,
    id: FollowerId,
    /// Step of the newest checkpoint that it has.
    newest: Option<GlobalStep>,
}

impl FakeFollower {
    /// Asks once for a newer checkpoint, and tells its score; whether the run is over.
    async fn fetch(&mut self) -> bool {
        let request = CheckpointRequest {
            follower: self.id,
            newer_than: self.newest,
        };
        let asked = self.client.checkpoint(request);
        let Ok(Ok(reply)) = tokio::time::timeout(PULL_HOLD + PATIENCE, asked).await else {
            return false;
        };
        match reply {
            CheckpointReply::Wait => false,
            CheckpointReply::Goodbye(goodbye) => {
                let mut history = self.shared.history.borrow_mut();
                history.goodbye(goodbye);
                let last = history.reference().last_step();
                if self.newest != Some(last) {
                    history.violate(format!(
                        "a follower that has {:?} is told that there is nothing newer",
                        self.newest
                    ));
                }
                true
            }
            CheckpointReply::Checkpoint { global_step, file } => {
                self.take(global_step, &file);
                self.tell(global_step, 1).await;
                if self.shared.plan.habits.make_up_scores {
                    for num_examples in 2..20 {
                        let step = GlobalStep(self.dice.between(0, global_step.0));
                        self.tell(step, num_examples).await;
                    }
                }
                false
            }
        }
    }

    /// Looks at a checkpoint.
    fn take(&mut self, step: GlobalStep, file: &[u8]) {
        let mut history = self.shared.history.borrow_mut();
        history.totals.fetched += 1;
        if Some(step) <= self.newest {
            let had = self.newest;
            history.violate(format!("a follower that has {had:?} gets step {step}"));
        }
        self.newest = Some(step);
        let known = history.reference().at(step).map(|known| known.digest);
        match checkpoint::load_bytes(Path::new("checkpoint"), file, &layout()) {
            Ok(found) if Some(found.state.digest()) == known => {}
            Ok(_) => history.violate(format!("the checkpoint of step {step} has other bits")),
            Err(error) => history.violate(format!("the checkpoint of step {step}: {error}")),
        }
    }

    /// Tells a score of so many examples, once: it may get lost.
    async fn tell(&mut self, global_step: GlobalStep, num_examples: u64) {
        let mut confusion = Confusion::default();
        for _ in 0..num_examples {
            confusion.note(3, 3);
        }
        let score = Score {
            global_step,
            eval_data: EvalData::Test,
            variables: ScoredVariables::Averages,
            confusion,
        };
        let told = self.client.report_score(self.id, &score);
        // That it is not kept is no answer, and that the server has gone is no fault.
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }
}
