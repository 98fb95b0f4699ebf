//! The state file.

use std::fs;

use pserver_run::GlobalStep;
use pserver_state::{StateFile, StateReader, Stored, TrainingState, Values, shared_path};

use crate::checkpoint::layout;
use crate::pieces::pieces;
use crate::scratch;

/// Room for a note in the file.
const MAX_NOTE_BYTES: usize = 100;

/// Changes to a state file that holds two states: the length it is cut to, then pieces, each after its place;
/// lengths and places are little-endian in two bytes.
///
/// What is read is a state that is whole.
pub fn state_file(bytes: &[u8]) {
    let folder = scratch::folder();
    let path = folder.path().join("state");
    let layout = layout();
    let mut file = StateFile::create(&path, &layout, MAX_NOTE_BYTES, &stored(1))
        .expect("a state file can be made");
    commit(&mut file, &stored(2));
    drop(file);
    let mut text = fs::read(&path).expect("it was written");
    change(&mut text, bytes);
    fs::write(&path, &text).expect("a file can be written");

    let offered = fs::File::open(&path).expect("it is there");
    if let Ok(reader) = StateReader::open(&shared_path(&offered), &layout) {
        let mut variables = Values::zeros(layout.num_values());
        for (sequence, stored) in [(1, stored(1)), (2, stored(2))] {
            // Any answer will do but a panic: the digest of what was read is its reader's to take.
            let _ = reader.read_variables(sequence, stored.digest, &mut variables);
        }
    }
    if let Ok(Some(found)) = StateFile::read(&path, &layout) {
        assert_eq!(found.state.digest(), found.digest);
        assert!(found.note.len() <= text.len());
    }
}

fn commit(file: &mut StateFile, stored: &Stored) {
    let mut next = file.begin().expect("there is room");
    next.state.global_step = stored.state.global_step;
    next.state
        .variables
        .copy_from_slice(&stored.state.variables);
    next.state.averages.copy_from_slice(&stored.state.averages);
    file.write(&next, stored.digest, &stored.note)
        .and_then(|()| file.flip())
        .expect("a state can be written");
}

fn stored(step: u64) -> Stored {
    let numbers: Vec<f32> = (0..9).map(|index| (step * 10 + index) as f32).collect();
    let mut state = TrainingState::initial(Values::from(numbers.as_slice()));
    state.global_step = GlobalStep(step);
    Stored {
        digest: state.digest(),
        state,
        note: format!("note {step}").into_bytes(),
    }
}

/// Cuts the file to a length and puts pieces at places in it.
fn change(text: &mut Vec<u8>, changes: &[u8]) {
    let Some((length, changes)) = changes.split_first_chunk() else {
        return;
    };
    text.truncate(usize::from(u16::from_le_bytes(*length)));
    for change in pieces(changes) {
        if let Some((place, piece)) = change.split_first_chunk() {
            let place = usize::from(u16::from_le_bytes(*place));
            let replaced = text.iter_mut().skip(place).zip(piece);
            replaced.for_each(|(byte, new)| *byte = *new);
        }
    }
}
