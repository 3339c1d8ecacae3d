//! Which experts of layers on GPUs stay in host memory.

use super::{
    Class, Draft, Gauge, LoadError, Moved, Problem, ROUNDS, Solution,
    estimate::{Lesson, Sizes},
    layout,
};

/// Tensors of a layer's experts that move together, with their bytes.
type Group<'a> = (&'a str, u64);

impl Problem<'_> {
    /// Puts as many expert groups on the GPUs as fit: whole layers first, then parts of one. What comes back does not fit
    /// if even all experts in host memory are too few.
    pub(super) fn fill(
        &self,
        gauge: &mut dyn Gauge,
        full: &Solution,
        mut lesson: Lesson,
    ) -> Result<(Solution, Lesson), LoadError> {
        let none = self.sizes(&self.all_moved());
        let mut draft = full.draft();
        let mut tried = vec![draft.clone()];
        let (mut best, mut last): (Option<Solution>, _) = (None, full.clone());
        for _ in 0..ROUNDS {
            draft.split = self.split_to_fill(&lesson, &none, &draft);
            draft.moved = self.kept_out(&lesson, &none, &draft);
            if draft.moved == full.moved {
                // All of it on GPUs does not fit, because then they work on several steps at once: see how little is enough.
                draft.moved = self.least_out(&draft);
            }
            if tried.contains(&draft) {
                break;
            }
            tried.push(draft.clone());
            last = self.attempt(gauge, draft.clone())?;
            lesson = self.learn(&lesson, &last);
            let more = |best: &Solution| self.bytes(&last.moved) < self.bytes(&best.moved);
            if self.gpus_fit(&last) && best.as_ref().is_none_or(more) {
                best = Some(last.clone());
            }
        }
        Ok((best.unwrap_or(last), lesson))
    }

    /// Layers of each GPU: alike full with their experts, or if that is too much for one, without.
    fn split_to_fill(&self, lesson: &Lesson, none: &Sizes, draft: &Draft) -> Vec<f32> {
        let mut all = self.sizes(&Moved::default());
        all.hosted = none.hosted;
        let split = self.shares(lesson, &all, draft.gpu_layers);
        let with = Draft {
            split,
            ..draft.clone()
        };
        if self.expected_fit(lesson, none, &with) {
            with.split
        } else {
            self.shares(lesson, none, draft.gpu_layers)
        }
    }

    /// What is expected to have no room beside the rest of `draft`; `none`: sizes without any experts.
    fn kept_out(&self, lesson: &Lesson, none: &Sizes, draft: &Draft) -> Moved {
        let devices = layout::layer_devices(self.header.layers, &self.settings(draft));
        let rooms = self.expected_left(lesson, none, draft);
        let pack = |spared: i64| {
            let mut moved = Moved::default();
            for (gpu, room) in rooms.iter().enumerate() {
                let room = if gpu == 0 { room + spared } else { *room };
                let layers: Vec<_> = (0..self.header.layers)
                    .filter(|layer| devices[*layer as usize] == Some(gpu))
                    .map(|layer| (layer, self.experts_of(layer)))
                    .collect();
                pack(layers, room.max(0).unsigned_abs(), &mut moved);
            }
            moved
        };
        let careful = pack(0);
        // When the largest tensor is among those that fit, less staging is needed than `rooms` allows for.
        let staged = |moved: &Moved| self.sizes(moved).hosted;
        let spared = super::signed(none.hosted.saturating_sub(staged(&careful)));
        let bold = pack(spared);
        if self.expected_fit(lesson, &self.sizes(&bold), draft) {
            bold
        } else {
            careful
        }
    }

    /// The smallest group of the layers on GPUs.
    fn least_out(&self, draft: &Draft) -> Moved {
        let devices = layout::layer_devices(self.header.layers, &self.settings(draft));
        let least = (0..self.header.layers)
            .filter(|layer| devices[*layer as usize].is_some())
            .flat_map(|layer| {
                self.experts_of(layer)
                    .into_iter()
                    .map(move |group| (layer, group))
            })
            .min_by_key(|(layer, (_, bytes))| (*bytes, *layer));
        let mut moved = Moved::default();
        if let Some((layer, (group, _))) = least {
            moved.insert(layer, group);
        }
        moved
    }

    /// Groups of expert tensors of a layer with their bytes, those that the user pinned left out.
    fn experts_of(&self, layer: u32) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        let own = self.parts.iter().filter(|part| {
            part.layer == Some(layer) && part.class == Class::Experts && part.pinned.is_none()
        });
        for part in own {
            match groups.iter_mut().find(|(group, _)| *group == part.group()) {
                Some((_, bytes)) => *bytes += part.bytes,
                None => groups.push((part.group(), part.bytes)),
            }
        }
        groups
    }

    fn bytes(&self, moved: &Moved) -> u64 {
        let own = self.parts.iter().filter(|part| moved.has(part));
        own.map(|part| part.bytes).sum()
    }
}

/// Adds to `moved` what does not fit into `room`.
fn pack(mut layers: Vec<(u32, Vec<Group<'_>>)>, mut room: u64, moved: &mut Moved) {
    // Small layers first: each whole layer on the GPU saves a round trip. Of equal ones, the last.
    layers.sort_by_key(|(layer, groups)| (sum(groups), u32::MAX - layer));
    let whole = layers
        .iter()
        .take_while(|(_, groups)| {
            let fits = sum(groups) <= room;
            if fits {
                room -= sum(groups);
            }
            fits
        })
        .count();
    let rest = &layers[whole..];
    // One layer is shared out, the one that takes the most; more would only add round trips.
    let partial = rest
        .iter()
        .map(|(layer, groups)| (*layer, most(groups, room)))
        .max_by_key(|(layer, fitting)| (sum(fitting), *layer));
    for (layer, groups) in rest {
        for group in groups {
            let stays = |(own, fitting): &(u32, Vec<_>)| own == layer && fitting.contains(group);
            if !partial.as_ref().is_some_and(stays) {
                moved.insert(*layer, group.0);
            }
        }
    }
}

/// The groups that together take the most of `room`; layers have two to four.
fn most<'a>(groups: &[Group<'a>], room: u64) -> Vec<Group<'a>> {
    let chosen = |set: u32| {
        let groups = groups.iter().take(16).enumerate();
        groups
            .filter(move |(at, _)| set & (1 << at) != 0)
            .map(|(_, group)| *group)
    };
    let size = |set: &u32| chosen(*set).map(|(_, bytes)| bytes).sum::<u64>();
    let best = (0..1_u32 << groups.len().min(16))
        .filter(|set| size(set) <= room)
        .max_by_key(size);
    chosen(best.unwrap_or(0)).collect()
}

fn sum(groups: &[Group<'_>]) -> u64 {
    groups.iter().map(|(_, bytes)| bytes).sum()
}
