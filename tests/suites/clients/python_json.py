"""The JSON client `etcd3gw` of PyPI. Argument: the members."""

import base64
import threading

import etcd3gw
import requests
from etcd3gw.exceptions import Etcd3Exception, InternalServerError, WatchTimedOut

from checks import before_it_ends, endpoints, eventually, refused, run

MEMBERS = endpoints()
CLIENTS = [etcd3gw.client(host, port, timeout=20) for host, port in MEMBERS]
FIRST, LAST = CLIENTS[0], CLIENTS[-1]


def text(value):
    return base64.b64encode(value.encode()).decode()


def post(client, path, body):
    return client.post(client.get_url(path), json=body)


def refused_with(kind, words, call):
    """As `refused`, by the words of the server's JSON."""
    error = refused(kind, "", call)
    assert words in error.detail_text, error.detail_text


def has_ended(error):
    """Whether a lease was refused that is not there."""
    return isinstance(error, Etcd3Exception) and "requested lease not found" in (error.detail_text or "")


def check_version():
    for client in CLIENTS:
        assert client.api_path == "/v3/"
        assert client.status()["version"].startswith("3.")


def check_keys():
    assert FIRST.put("/kv/a", "1") and FIRST.put("/kv/b", b"\x00\xff")
    assert LAST.get("/kv/a") == [b"1"] and LAST.get("/kv/b") == [b"\x00\xff"]
    FIRST.put("/kv/a", "2")
    value, meta = LAST.get("/kv/a", metadata=True)[0]
    assert value == b"2" and meta["key"] == b"/kv/a" and meta["version"] == "2"
    assert int(meta["mod_revision"]) > int(meta["create_revision"]) > 1
    assert FIRST.get("/kv/a", revision=int(meta["create_revision"])) == [b"1"]
    assert FIRST.get("/kv/none") == []
    assert FIRST.create("/kv/c", "3") and not LAST.create("/kv/c", "4")
    assert FIRST.replace("/kv/c", "3", "5") and not LAST.replace("/kv/c", "3", "6")
    assert FIRST.get("/kv/c", serializable=False) == [b"5"]
    assert FIRST.delete("/kv/c") and not LAST.delete("/kv/c")
    FIRST.put("/kv/empty", "")
    assert LAST.get("/kv/empty") == [b""]
    large = bytes(range(256)) * 4000
    FIRST.put("/kv/large", large)
    assert LAST.get("/kv/large") == [large]


def check_ranges():
    for number in (3, 1, 5, 2, 4):
        FIRST.put(f"/range/{number}", f"v{9 - number}")
    FIRST.put("/range/2", "v0")
    FIRST.put("/rangf", "beside")
    keys = lambda pairs: "".join(meta["key"].decode()[-1] for _, meta in pairs)
    assert keys(LAST.get_prefix("/range/")) == "12345"
    assert keys(LAST.get_prefix("/range/", sort_order="descend")) == "54321"
    assert keys(LAST.get_prefix("/range/", sort_order="ascend", sort_target="create")) == "31524"
    assert keys(LAST.get_prefix("/range/", sort_order="ascend", sort_target="mod")) == "31542"
    assert keys(LAST.get_prefix("/range/", sort_order="descend", sort_target="value")) == "13452"
    assert keys(LAST.get("/range/2", metadata=True, range_end="/range/4")) == "23"
    assert keys(LAST.get("/range/", metadata=True, range_end="/range0", limit=2)) == "12"
    assert LAST.get("/range/", range_end="/range0", keys_only=True) == [b""] * 5
    changed = int(LAST.get("/range/2", metadata=True)[0][1]["mod_revision"])
    assert keys(LAST.get("/range/", metadata=True, range_end="/range0", min_mod_revision=changed)) == "2"
    assert keys(LAST.get("/range/", metadata=True, range_end="/range0", max_mod_revision=changed - 1)) == "1345"
    count = post(FIRST, "/kv/range", {"key": text("/range/"), "range_end": text("/range0"), "count_only": True})
    assert count["count"] == "5" and "kvs" not in count
    assert len(FIRST.get_all()) >= 6
    assert LAST.delete_prefix("/range/") and not LAST.delete_prefix("/range/")
    assert FIRST.get("/rangf") == [b"beside"]


def check_transactions():
    FIRST.put("/txn/a", "1")
    answer = LAST.transaction({
        "compare": [
            {"key": text("/txn/a"), "result": "EQUAL", "target": "VALUE", "value": text("1")},
            {"key": text("/txn/a"), "result": "GREATER", "target": "VERSION", "version": 0},
            {"key": text("/txn/b"), "result": "LESS", "target": "CREATE", "create_revision": "1"},
        ],
        "success": [
            {"request_put": {"key": text("/txn/b"), "value": text("2")}},
            {"request_range": {"key": text("/txn/a")}},
            {"request_delete_range": {"key": text("/txn/none")}},
            {"request_txn": {"success": [{"request_put": {"key": text("/txn/c"), "value": text("3")}}]}},
        ],
        "failure": [],
    })
    assert answer["succeeded"] and len(answer["responses"]) == 4
    assert answer["responses"][1]["response_range"]["kvs"][0]["value"] == text("1")
    assert answer["responses"][3]["response_txn"]["succeeded"]
    assert FIRST.get("/txn/b") == [b"2"] and FIRST.get("/txn/c") == [b"3"]
    answer = FIRST.transaction({
        "compare": [{"key": text("/txn/a"), "result": "NOT_EQUAL", "target": "VALUE", "value": text("1")}],
        "failure": [{"request_range": {"key": text("/txn/"), "range_end": text("/txn0")}}],
    })
    assert "succeeded" not in answer and answer["responses"][0]["response_range"]["count"] == "3"
    twice = [{"request_put": {"key": text("/txn/d"), "value": ""}}] * 2
    refused_with(Etcd3Exception, "duplicate key given in txn request", lambda: FIRST.transaction({"success": twice}))


def check_watches():
    events, cancel = LAST.watch_prefix("/watch/", prev_kv=True)
    FIRST.put("/watch/a", "1")
    FIRST.put("/watch/a", "2")
    FIRST.put("/watchf", "beside")
    FIRST.delete("/watch/a")
    got = [next(events) for _ in range(3)]
    cancel()
    assert [event.get("type", "PUT") for event in got] == ["PUT", "PUT", "DELETE"]
    assert [event["kv"].get("value") for event in got] == [b"1", b"2", None]
    assert got[1]["prev_kv"]["value"] == text("1")
    start = int(got[0]["kv"]["mod_revision"])
    for client in CLIENTS:
        old, cancel = client.watch_prefix("/watch/", start_revision=start)
        revisions = [int(next(old)["kv"]["mod_revision"]) for _ in range(3)]
        assert revisions == [start, start + 1, start + 3]
        cancel()
        deletes, cancel = client.watch("/watch/a", start_revision=start, filters=["NOPUT"])
        assert int(next(deletes)["kv"]["mod_revision"]) == start + 3
        cancel()
        event = client.watch_once("/watch/a", timeout=60, start_revision=start + 1)
        assert event["kv"]["value"] == b"2"
    refused(WatchTimedOut, "", lambda: FIRST.watch_prefix_once("/watch/never", timeout=0.5))
    # A burst: each answer is a piece of the stream of its own.
    events, cancel = FIRST.watch_prefix("/watch/burst/", prev_kv=False)
    threads = [threading.Thread(target=burst, args=(client, turn)) for turn, client in enumerate(CLIENTS * 3)]
    for thread in threads:
        thread.start()
    keys = {next(events)["kv"]["key"] for _ in range(50 * len(threads))}
    assert len(keys) == 50 * len(threads)
    cancel()


def burst(client, turn):
    own = etcd3gw.client(client.host, client.port, timeout=20)
    for number in range(50):
        own.put(f"/watch/burst/{turn}/{number}", "x" * 100)


def check_leases():
    lease = FIRST.lease(60)
    assert 0 < lease.ttl() <= 60 and lease.keys() == []
    FIRST.put("/lease/a", "1", lease=lease)
    assert LAST.create("/lease/b", "1", lease=lease)
    assert sorted(lease.keys()) == [b"/lease/a", b"/lease/b"]
    assert FIRST.get("/lease/a", metadata=True)[0][1]["lease"] == str(lease.id)
    assert lease.refresh() == 60
    assert lease.revoke()
    assert LAST.get("/lease/a") == []
    refused_with(Etcd3Exception, "requested lease not found", lease.revoke)
    assert lease.refresh() == -1 and lease.ttl() == -1
    refused_with(Etcd3Exception, "requested lease not found", lambda: FIRST.put("/lease/c", "", lease=lease))

    def leased():
        lease = LAST.lease(1)
        FIRST.put("/lease/short", "", lease=lease)
        return lease

    short = before_it_ends(has_ended, leased)
    put = FIRST.get("/lease/short", metadata=True)
    if put:
        event = FIRST.watch_once("/lease/short", timeout=60, start_revision=int(put[0][1]["mod_revision"]) + 1)
        assert event["type"] == "DELETE"
    assert LAST.get("/lease/short") == []
    listed = post(FIRST, "/lease/leases", {})
    assert str(short.id) not in [lease["ID"] for lease in listed.get("leases", [])]


def check_locks():
    with FIRST.lock("mine", ttl=60) as lock:
        assert lock.is_acquired() and lock.refresh() == 60
        other = LAST.lock("mine", ttl=60)
        assert not other.acquire() and not other.is_acquired()
    assert not lock.is_acquired() and not lock.release()
    assert other.acquire() and other.release()
    assert before_it_ends(has_ended, FIRST.lock("left", ttl=1).acquire)
    eventually("a lock that nobody keeps", LAST.lock("left", ttl=60).acquire)


def check_lock_and_election_services():
    lease = str(FIRST.lease(60).id)
    key = post(FIRST, "/lock/lock", {"name": text("door"), "lease": lease})["key"]
    post(LAST, "/lock/unlock", {"key": key})
    leader = post(FIRST, "/election/campaign", {"name": text("chair"), "lease": lease, "value": text("me")})["leader"]
    assert post(LAST, "/election/leader", {"name": text("chair")})["kv"]["value"] == text("me")
    post(LAST, "/election/proclaim", {"leader": leader, "value": text("us")})
    assert post(FIRST, "/election/leader", {"name": text("chair")})["kv"]["value"] == text("us")
    post(FIRST, "/election/resign", {"leader": leader})
    refused_with(Etcd3Exception, "election: no leader", lambda: post(LAST, "/election/leader", {"name": text("chair")}))


def check_members():
    members = FIRST.members()
    assert len(members) == len(MEMBERS)
    assert {url.rsplit("/", 1)[1] for member in members for url in member["clientURLs"]} == {
        f"{host}:{port}" for host, port in MEMBERS}

    def agreed():
        """What all say when they name one leader: another may be elected between two answers."""
        status = [client.status() for client in CLIENTS]
        leaders = {answer.get("leader") for answer in status}
        return len(leaders) == 1 and None not in leaders and status

    status = eventually("one leader", agreed)
    assert {answer["header"]["member_id"] for answer in status} == {member["ID"] for member in members}
    added = post(LAST, "/cluster/member/add", {"peerURLs": ["http://127.0.0.9:12380"], "isLearner": True})
    assert added["member"]["isLearner"]
    # A list that is not asked to be linearizable may come before another member hears of a change.
    eventually("a member more", lambda: len(FIRST.members()) == len(MEMBERS) + 1)
    post(FIRST, "/cluster/member/remove", {"ID": added["member"]["ID"]})
    eventually("a member less", lambda: len(LAST.members()) == len(MEMBERS))


def check_compaction():
    FIRST.put("/compact", "1")
    meta = FIRST.get("/compact", metadata=True)[0][1]
    first, now = int(meta["mod_revision"]), int(meta["mod_revision"]) + 1
    FIRST.put("/compact", "2")
    post(LAST, "/kv/compaction", {"revision": now, "physical": True})
    refused_with(Etcd3Exception, "required revision has been compacted", lambda: FIRST.get("/compact", revision=first))
    refused_with(Etcd3Exception, "required revision is a future", lambda: FIRST.get("/compact", revision=now + 1000))
    answer = requests.post(LAST.get_url("/watch"), stream=True, timeout=20, json={
        "create_request": {"key": text("/compact"), "start_revision": first}})
    lines = (line for line in answer.iter_lines() if line)
    said = [requests.models.complexjson.loads(next(lines))["result"] for _ in range(2)]
    assert said[0]["created"] and said[1]["canceled"] and said[1]["compact_revision"] == str(now)
    answer.close()


def check_errors():
    refused_with(Etcd3Exception, "etcdserver: key is not provided", lambda: FIRST.put("", "x"))
    answer = requests.post(FIRST.get_url("/kv/put"), json={"value": ""}, timeout=20)
    assert answer.status_code == 400 and answer.json()["code"] == 3
    answer = requests.post(FIRST.get_url("/lease/revoke"), json={"ID": "4712"}, timeout=20)
    assert answer.status_code == 404 and answer.json()["code"] == 5
    answer = requests.post(FIRST.get_url("/kv/range"), data="{", timeout=20)
    assert answer.status_code == 400
    assert requests.post(FIRST.base_url + "/v3/kv/nothing", json={}, timeout=20).status_code == 404
    for path in ("/health", "/version", "/metrics"):
        assert requests.get(LAST.base_url + path, timeout=20).status_code == 200


def check_users():
    for name in ("root", "reader"):
        post(FIRST, "/auth/user/add", {"name": name, "password": "secret"})
        post(FIRST, "/auth/role/add", {"name": name})
        post(FIRST, "/auth/user/grant", {"user": name, "role": name})
    FIRST.put("/auth/a", "1")
    permission = {"permType": "READ", "key": text("/auth/"), "range_end": text("/auth0")}
    post(LAST, "/auth/role/grant", {"name": "reader", "perm": permission})
    post(FIRST, "/auth/enable", {})

    def log_in(member, name):
        client = etcd3gw.client(*member, timeout=20)
        token = post(client, "/auth/authenticate", {"name": name, "password": "secret"})["token"]
        client.session.headers["Authorization"] = token
        return client

    root = log_in(MEMBERS[-1], "root")
    try:
        refused_with(Etcd3Exception, "user name is empty", lambda: FIRST.get("/auth/a"))
        refused_with(Etcd3Exception, "authentication failed, invalid user ID or password", lambda: post(
            FIRST, "/auth/authenticate", {"name": "reader", "password": "wrong"}))
        for member in MEMBERS:
            reader = log_in(member, "reader")
            assert reader.get("/auth/a") == [b"1"]
            refused_with(Etcd3Exception, "permission denied", lambda: reader.put("/auth/a", "2"))
            refused_with(Etcd3Exception, "permission denied", lambda: reader.get("/auths"))
            events, cancel = reader.watch_prefix("/auth/")
            root.put("/auth/b", "seen")
            assert next(events)["kv"]["value"] == b"seen"
            cancel()
    finally:
        post(root, "/auth/disable", {})

    def open_again():
        try:
            return LAST.get("/auth/a")
        except Etcd3Exception:
            return None

    assert eventually("no more users", open_again) == [b"1"]
    for name in ("root", "reader"):
        post(FIRST, "/auth/user/delete", {"name": name})
        post(FIRST, "/auth/role/delete", {"role": name})


FIRST.delete_prefix("/")
run(globals())
