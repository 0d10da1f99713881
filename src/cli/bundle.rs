//! The client bundle: what it takes to reach the cluster's store, fetched from a server.

use std::path::Path;

use super::{clusters, target};
use crate::cluster::layout::Layout;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Observed, Read};
use crate::inventory::Inventory;
use crate::pki::files;
use crate::remote::Session;
use crate::run::reach::Reach;

/// Name of each file in the bundle, and where it comes from on a server, under its data directory.
/// The first that is there counts.
const FILES: [(&str, &str); 4] = [
    ("ca.crt", "server/tls/server-ca-bundle.crt"),
    ("ca.crt", "server/tls/server-ca.crt"),
    ("client.crt", "server/tls/client-admin.crt"),
    ("client.key", "server/tls/client-admin.key"),
];

/// Largest file of the bundle, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Fetches the bundle from a server that answers, with the endpoints of all members.
pub async fn refresh(inventory: &Inventory, reach: &Reach) -> Result<(), Failure> {
    let mut server = target::view_of_any(inventory, reach).await?;
    let mut endpoints: Vec<String> =
        server.view.members.iter().flat_map(|member| member.client_urls.clone()).collect();
    // Loopback is for the servers themselves. A lab's addresses are loopback, too, but not this.
    endpoints.retain(|url| !url.starts_with("https://127.0.0.1:"));
    let name = &inventory.cluster_name;
    fetch(name, server.session.as_mut(), &server.layout, &endpoints).await
}

/// Fetches the bundle of `cluster` from a server with `layout` and writes it with an `etcdctl.env` that names `endpoints`.
pub async fn fetch(
    cluster: &str,
    session: &mut dyn Session,
    layout: &Layout,
    endpoints: &[String],
) -> Result<(), Failure> {
    let read = |(_, source): &(&str, &str)| Read::File {
        path: format!("{}/{source}", layout.data_dir),
        bytes_max: FILE_BYTES_MAX,
    };
    let reads = session.read(FILES.iter().map(read).collect()).await;
    let answers = reads.map_err(|error| failed(&error.to_string()))?;
    let dir = clusters::private_directory(cluster)?;
    let mut kept: Vec<&str> = Vec::new();
    for (index, ((name, _), answer)) in FILES.iter().zip(answers).enumerate() {
        if kept.contains(name) {
            continue;
        }
        match answer {
            Ok(Observed::File(Some(content))) => {
                write(&dir.join(name), &content)?;
                kept.push(name);
            }
            Ok(_) if FILES.iter().skip(index + 1).any(|(other, _)| other == name) => {}
            Ok(_) => return Err(failed(&format!("the server has no {name}"))),
            Err(error) => return Err(failed(&error.to_string())),
        }
    }
    write(&dir.join("etcdctl.env"), environment(&dir, endpoints).as_bytes())
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    files::write_private(path, content).map_err(|error| clusters::failed(path, &error))
}

fn failed(reason: &str) -> Failure {
    Failure::new(ExitCode::Error, format!("cannot fetch the client bundle: {reason}"))
}

/// What `etcdctl` reads, for `. etcdctl.env`.
fn environment(dir: &Path, endpoints: &[String]) -> String {
    let file = |name: &str| shell_words::quote(&dir.join(name).to_string_lossy()).into_owned();
    format!(
        "# Written by k3sup-rs. Use it as: . {}\nexport ETCDCTL_API=3\nexport ETCDCTL_ENDPOINTS={}\n\
         export ETCDCTL_CACERT={}\nexport ETCDCTL_CERT={}\nexport ETCDCTL_KEY={}\n",
        file("etcdctl.env"),
        endpoints.join(","),
        file("ca.crt"),
        file("client.crt"),
        file("client.key"),
    )
}

/// What a person is told at the end of `up`.
pub fn how_to_reach(inventory_file: &Path, name: &str) -> Result<String, Failure> {
    let env = clusters::directory(name)?.join("etcdctl.env");
    let env = env.to_string_lossy();
    let inventory = inventory_file.to_string_lossy();
    let (env, inventory) = (shell_words::quote(&env), shell_words::quote(&inventory));
    Ok(format!(
        "\nThe cluster is up. To look at it and to use its store:\n  k3sup-rs status -i {inventory}\n  \
         k3sup-rs nodes -i {inventory}\n  . {env} && etcdctl member list"
    ))
}
