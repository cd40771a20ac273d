//! What workers of one intent ask each other, inside of a session: one line of JSON, and what follows it.

use api::RESULT_FRAME_BYTES_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::Stop;

/// A part of a plan: 512 steps with their schemas and values.
pub(crate) const QUESTION_BYTES_MAX: usize = 16 << 20;

/// What fits into one frame beside its mark and tag.
pub(crate) const PIECE_BYTES: usize = RESULT_FRAME_BYTES_MAX - 64;

/// A frame with its length before it.
pub(crate) const FRAME_BYTES_MAX: usize = RESULT_FRAME_BYTES_MAX;

/// One task: a stage's part for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    /// The leader's number for this plan.
    pub(crate) plan: u128,
    pub(crate) stage: usize,
    pub(crate) at: usize,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Question {
    /// "This is your part": the plan follows.
    Plan { task: Task, tasks: usize },
    /// "Give me this partition of it". How rows are parted follows, if `head` says so.
    Read { task: Task, partition: usize, head: Head },
    /// "That was all; what could you not read?" Whoever is gone by then may have read less than all of it.
    End,
}

/// What is put on top of a stage, so that its rows reach who needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Head {
    Nothing,
    /// Every row to everybody.
    Broadcast {
        partitions: usize,
    },
    /// Each row to one of them.
    Parted,
}

/// How an answer ends: its last frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// Objects that could not be read.
    #[serde(default)]
    pub(crate) unreadable: u64,
    /// Why it is not all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) stopped: Option<Stop>,
}

/// A line of JSON, and what follows it.
pub(crate) fn written(line: &impl Serialize, rest: &[u8]) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("numbers and words are always JSON");
    bytes.push(b'\n');
    bytes.extend_from_slice(rest);
    bytes
}

/// The same, read.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((serde_json::from_slice(line).ok()?, rest.get(1..)?))
}
