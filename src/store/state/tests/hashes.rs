//! The hash of the key space, against numbers that etcd 3.4.23 gave for the same history
//! (`etcdctl endpoint hashkv --rev …`).

use super::*;

/// Asserts pairs of revision and etcd's hash; revision 0 is the latest.
fn assert_hashes(bench: &Bench, expected: &[(Revision, u32)]) {
    for (revision, hash) in expected {
        let found = bench.state.hash_kv(*revision).unwrap();
        assert_eq!(found.hash, *hash, "at {revision}");
        assert_eq!(found.compact_revision, bench.state.compact_revision());
    }
}

#[test]
fn the_hash_is_that_of_etcd_with_the_same_history() {
    let mut bench = Bench::new();
    assert_hashes(&bench, &[(0, 1_084_519_789)]);
    bench.grant(7, 6000).unwrap();
    bench.put("a", "1");
    assert_hashes(&bench, &[(0, 2_587_454_935)]);
    bench.put("b", "");
    bench.apply(Command::Put(Put { lease: 7, ..put("a", "2") })).unwrap();
    assert_hashes(&bench, &[(0, 3_630_272_621)]);
    let long = "x".repeat(300);
    bench.txn(success(vec![put_op("c", &long), put_op("d", "4"), delete_op("b", "")])).unwrap();
    bench.delete("a", "d");
    for (key, value) in [("a", "3"), ("d", "5"), ("a", "6")] {
        bench.put(key, value);
    }
    assert_hashes(
        &bench,
        &[
            (2, 2_587_454_935),
            (3, 2_496_657_716),
            (4, 3_630_272_621),
            (5, 3_761_895_103),
            (6, 489_563_007),
            (7, 2_891_362_594),
            (8, 1_813_016_859),
            (9, 3_578_784_774),
        ],
    );
    let after: [(Revision, &[(Revision, u32)]); 3] = [
        (
            4,
            &[
                (5, 1_432_626_447),
                (6, 1_052_782_822),
                (7, 1_355_589_342),
                (8, 2_408_538_599),
                (9, 205_856_514),
            ],
        ),
        (6, &[(7, 2_385_305_916), (8, 3_730_534_746), (9, 1_653_922_372)]),
        (8, &[(9, 1_113_701_192)]),
    ];
    for (revision, hashes) in after {
        bench.compact(revision).unwrap();
        // Whether memory was given back already makes no difference.
        assert_hashes(&bench, hashes);
        while bench.state.trim(1) {}
        assert_hashes(&bench, hashes);
        assert_eq!(bench.state.hash_kv(revision - 1), Err(StoreError::Compacted));
    }
    assert_eq!(bench.state.hash_kv(10), Err(StoreError::FutureRevision));
    bench.delete("a", "z");
    bench.compact(10).unwrap();
    assert_hashes(&bench, &[(0, 1_084_519_789)]);
    bench.put("z", "1");
    assert_hashes(&bench, &[(0, 974_378_710)]);
}
