//! The failure drill with `distribution: k3s` on lab hosts: the script of `tests/k3s` plays K3s and its API
//! server, which keeps the objects that are created, loses answers, and when it is told to also objects.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::support::drill::{verdict, whole};
use crate::support::k3s::{self, FAKE, beside};
use crate::support::{Lab, shown, wait_for};
use k3sup_rs::pki::{Authority, KeyPairPem, Leaf, Purpose};
use rustix::process::{Pid, Signal};
use serde_json::Value as Json;

/// A lab whose K3s has an API server.
fn lab(net: &str, servers: usize) -> Option<Lab> {
    let lab = k3s::lab(net, servers, 0, "")?;
    let (tls, fake) = (lab.dir.path().join("tls"), lab.dir.path().join("fake-k3s"));
    std::fs::create_dir(&tls).unwrap();
    let authority = Authority::create("k3s-server-ca").unwrap();
    let issue = |name: &str, sans: Vec<String>, purpose| {
        let organization = Some("system:masters".to_owned());
        authority
            .issue(&Leaf { common_name: name.to_owned(), organization, sans, purpose })
            .unwrap()
    };
    let keep = |name: &str, pair: &KeyPairPem| {
        std::fs::write(tls.join(format!("{name}.crt")), &pair.certificate).unwrap();
        std::fs::write(tls.join(format!("{name}.key")), pair.key.expose()).unwrap();
    };
    std::fs::write(tls.join("ca.crt"), authority.certificate()).unwrap();
    let addresses = (1..=servers).map(|number| lab.server_address(number));
    keep("server", &issue("k3s", addresses.collect(), Purpose::Server));
    keep("client", &issue("system:admin", Vec::new(), Purpose::Client));
    let text = std::fs::read_to_string(FAKE).unwrap();
    let with = text.replacen("TLS = None", &format!("TLS = {:?}", tls.to_str().unwrap()), 1);
    assert_ne!(text, with);
    std::fs::write(&fake, with).unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    lab.replace_in_inventory(FAKE, fake.to_str().unwrap());
    Some(lab)
}

/// The objects of drills that are there; `None` when their namespace is gone or going.
fn objects(lab: &Lab) -> Option<usize> {
    let space = beside(lab, "fake-k3s-objects/k3sup-verify");
    let going = beside(lab, "fake-k3s-objects/k3sup-verify.going").exists();
    std::fs::read_dir(space).ok().filter(|_| !going).map(Iterator::count)
}

#[test]
fn the_drill_writes_as_users_do_and_sees_a_lost_object() {
    let Some(lab) = lab("94.2", 3) else { return };
    lab.up(&[]);
    // Long enough for some hundred objects, also where processor time is short.
    let args = ["verify", "-i", lab.inventory_path(), "--seconds", "3"];
    let check = lab.run([&args[..], &["--check"]].concat());
    assert_eq!(check.status.code(), Some(7), "{}", shown(&check));
    let told = verdict(&lab.ok([&args[..], &["--output", "json"]].concat()));
    let rows = told["failures"].as_array().unwrap();
    let kinds: Vec<&str> = rows.iter().map(|row| row["failure"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["stopped", "stopped", "stopped", "killed", "killed", "killed"], "{told:#}");
    let measured = |row: &Json| row["outage_ms"].is_u64() && row["back_ms"].is_u64();
    assert!(rows.iter().all(measured), "{told:#}");
    assert!(rows.iter().all(|row| row["writes"].as_u64() > Some(0)), "{told:#}");
    // More than a page, and every twentieth of them only because it was there when it was tried again.
    assert!(told["acknowledged"].as_u64() > Some(100), "{told:#}");
    assert_eq!(told["lost"], Json::Array(Vec::new()));
    // The script has no etcd to ask.
    assert!(told["uncompared"].as_str().unwrap().starts_with("server1: "), "{told:#}");
    assert_eq!(objects(&lab), None, "the drill's objects are left");
    whole(&lab);

    // At once again: the namespace of before is still going.
    let quorum = [&args[..], &["--quorum-loss"]].concat();
    let told = verdict(&lab.ok([&quorum[..], &["--output", "json"]].concat()));
    let row = &told["failures"][0];
    assert_eq!((&row["failure"], &row["during"]), (&"quorum-lost".into(), &0.into()), "{told:#}");
    assert!(row["retried"].as_u64() > Some(0), "{told:#}");
    assert_eq!(told["lost"], Json::Array(Vec::new()));
    whole(&lab);

    // One object in ten is acknowledged and not kept.
    let forgets = beside(&lab, "fake-k3s-forgets");
    std::fs::write(&forgets, "").unwrap();
    let lost = lab.run(&quorum);
    assert_eq!(lost.status.code(), Some(1), "{}", shown(&lost));
    assert!(shown(&lost).contains("acknowledged writes are LOST"), "{}", shown(&lost));
    assert!(objects(&lab) > Some(0), "what is there is kept to be looked at");
    std::fs::remove_file(&forgets).unwrap();

    // Interrupted: it puts back by itself, and takes away what the drill before it left.
    let args = ["verify", "-i", lab.inventory_path(), "--seconds", "60"];
    let child = lab.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a server to be stopped", || {
        let status = lab.status()?;
        let members = status["members"].as_array()?;
        members.iter().any(|member| member["healthy"] == false).then_some(())
    });
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", shown(&ended));
    assert!(shown(&ended).contains(" acknowledged, 0 lost"), "{}", shown(&ended));
    assert_eq!(objects(&lab), None);
    whole(&lab);
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 3, "{again}");
}

#[test]
fn a_server_whose_data_is_in_no_etcd_is_not_drilled() {
    let Some(lab) = lab("94.3", 1) else { return };
    lab.say("    datastore_endpoint: postgres://k3s@db.example.com:5432/k3s\n");
    lab.up(&[]);
    let refused = lab.run(["verify", "-i", lab.inventory_path()]);
    assert_eq!(refused.status.code(), Some(6), "{}", shown(&refused));
    assert!(shown(&refused).contains("their data is elsewhere"), "{}", shown(&refused));
}
