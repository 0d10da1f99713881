// The client `etcd3` of npm. Argument: the members, with commas between them.
'use strict';

const assert = require('assert').strict;
const etcd = require('etcd3');

const hosts = process.argv[2].split(',').map(endpoint => `http://${endpoint}`);
const client = new etcd.Etcd3({ hosts });
// One client per member, for what must be the same everywhere.
const each = hosts.map(host => new etcd.Etcd3({ hosts: host }));
const [first] = each;
const last = each[each.length - 1];

// Waits until `condition` gives something true. The limit only ends a hopeless wait.
async function eventually(what, condition) {
  for (let turn = 0; turn < 600; turn += 1) {
    const value = await condition();
    if (value) return value;
    await new Promise(resolve => setTimeout(resolve, 100));
  }
  throw new Error(`waited in vain: ${what}`);
}

const once = (emitter, event) => new Promise(resolve => emitter.once(event, resolve));

// Collects what a watcher tells until there are `count` events.
function collect(watcher, count) {
  return new Promise((resolve, reject) => {
    const events = [];
    watcher.on('error', reject);
    watcher.on('data', answer => {
      events.push(...answer.events);
      if (events.length >= count) resolve(events);
    });
  });
}

const checks = {
  async keys() {
    await client.put('kv/a').value('1');
    assert.equal(await last.get('kv/a'), '1');
    const previous = await last.put('kv/a').value('2').getPrevious();
    assert.equal(previous.value.toString(), '1');
    await client.put('kv/n').value(42);
    assert.equal(await client.get('kv/n').number(), 42);
    await client.put('kv/j').value(JSON.stringify({ a: [1, 2] }));
    assert.deepEqual(await client.get('kv/j').json(), { a: [1, 2] });
    const bytes = Buffer.from([0, 255, 128]);
    await client.put(Buffer.from([0, 1])).value(bytes);
    assert.ok(bytes.equals(await last.get(Buffer.from([0, 1])).buffer()));
    assert.equal(await client.get('kv/none'), null);
    assert.equal(await client.get('kv/a').exists(), true);
    const answer = await client.get('kv/a').serializable(true).exec();
    const { create_revision, mod_revision } = answer.kvs[0];
    assert.equal(await client.get('kv/a').revision(create_revision), '1');
    assert.equal(await client.get('kv/a').minModRevision(Number(mod_revision) + 1), null);
    await client.put('kv/a').touch();
    assert.equal((await last.get('kv/a').exec()).kvs[0].version, '3');
    assert.equal((await client.delete().key('kv/a')).deleted, '1');
    assert.equal((await client.delete().key('kv/a')).deleted, '0');
    const large = Buffer.alloc(1024 * 1024, 'x');
    await client.put('kv/large').value(large);
    assert.equal((await last.get('kv/large').buffer()).length, large.length);
  },

  async ranges() {
    for (const number of [3, 1, 5, 2, 4]) await client.put(`range/${number}`).value(`${9 - number}`);
    await client.put('rangf').value('beside');
    const all = () => last.getAll().prefix('range/');
    assert.deepEqual(await all().keys(), [1, 2, 3, 4, 5].map(number => `range/${number}`));
    assert.deepEqual(await all().sort('Create', 'Ascend').keys(), [3, 1, 5, 2, 4].map(number => `range/${number}`));
    assert.deepEqual(await all().sort('Value', 'Ascend').limit(2).keys(), ['range/5', 'range/4']);
    assert.deepEqual(await all().sort('Key', 'Descend').limit(1).numbers(), { 'range/5': 4 });
    assert.deepEqual(await last.getAll().inRange({ start: 'range/2', end: 'range/4' }).strings(), {
      'range/2': '7',
      'range/3': '6',
    });
    assert.equal(await all().count(), 5);
    const part = await all().limit(2).exec();
    assert.deepEqual([part.more, part.count, part.kvs.length], [true, '5', 2]);
    assert.ok((await client.getAll().all().count()) >= 6);
    const gone = await client.delete().inRange({ start: 'range/1', end: 'range/3' }).getPrevious();
    assert.deepEqual(gone.map(pair => pair.value.toString()), ['8', '7']);
    assert.equal((await client.delete().prefix('range/')).deleted, '3');
    assert.equal(await client.get('rangf'), 'beside');
  },

  async namespaces() {
    const space = client.namespace('space/');
    await space.put('a').value('1');
    assert.deepEqual(await space.getAll().keys(), ['a']);
    assert.equal(await last.get('space/a'), '1');
    const watcher = await space.watch().prefix('b').create();
    const events = collect(watcher, 1);
    await last.put('space/b1').value('x');
    assert.equal((await events)[0].kv.key.toString(), 'b1');
    await watcher.cancel();
    await space.delete().all();
    assert.equal(await client.get('rangf'), 'beside');
  },

  async transactions() {
    await client.put('txn/a').value('1');
    const done = await last
      .if('txn/a', 'Value', '==', '1')
      .and('txn/b', 'Create', '==', 0)
      .and('txn/a', 'Version', '>', 0)
      .then(client.put('txn/b').value('2'), client.get('txn/a'), client.delete().key('txn/none'))
      .else(client.get('txn/b'))
      .commit();
    assert.equal(done.succeeded, true);
    assert.equal(done.responses[1].response_range.kvs[0].value.toString(), '1');
    const not = await client.if('txn/a', 'Value', '!=', '1').then().else(client.get('txn/b')).commit();
    assert.equal(not.succeeded, false);
    assert.equal(not.responses[0].response_range.kvs[0].value.toString(), '2');
    const twice = client.if('txn/a', 'Version', '>', 0).then(client.put('txn/c').value('1'), client.put('txn/c').value('2'));
    await assert.rejects(twice.commit(), /duplicate key given in txn request/);
    // Increments by software transactions of many at once: none is lost.
    await client.put('txn/sum').value(0);
    const add = member =>
      member.stm({ retries: 1000 }).transact(async tx => {
        await tx.put('txn/sum').value((await tx.get('txn/sum').number()) + 1);
      });
    await Promise.all(Array.from({ length: 20 }, (_, number) => add(each[number % each.length])));
    assert.equal(await client.get('txn/sum').number(), 20);
  },

  async watches() {
    const watcher = await client.watch().prefix('watch/').withPreviousKV().create();
    const events = collect(watcher, 3);
    await first.put('watch/a').value('1');
    await last.put('watch/a').value('2');
    await first.put('watchf').value('beside');
    await last.delete().key('watch/a');
    const got = await events;
    await watcher.cancel();
    assert.deepEqual(got.map(event => event.type), ['Put', 'Put', 'Delete']);
    assert.deepEqual(got.map(event => event.kv.value.toString()), ['1', '2', '']);
    assert.deepEqual(got.slice(1).map(event => event.prev_kv.value.toString()), ['1', '2']);
    const revisions = got.map(event => event.kv.mod_revision);
    for (const member of each) {
      const old = member.watch().prefix('watch/').startRevision(revisions[0]).watcher();
      assert.deepEqual((await collect(old, 3)).map(event => event.kv.mod_revision), revisions);
      await old.cancel();
      const deletes = member.watch().key('watch/a').only('delete').startRevision(revisions[0]).watcher();
      assert.equal((await collect(deletes, 1))[0].kv.mod_revision, revisions[2]);
      await deletes.cancel();
    }
    // Many watchers on one stream, each sees its own.
    const watchers = await Promise.all(Array.from({ length: 50 }, (_, number) => client.watch().key(`watch/each/${number}`).create()));
    const values = watchers.map(one => once(one, 'put'));
    for (let number = 0; number < 50; number += 1) await last.put(`watch/each/${number}`).value(number);
    assert.deepEqual((await Promise.all(values)).map(pair => Number(pair.value)), watchers.map((_, number) => number));
    await Promise.all(watchers.map(one => one.cancel()));
  },

  async leases() {
    const lease = client.lease(60);
    const id = await lease.grant();
    await lease.put('lease/a').value('1');
    await last.put('lease/b').value('1').lease(id);
    assert.equal((await client.get('lease/a').exec()).kvs[0].lease, id);
    const left = await last.leaseClient.leaseTimeToLive({ ID: id, keys: true });
    assert.deepEqual(left.keys.map(String).sort(), ['lease/a', 'lease/b']);
    assert.ok(Number(left.TTL) > 0 && left.grantedTTL === '60');
    assert.equal((await lease.keepaliveOnce()).TTL, '60');
    await lease.revoke();
    assert.equal(await last.get('lease/a'), null);
    await assert.rejects(client.put('lease/c').value('').lease(id), etcd.EtcdLeaseInvalidError);

    // One that its client keeps alive outlives its time; one that is left ends. Their time is longer than this machine may stand still.
    const kept = client.lease(10);
    const lost = once(kept, 'lost');
    const left2 = client.lease(10, { autoKeepAlive: false });
    await kept.put('lease/kept').value('1');
    const watcher = await last.watch().key('lease/left').create();
    const ended = once(watcher, 'delete');
    await left2.put('lease/left').value('1');
    await ended;
    await watcher.cancel();
    await Promise.race([once(kept, 'keepaliveSucceeded'), lost]);
    assert.equal(await last.get('lease/kept'), '1');
    // Revoked behind its back: the client is told.
    await last.leaseClient.leaseRevoke({ ID: await kept.grant() });
    assert.ok((await lost) instanceof etcd.EtcdLeaseInvalidError);
  },

  async locks() {
    const lock = await client.lock('door').ttl(60).acquire();
    await assert.rejects(last.lock('door').ttl(60).acquire(), etcd.EtcdLockFailedError);
    await lock.release();
    let inside = 0;
    const turn = async member => {
      await eventually('a turn', async () => {
        try {
          return await member.lock('room').ttl(60).do(async () => {
            inside += 1;
            assert.equal(inside, 1);
            await new Promise(resolve => setTimeout(resolve, 5));
            inside -= 1;
            return true;
          });
        } catch (error) {
          if (error instanceof etcd.EtcdLockFailedError) return false;
          throw error;
        }
      });
    };
    await Promise.all([...each, ...each].map(turn));
  },

  async elections() {
    const election = client.election('chair', 60);
    const observer = await last.election('chair', 60).observe();
    const one = election.campaign('one');
    await one.wait();
    assert.equal(await last.election('chair').leader(), 'one');
    // The client's observer takes who campaigns meanwhile for the leader.
    await eventually('the leader', () => observer.leader() === 'one');
    const two = first.election('chair', 60).campaign('two');
    await one.proclaim('still one');
    await eventually('the proclamation', () => observer.leader() === 'still one');
    const changed = once(two, 'elected');
    await one.resign();
    await changed;
    await eventually('another leader', () => observer.leader() === 'two');
    await observer.cancel();
    await two.resign();
    assert.equal(await client.election('chair').leader(), undefined);
  },

  async members() {
    const { members } = await client.cluster.memberList({});
    assert.equal(members.length, hosts.length);
    assert.deepEqual(members.flatMap(member => member.clientURLs).sort(), [...hosts].sort());
    // What all say when they name one leader: another may be elected between two answers.
    const agreed = () => eventually('one leader', async () => {
      const status = await Promise.all(each.map(member => member.maintenance.status()));
      return new Set(status.map(answer => answer.leader)).size === 1 && status[0].leader !== '0' && status;
    });
    const status = await agreed();
    assert.ok(status.every(answer => answer.version.startsWith('3.') && Number(answer.dbSize) > 0));
    if (hosts.length > 1) {
      // An election meanwhile makes it another's to move: then it is done once more.
      await eventually('the other leader', async () => {
        const before = await agreed();
        const { leader } = before[0];
        const at = before.findIndex(answer => answer.header.member_id === leader);
        const target = members.find(member => member.ID !== leader).ID;
        try {
          await each[at].maintenance.moveLeader({ targetID: target });
        } catch (error) {
          if (/not leader|timed out/.test(error.message)) return false;
          throw error;
        }
        return (await agreed())[0].leader === target;
      });
    }
    await client.maintenance.defragment();
    const alarms = await client.maintenance.alarm({ action: 'Get', alarm: 'None' });
    assert.deepEqual(alarms.alarms, []);
    const hashes = await eventually('equal hashes', async () => {
      const answers = await Promise.all(each.map(member => member.maintenance.hash()));
      const revisions = new Set(answers.map(answer => answer.header.revision));
      return revisions.size === 1 && answers;
    });
    assert.ok(hashes.every(answer => answer.hash !== 0));
  },

  async compaction() {
    const before = (await client.put('compact').value('1')).header.revision;
    const { revision } = (await client.put('compact').value('2')).header;
    await client.kv.compact({ revision, physical: true });
    await assert.rejects(last.get('compact').revision(before).exec(), /required revision has been compacted/);
    await assert.rejects(last.get('compact').revision(Number(revision) + 1000).exec(), /required revision is a future revision/);
    const watcher = last.watch().key('compact').startRevision(before).watcher();
    assert.match((await once(watcher, 'error')).message, /canceled/);
  },

  async errors() {
    await assert.rejects(client.put('large').value(Buffer.alloc(1700000)), /etcdserver: request is too large/);
    await assert.rejects(client.kv.put({ key: Buffer.alloc(0), value: Buffer.alloc(0) }), /etcdserver: key is not provided/);
    await assert.rejects(client.leaseClient.leaseRevoke({ ID: '4713' }), etcd.EtcdLeaseInvalidError);
  },

  async users() {
    const roles = {};
    for (const name of ['root', 'reader']) {
      roles[name] = await client.role(name).create();
      await client.user(name).create('secret');
      await client.user(name).addRole(name);
    }
    await assert.rejects(client.role('reader').create(), etcd.EtcdRoleExistsError);
    await assert.rejects(client.user('reader').create('x'), etcd.EtcdUserExistsError);
    await assert.rejects(client.user('nobody').roles(), etcd.EtcdUserNotFoundError);
    await roles.reader.grant({ permission: 'Read', range: client.range({ prefix: 'auth/' }) });
    const [permission] = await roles.reader.permissions();
    assert.equal(permission.permission, 'Read');
    assert.equal((await client.getRoles()).length, 2);
    assert.equal((await client.getUsers()).length, 2);
    await client.put('auth/a').value('1');
    await client.auth.authEnable();
    const log = (host, username, password) => new etcd.Etcd3({ hosts: host, auth: { username, password } });
    const root = log(hosts, 'root', 'secret');
    try {
      await assert.rejects(last.get('auth/a').exec(), /user name is empty/);
      await assert.rejects(log(hosts[0], 'reader', 'wrong').get('auth/a').exec(), etcd.EtcdAuthenticationFailedError);
      for (const host of hosts) {
        const reader = log(host, 'reader', 'secret');
        assert.equal(await reader.get('auth/a'), '1');
        await assert.rejects(reader.put('auth/a').value('2'), etcd.EtcdPermissionDeniedError);
        await assert.rejects(reader.get('auths').exec(), etcd.EtcdPermissionDeniedError);
        const watcher = await reader.watch().prefix('auth/').create();
        const event = once(watcher, 'put');
        await root.put('auth/b').value('seen');
        assert.equal((await event).value.toString(), 'seen');
        await watcher.cancel();
        reader.close();
      }
    } finally {
      await root.auth.authDisable();
      root.close();
    }
    await eventually('no more users', () => last.get('auth/a').then(value => value === '1', () => false));
    for (const name of ['root', 'reader']) {
      await client.user(name).delete();
      await client.role(name).delete();
    }
  },
};

async function main() {
  await client.delete().all();
  for (const [name, check] of Object.entries(checks)) {
    console.log(name);
    await check();
  }
  console.log('all checks passed');
}

main().then(
  () => process.exit(0),
  error => {
    console.error(error);
    process.exit(1);
  },
);
