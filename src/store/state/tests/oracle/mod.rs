//! The store against a naive model, in one long property.

mod commands;
mod model;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use self::commands::{is_open, some_command, some_query, some_range};
use self::model::Model;
use super::transfers::{Stored, assert_equal, store};
use super::*;
use crate::store::mvcc::contains;
use crate::store::types::Event;
use crate::store::watch::{Delivery, WatchRequest, WatchStream};

/// A watcher, what it was to be given from where, and what it was given.
struct Watched {
    stream: WatchStream,
    range: KeyRange,
    start: Revision,
    given: Vec<Event>,
    is_cancelled: bool,
}

impl Watched {
    fn pull(&mut self, bytes_max: usize) {
        while let Some(delivery) = self.stream.next_batch(bytes_max) {
            match delivery {
                Delivery::Events { events, .. } => {
                    self.given.extend(events.iter().map(|event| event.event().clone()));
                }
                Delivery::Compacted { .. } => self.is_cancelled = true,
            }
        }
    }
}

/// Previous pairs may be left out once compacted, and so may a change that another of the same key
/// followed in the same revision, as with etcd; all else must be equal.
fn assert_given(watched: &Watched, model: &Model) {
    let expected: Vec<_> = model
        .changes
        .iter()
        .filter(|event| event.kv.mod_revision >= watched.start)
        .filter(|event| contains(&watched.range, &event.kv.key))
        .collect();
    let mut given = watched.given.iter().peekable();
    for (place, expected_now) in expected.iter().enumerate() {
        let (kind, kv) = (expected_now.kind, &expected_now.kv);
        let Some(event) = given.next_if(|event| (event.kind, &event.kv) == (kind, kv)) else {
            let is_followed = expected[place + 1..]
                .iter()
                .any(|later| (&later.kv.key, later.kv.mod_revision) == (&kv.key, kv.mod_revision));
            let is_compacted = kv.mod_revision <= model.compact_revision;
            assert!(is_followed && is_compacted, "{expected_now:?} {:?}", watched.given);
            continue;
        };
        if event.prev_kv.is_some() {
            assert_eq!(event.prev_kv, expected_now.prev_kv);
        }
    }
    assert_eq!(given.next(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_store_answers_as_the_model_does(
        commands in vec(some_command(), 1..40),
        queries in vec(some_query(), 1..8),
        watches in vec((some_range(), 0..40_usize, 0..3_i64), 0..4),
        trims in vec(0..4_usize, 40),
        bytes_max in 1..200_usize,
    ) {
        let mut model = Model::new();
        let mut bench = Bench::new();
        let mut watched: Vec<Watched> = Vec::new();
        let mut stored = Stored::new();
        store(&mut stored, bench.state.take_all());
        for (step, command) in commands.iter().filter(|command| !is_open(command)).enumerate() {
            prop_assert_eq!(bench.apply(command.clone()), model.apply(command), "{:?}", command);
            prop_assert_eq!(bench.state.revision(), model.revision);
            bench.state.trim(trims[step % trims.len()]);
            for (range, at, back) in &watches {
                let start = (model.revision - back).max(model.compact_revision).max(1);
                let request =
                    WatchRequest { range: range.clone(), start_revision: start, ..WatchRequest::default() };
                let mut stream = bench.state.watch_stream();
                if *at == step && stream.subscribe(request).is_ok() {
                    let range = range.clone();
                    watched.push(Watched { stream, range, start, given: vec![], is_cancelled: false });
                }
            }
            // Some watchers pull all the time, some fall behind.
            for watched in watched.iter_mut().step_by(2) {
                watched.pull(bytes_max);
            }
            if step % 5 == 0 {
                store(&mut stored, bench.state.take_dirty().unwrap());
                assert_equal(&State::import(stored.clone()).unwrap(), &bench.state);
            }
        }
        for query in &queries {
            prop_assert_eq!(bench.range(query), model.range(query, model.revision), "{:?}", query);
        }
        for watched in &mut watched {
            watched.pull(bytes_max);
            if !watched.is_cancelled {
                assert_given(watched, &model);
            }
        }
        let exported: Vec<_> = bench.state.export()
            .map(|record| record.map(|record| (record.key, record.value.unwrap())).unwrap())
            .collect();
        let imported = Arc::new(State::import(exported).unwrap());
        assert_equal(&imported, &bench.state);
    }
}
