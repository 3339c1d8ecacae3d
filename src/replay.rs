//! Recorded requests and their answers: what an answer says, wherever it came from, and where two first differ.

pub mod answer;
pub mod entry;

pub use answer::Answer;
pub use entry::Entry;
