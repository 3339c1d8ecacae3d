//! From waiting to running: which sequence a job gets, and how much of its prompt is there already.

use std::cmp::Reverse;

use super::{Worker, keep::WORTH_KEEPING};
use crate::engine::{
    Failed, Hold, Job, Submitted, Token,
    lookup::Lookup,
    media,
    model::{Model, Vocab},
    prefix::{Cuts, common},
    slot::Follow,
};

/// So much more of a prompt must be on its way in another sequence to be worth waiting for.
const WORTH_WAITING: usize = 32;
/// A first turn that ends before this many tokens is computed sooner than taken up.
const FIRST_TURN: usize = 64;

/// Where a beginning of a prompt lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Nowhere,
    Slot(usize),
    Stored(usize),
}

/// The best beginning there is, and a better one that is being computed.
#[derive(Debug)]
struct Found {
    source: Source,
    reach: usize,
    follow: Option<Follow>,
}

impl<M: Model> Worker<M> {
    /// Gives a free sequence, of which there is one, to the job.
    pub(super) fn admit(&mut self, submitted: Submitted) {
        let job = &submitted.job;
        let mut sampling = job.sampling.clone();
        if job.ignore_eos {
            let forbidden = self.eog.iter().map(|&token| (token, f32::NEG_INFINITY));
            sampling.logit_bias.extend(forbidden);
        }
        if job.min_tokens > 0 {
            let ends = self.eog.iter().chain(&job.stop_tokens);
            sampling.hold = Some(Hold {
                tokens: ends.copied().collect(),
                choices: job.min_tokens,
            });
        }
        let mut sampler = match self.model.sampler(&sampling, job.grammar.as_ref()) {
            Ok(sampler) => sampler,
            Err(why) => return submitted.reply.end(Err(Failed::Unacceptable(why))),
        };
        if sampling.looks_back() {
            for &token in job
                .prompt
                .iter()
                .filter(|token| !media::is_placeholder(**token))
            {
                self.model.observe(&mut sampler, token);
            }
        }
        self.admissions += 1;
        let admission = self.admissions;
        let found = self.seek(job, admission);
        let Some(at) = self.place(&found) else {
            let why = "no sequence is free".into();
            return submitted.reply.end(Err(Failed::Decode(why)));
        };
        self.bring(found.source, found.reach, at);
        self.slots[at].start(submitted, sampler, admission);
        self.settle(at, found.follow);
    }

    /// Where most of the job's prompt is, or will be.
    fn seek(&self, job: &Job, admission: u64) -> Found {
        let (cuts, owner) = (self.cuts(), job.owner());
        let mut found = Found {
            source: Source::Nowhere,
            reach: 0,
            follow: None,
        };
        for (at, slot) in self.slots.iter().enumerate() {
            let reach = slot.prefix.reach(owner, &job.prompt, cuts);
            // Of equals one that is free: there it can stay where it is.
            let better = match found.source {
                Source::Slot(other) if reach == found.reach => {
                    self.slots[other].active.is_some() && slot.active.is_none()
                }
                _ => reach > found.reach,
            };
            if better {
                found.source = Source::Slot(at);
                found.reach = reach;
            }
        }
        if let Some((at, reach)) = self.store.find(owner, &job.prompt, cuts)
            && reach > found.reach
        {
            found.source = Source::Stored(at);
            found.reach = reach;
        }
        found.follow = self.leader(job, admission, cuts, found.reach + WORTH_WAITING);
        found
    }

    /// An older job that computes at least `least` tokens of the same beginning just now.
    fn leader(&self, job: &Job, admission: u64, cuts: Cuts, least: usize) -> Option<Follow> {
        let owner = Some(job.owner()?);
        let own = &job.prompt[..job.prompt.len() - 1];
        let candidates = self.slots.iter().enumerate().filter_map(|(slot, leader)| {
            let active = leader.active.as_ref()?;
            // Only older ones: nobody waits for somebody who waits for him.
            if leader.admission >= admission || active.job.owner() != owner {
                return None;
            }
            let prompt = &active.job.prompt;
            let common = common(prompt, own);
            let common = media::whole(prompt, common - common % cuts.grid);
            if !common.is_multiple_of(cuts.grid) {
                return None; // an image lies over the line of the grid
            }
            let ahead = common > leader.computed();
            (ahead && common >= least).then_some(Follow {
                slot,
                admission: leader.admission,
                common,
            })
        });
        candidates.max_by_key(|follow| (follow.common, self.slots[follow.slot].computed()))
    }

    /// The free sequence that suits best: the one that holds the prompt's beginning if little else is lost by that,
    /// then an empty one, then one beside those that run, then the longest unused.
    fn place(&self, found: &Found) -> Option<usize> {
        let free = |at: usize| self.slots.get(at).is_some_and(|slot| slot.active.is_none());
        let mut home = None;
        if let Source::Slot(at) = found.source
            && free(at)
        {
            home = Some(at);
            if found.reach + WORTH_KEEPING >= self.slots[at].computed() {
                return home;
            }
        }
        let best = (0..self.slots.len())
            .filter(|&at| free(at))
            .max_by_key(|&at| {
                let slot = &self.slots[at];
                let runs = |at: usize| self.slots.get(at).is_some_and(|slot| slot.active.is_some());
                // llama.cpp computes sequences together whose numbers follow each other.
                let beside = runs(at + 1) || at.checked_sub(1).is_some_and(runs);
                let last_used = slot.last_used();
                (last_used.is_none(), beside, Reverse((last_used, at)))
            })?;
        match home {
            Some(home) if self.slots[best].computed() > 0 => Some(home),
            _ => Some(best),
        }
    }

    /// The job follows its leader, or begins to compute.
    fn settle(&mut self, at: usize, follow: Option<Follow>) {
        let cuts = self.cuts();
        if let Some(follow) = follow
            && !cuts.anywhere
            && let Some(leader) = &mut self.slots[follow.slot].active
        {
            // The leader's state can be had at that place only if a step ends there.
            let place = leader
                .borders
                .partition_point(|&border| border < follow.common);
            leader.borders.insert(place, follow.common);
        }
        let computed = self.slots[at].computed();
        let guesses = self.model.takes_back() > 0 && cuts.grid == 1;
        let drafts = guesses && self.drafting && self.model.drafter().is_some();
        let lookup = self.tuning.lookup;
        let every = self.tuning.checkpoint_every;
        let vocab = self.model.vocab();
        let slot = &mut self.slots[at];
        let Some(active) = &mut slot.active else {
            return;
        };
        active.follows = follow;
        if active.borders.is_empty() && !cuts.anywhere && cuts.grid == 1 {
            active.borders = borders(&active.job.prompt, vocab, every);
            active.borders.retain(|&border| border > computed);
        }
        let guesses = guesses && (lookup || !active.job.prediction.is_empty());
        if guesses && active.lookup.is_none() {
            active.lookup = Some(Lookup::new(&active.job.prediction, &active.tokens));
        }
        // A drafter knows nothing of images.
        if drafts && active.job.media.is_empty() {
            active.drafted.get_or_insert_default();
        }
        if follow.is_none()
            && let Some((cached, prompt)) = slot.begin()
        {
            self.done.cached_tokens += cached as u64;
            self.done.prompt_tokens += prompt as u64;
        }
    }

    /// Those who wait for a beginning take it over once it is there, or look again if it never will be.
    pub(super) fn catch_up(&mut self) {
        // Many may wait for the same one.
        let mut taken = None;
        for at in 0..self.slots.len() {
            let Some(active) = &self.slots[at].active else {
                continue;
            };
            let Some(follow) = active.follows else {
                continue;
            };
            let leader = &self.slots[follow.slot];
            let same = leader.admission == follow.admission;
            let (owner, prompt) = (active.job.owner(), &active.job.prompt);
            let reach = leader.prefix.reach(owner, prompt, self.cuts());
            if same && reach >= follow.common {
                let source = Source::Slot(follow.slot);
                if self.copy(source, at, reach) {
                    self.settle(at, None);
                    continue;
                }
                if taken.as_ref().is_none_or(|(from, _)| *from != source) {
                    taken = self.state_of(source).map(|state| (source, state));
                }
                if let Some((_, state)) = &taken {
                    self.put(at, state, reach);
                }
                self.settle(at, None);
            } else if !same || leader.active.is_none() || leader.computed() >= follow.common {
                let (job, admission) = (active.job.clone(), self.slots[at].admission);
                let found = self.seek(&job, admission);
                if found.reach > self.slots[at].computed() {
                    self.take_over(found.source, found.reach, at);
                }
                self.settle(at, found.follow);
            }
        }
    }
}

/// Places of a prompt where other prompts may go another way: after the first turn, which is often an instruction that many
/// share, where the last turn begins, and every so many tokens. Each costs a copy of the state.
fn borders(prompt: &[Token], vocab: &dyn Vocab, every: usize) -> Vec<usize> {
    let mut borders: Vec<usize> = Vec::new();
    let mut last_turn = None;
    for (at, &token) in prompt.iter().enumerate().skip(1) {
        let turn = vocab.is_control(token);
        let first_turn = turn && last_turn.is_none_or(|last| last < FIRST_TURN) && at >= FIRST_TURN;
        if turn {
            last_turn = Some(at);
        }
        let since = at - borders.last().copied().unwrap_or(0);
        if first_turn || since >= every && media::whole(prompt, at) == at {
            borders.push(at);
        }
    }
    // The beginning of the answer: the next turn's history may tell it otherwise, without its thoughts.
    if let Some(last) = last_turn
        && !borders.contains(&last)
    {
        let place = borders.partition_point(|&border| border < last);
        borders.insert(place, last);
    }
    borders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{FakeVocab, TOOL};

    #[test]
    fn borders_lie_after_the_first_turn_before_the_last_and_not_too_far_apart() {
        let mut prompt = vec![1; 400];
        for at in [10, 100, 200, 390] {
            prompt[at] = TOOL;
        }
        assert_eq!(borders(&prompt, &FakeVocab, 1000), [100, 390]);
        assert_eq!(borders(&prompt, &FakeVocab, 128), [100, 228, 356, 390]);
        assert_eq!(borders(&[1, 2], &FakeVocab, 128), [] as [usize; 0]);
    }
}
