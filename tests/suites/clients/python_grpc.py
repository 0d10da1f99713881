"""The gRPC clients `etcd3` and `pyetcd` (the maintained one of the same interface) of PyPI.

Arguments: the members, the client's module.
"""

import importlib
import io
import queue
import sys
import threading

import grpc

from checks import before_it_ends, endpoints, eventually, refused, run

NAME = sys.argv[2]
etcd3 = importlib.import_module(NAME)
rpc = etcd3.etcdrpc
errors = importlib.import_module(f"{NAME}.exceptions")

MEMBERS = endpoints()
CLIENTS = [etcd3.client(host, port, timeout=20) for host, port in MEMBERS]
FIRST, LAST = CLIENTS[0], CLIENTS[-1]
IS = FIRST.transactions
# What `etcd3` 0.12.0 itself cannot do on a present Python: filters of watches, waiting for a lock.
MAINTAINED = NAME == "pyetcd"
REFUSALS = (grpc.RpcError, errors.Etcd3Exception)
ENDED = "NOT_FOUND: etcdserver: requested lease not found"


def said_of(error):
    """gRPC's code and words. The client puts its own exception around some codes."""
    error = error if isinstance(error, grpc.RpcError) else error.__context__
    return f"{error.code().name}: {error.details()}"


def refused_with(text, call):
    """As `refused`, by gRPC's code and words."""
    said = said_of(refused(REFUSALS, "", call))
    assert text in said, said


def has_ended(error):
    """Whether a lease was refused that is not there."""
    return isinstance(error, REFUSALS) and said_of(error) == ENDED


def check_keys():
    header = FIRST.put("/kv/a", "1").header
    assert header.revision > 1 and header.cluster_id and header.member_id and header.raft_term
    again = LAST.put("/kv/a", b"\x00\xff", prev_kv=True)
    assert again.prev_kv.value == b"1" and again.header.revision == header.revision + 1
    value, meta = FIRST.get("/kv/a")
    assert value == b"\x00\xff" and meta.key == b"/kv/a" and meta.version == 2
    assert (meta.create_revision, meta.mod_revision) == (header.revision, header.revision + 1)
    assert meta.response_header.cluster_id == header.cluster_id and meta.lease_id == 0
    assert FIRST.get("/kv/none") == (None, None)
    assert LAST.get("/kv/a", serializable=True)[0] is not None
    assert FIRST.put_if_not_exists("/kv/b", "2") and not LAST.put_if_not_exists("/kv/b", "3")
    assert FIRST.replace("/kv/b", "2", "4") and not FIRST.replace("/kv/b", "2", "5")
    assert LAST.get("/kv/b")[0] == b"4"
    assert FIRST.delete("/kv/b") and not FIRST.delete("/kv/b")
    gone = LAST.delete("/kv/a", prev_kv=True, return_response=True)
    assert gone.deleted == 1 and gone.prev_kvs[0].value == b"\x00\xff"
    FIRST.put("/kv/empty", "")
    assert FIRST.get("/kv/empty")[0] == b""
    large = bytes(range(256)) * 4096
    FIRST.put("/kv/large", large)
    assert LAST.get("/kv/large")[0] == large


def check_ranges():
    for number in (3, 1, 5, 2, 4):
        FIRST.put(f"/range/{number}", f"v{9 - number}")
    FIRST.put("/range/2", "v0")
    FIRST.put("/rangf", "beside")
    keys = lambda pairs: "".join(meta.key.decode()[-1] for _, meta in pairs)
    assert keys(LAST.get_prefix("/range/")) == "12345"
    assert keys(LAST.get_prefix("/range/", sort_order="descend")) == "54321"
    assert keys(LAST.get_prefix("/range/", sort_order="ascend", sort_target="create")) == "31524"
    assert keys(LAST.get_prefix("/range/", sort_order="ascend", sort_target="mod")) == "31542"
    assert keys(LAST.get_prefix("/range/", sort_order="ascend", sort_target="value")) == "25431"
    assert keys(LAST.get_prefix("/range/", sort_order="descend", sort_target="version"))[0] == "2"
    assert keys(LAST.get_range("/range/2", "/range/4")) == "23"
    assert all(value == b"" for value, _ in LAST.get_prefix("/range/", keys_only=True))
    assert len(list(LAST.get_all())) >= 6
    part = FIRST.kvstub.Range(rpc.RangeRequest(key=b"/range/", range_end=b"/range0", limit=2))
    assert (len(part.kvs), part.more, part.count) == (2, True, 5)
    count = FIRST.kvstub.Range(rpc.RangeRequest(key=b"/range/", range_end=b"/range0", count_only=True))
    assert (len(count.kvs), count.count) == (0, 5)
    old = list(part.kvs)[1].create_revision
    before = FIRST.kvstub.Range(rpc.RangeRequest(key=b"/range/", range_end=b"/range0", revision=old))
    assert [pair.key[-1:] for pair in before.kvs] == [b"1", b"2", b"3", b"5"]
    assert LAST.delete_prefix("/range/").deleted == 5
    assert FIRST.get("/rangf")[0] == b"beside"


def check_transactions():
    FIRST.put("/txn/a", "1")
    done, answers = LAST.transaction(
        compare=[IS.value("/txn/a") == "1", IS.version("/txn/a") > 0, IS.create("/txn/b") == 0,
                 IS.mod("/txn/a") != 1],
        success=[IS.put("/txn/b", "2", prev_kv=True), IS.get("/txn/a"), IS.delete("/txn/none"),
                 IS.txn(compare=[IS.value("/txn/a") < "2"], success=[IS.put("/txn/c", "3")],
                        failure=[IS.delete("/txn/a")])],
        failure=[IS.put("/txn/wrong", "")],
    )
    assert done and len(answers) == 4 and answers[1][0][0] == b"1"
    assert answers[3].response_txn.succeeded
    assert [FIRST.get(f"/txn/{key}")[0] for key in ("b", "c", "wrong")] == [b"2", b"3", None]
    assert FIRST.get("/txn/b")[1].mod_revision == FIRST.get("/txn/c")[1].mod_revision
    done, answers = FIRST.transaction(
        compare=[IS.value("/txn/a") > "5"], success=[],
        failure=[IS.get("/txn/", range_end="/txn0")])
    assert not done and len(answers[0]) == 3
    refused_with("INVALID_ARGUMENT: etcdserver: duplicate key given in txn request", lambda: FIRST.transaction(
        compare=[], success=[IS.put("/txn/d", "1"), IS.put("/txn/d", "2")], failure=[]))
    refused_with("INVALID_ARGUMENT: etcdserver: too many operations in txn request", lambda: FIRST.transaction(
        compare=[], success=[IS.put(f"/txn/{number}", "") for number in range(129)], failure=[]))

    def count():
        client = etcd3.client(*MEMBERS[count.turn % len(MEMBERS)], timeout=20)
        for _ in range(20):
            while True:
                value, _ = client.get("/txn/sum")
                if client.replace("/txn/sum", value, str(int(value) + 1)):
                    break

    FIRST.put("/txn/sum", "0")
    threads = []
    for count.turn in range(4):
        threads.append(threading.Thread(target=count))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert FIRST.get("/txn/sum")[0] == b"80"


def check_watches():
    events, cancel = LAST.watch_prefix("/watch/", prev_kv=True)
    start = FIRST.put("/watch/a", "1").header.revision
    FIRST.put("/watch/a", "2")
    FIRST.put("/watchf", "beside")
    FIRST.delete("/watch/a")
    got = [next(events) for _ in range(3)]
    assert [type(event).__name__ for event in got] == ["PutEvent", "PutEvent", "DeleteEvent"]
    assert [event.value for event in got] == [b"1", b"2", b""]
    assert [event.prev_value for event in got] == [b"", b"1", b"2"]
    assert got[0].mod_revision == start and got[2].mod_revision == start + 3
    cancel()
    for client in CLIENTS:
        old, cancel = client.watch_prefix("/watch/", start_revision=start)
        assert [next(old).mod_revision for _ in range(3)] == [start, start + 1, start + 3]
        cancel()
        if MAINTAINED:
            deletes, cancel = client.watch("/watch/a", start_revision=start, filters=[rpc.WatchCreateRequest.NOPUT])
            assert next(deletes).mod_revision == start + 3
            cancel()
    # Three puts of one transaction come in one answer.
    answers, cancel = FIRST.watch_prefix_response("/watch/many/")
    LAST.transaction(compare=[], success=[IS.put(f"/watch/many/{key}", "") for key in "abc"], failure=[])
    assert len(next(answers).events) == 3
    cancel()
    refused(errors.WatchTimedOut, "", lambda: FIRST.watch_once("/watch/never", timeout=0.5))
    seen = queue.Queue()
    watches = [FIRST.add_watch_callback(f"/watch/each/{number}", seen.put) for number in range(50)]
    for number in range(50):
        LAST.put(f"/watch/each/{number}", str(number))
    values = {seen.get(timeout=60).events[0].value for _ in range(50)}
    assert len(values) == 50
    for watch in watches:
        FIRST.cancel_watch(watch)


def check_progress():
    answers, cancel = FIRST.watch_response("/progress", progress_notify=True)
    FIRST.put("/progress", "1")
    assert len(next(answers).events) == 1
    cancel()


def check_leases():
    lease = FIRST.lease(60)
    assert lease.ttl == 60 and lease.granted_ttl == 60 and 0 < lease.remaining_ttl <= 60
    FIRST.put("/lease/a", "1", lease=lease)
    LAST.put("/lease/b", "1", lease=lease.id)
    assert FIRST.get("/lease/a")[1].lease_id == lease.id
    assert sorted(LAST.get_lease_info(lease.id).keys) == [b"/lease/a", b"/lease/b"]
    assert lease.refresh()[0].TTL == 60
    assert list(LAST.refresh_lease(lease.id))[0].TTL == 60
    lease.revoke()
    assert LAST.get("/lease/a") == (None, None)
    refused_with(ENDED, lease.revoke)
    assert LAST.get_lease_info(lease.id).TTL == -1
    assert lease.refresh()[0].TTL == 0
    refused_with(ENDED, lambda: FIRST.put("/lease/c", "", lease=lease))
    own = FIRST.lease(60, lease_id=4711)
    assert own.id == 4711
    refused_with("FAILED_PRECONDITION: etcdserver: lease already exists", lambda: LAST.lease(60, lease_id=4711))
    own.revoke()
    events, cancel = LAST.watch("/lease/short")
    before_it_ends(has_ended, lambda: FIRST.put("/lease/short", "", lease=FIRST.lease(1)))
    assert type(next(events)).__name__ == "PutEvent"
    assert type(next(events)).__name__ == "DeleteEvent"
    cancel()
    assert LAST.get("/lease/short") == (None, None)


def check_locks():
    with FIRST.lock("mine", ttl=60) as lock:
        assert lock.is_acquired() and lock.refresh()[0].TTL == 60
        other = LAST.lock("mine", ttl=60)
        assert not other.is_acquired()
        if MAINTAINED:
            assert not other.acquire(timeout=1)
            waiting = threading.Thread(target=other.acquire, kwargs={"timeout": 60})
            waiting.start()
    if MAINTAINED:
        waiting.join()
        # Nobody keeps this one alive.
        assert before_it_ends(has_ended, lambda: FIRST.lock("left", ttl=1).acquire())
        assert LAST.lock("left", ttl=60).acquire(timeout=60)
    else:
        assert other.acquire()
    assert other.is_acquired() and not lock.is_acquired()
    assert other.release() and not other.is_acquired()


def check_members():
    members = list(FIRST.members)
    assert len(members) == len(MEMBERS)
    ports = {url.rsplit("/", 1)[1] for member in members for url in member.client_urls}
    assert ports == {f"{host}:{port}" for host, port in MEMBERS}

    def agreed():
        """The leader that all name: another may be elected between two answers."""
        leaders = [client.status().leader for client in CLIENTS]
        return all(leaders) and len({leader.id for leader in leaders}) == 1 and leaders[0].id

    assert eventually("one leader", agreed) in {member.id for member in members}
    status = LAST.status()
    assert status.version.startswith("3.") and status.db_size > 0 and status.raft_index > 0

    def at_last(members):
        """This client does not ask for a linearizable list: another member may hear of a change later."""
        eventually(f"members {members}", lambda: {m.id: list(m.peer_urls) for m in LAST.members} == members)

    before = {member.id: list(member.peer_urls) for member in members}
    added = FIRST.add_member(["http://127.0.0.9:12380"])
    at_last(before | {added.id: ["http://127.0.0.9:12380"]})
    added.update(["http://127.0.0.9:12381"])
    at_last(before | {added.id: ["http://127.0.0.9:12381"]})
    added.remove()
    at_last(before)
    refused_with("NOT_FOUND: etcdserver: member not found", lambda: FIRST.remove_member(4711))


def check_maintenance():
    assert FIRST.hash() != 0
    FIRST.defragment()
    file = io.BytesIO()
    LAST.snapshot(file)
    assert len(file.getvalue()) > 1000
    assert list(FIRST.list_alarms()) == []
    member = list(FIRST.members)[0].id
    assert len(FIRST.create_alarm(member)) == 1
    refused_with("RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded", lambda: FIRST.put("/alarm", ""))
    assert [alarm.member_id for alarm in LAST.list_alarms()] == [member]
    # No member is not every member, whatever the client says of it.
    FIRST.disarm_alarm()
    assert len(list(LAST.list_alarms())) == 1
    FIRST.disarm_alarm(member)
    assert list(LAST.list_alarms()) == []
    LAST.put("/alarm", "")


def check_compaction():
    first = FIRST.put("/compact", "1").header.revision
    now = FIRST.put("/compact", "2").header.revision
    LAST.compact(now, physical=True)
    refused_with("OUT_OF_RANGE: etcdserver: mvcc: required revision has been compacted",
                 lambda: FIRST.kvstub.Range(rpc.RangeRequest(key=b"/compact", revision=first)))
    refused_with("OUT_OF_RANGE: etcdserver: mvcc: required revision is a future revision",
                 lambda: FIRST.kvstub.Range(rpc.RangeRequest(key=b"/compact", revision=now + 1000)))
    refused_with("OUT_OF_RANGE: etcdserver: mvcc: required revision has been compacted", lambda: LAST.compact(now))
    events, cancel = LAST.watch("/compact", start_revision=first)
    error = refused(errors.RevisionCompactedError, "", lambda: next(events))
    assert error.compacted_revision == now
    cancel()


def check_errors():
    refused_with("INVALID_ARGUMENT: etcdserver: key is not provided", lambda: FIRST.put("", "x"))
    refused_with("INVALID_ARGUMENT: etcdserver: key is not provided", lambda: FIRST.get(""))
    refused_with("INVALID_ARGUMENT: etcdserver: request is too large", lambda: FIRST.put("/large", b"x" * 1_700_000))


def log_in(member, name):
    client = etcd3.client(*member, timeout=20, user=name, password="secret")
    # The client sends the token twice, as gRPC's own credentials too, and those do not go without TLS.
    client.call_credentials = client.watcher._credentials = None
    return client


def check_users():
    auth = etcd3.etcdrpc.AuthStub(FIRST.channel)
    for name in ("root", "reader"):
        auth.UserAdd(rpc.AuthUserAddRequest(name=name, password="secret"))
        auth.RoleAdd(rpc.AuthRoleAddRequest(name=name))
        auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user=name, role=name))
    FIRST.put("/auth/a", "1")
    permission = {"permType": 0, "key": b"/auth/", "range_end": b"/auth0"}
    auth.RoleGrantPermission(rpc.AuthRoleGrantPermissionRequest(name="reader", perm=permission))
    auth.AuthEnable(rpc.AuthEnableRequest())
    root = log_in(MEMBERS[-1], "root")
    try:
        refused_with("INVALID_ARGUMENT: etcdserver: user name is empty", lambda: FIRST.get("/auth/a"))
        refused_with("INVALID_ARGUMENT: etcdserver: authentication failed, invalid user ID or password",
                     lambda: etcd3.client(*MEMBERS[0], timeout=20, user="reader", password="wrong"))
        for member in MEMBERS:
            reader = log_in(member, "reader")
            # A token is good on a member once the member has applied the log-in.
            assert eventually("the token", lambda: reader.get("/auth/a")[0]) == b"1"
            refused_with("PERMISSION_DENIED: etcdserver: permission denied", lambda: reader.put("/auth/a", "2"))
            refused_with("PERMISSION_DENIED: etcdserver: permission denied", lambda: reader.get("/auths"))
            events, cancel = reader.watch_prefix("/auth/")
            root.put("/auth/b", "seen")
            assert next(events).value == b"seen"
            cancel()
    finally:
        stub = etcd3.etcdrpc.AuthStub(root.channel)
        stub.AuthDisable(rpc.AuthDisableRequest(), metadata=root.metadata)
    assert eventually("no more users", lambda: LAST.get("/auth/a")[0]) == b"1"
    for name in ("root", "reader"):
        auth.UserDelete(rpc.AuthUserDeleteRequest(name=name))
        auth.RoleDelete(rpc.AuthRoleDeleteRequest(role=name))


FIRST.delete_prefix(b"/")
run(globals())
