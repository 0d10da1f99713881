//! Kubeconfig files: a server's own one made fit for use from elsewhere, and merged with what a
//! person has. Pure: documents in, documents out.

use serde_json::{Map, Value as Json, json};

/// The lists of a kubeconfig whose entries have names.
const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// The kubeconfig that K3s writes on a server (`server: https://127.0.0.1:6443`; cluster, user and
/// context called `default`), with `server` as the address and `name` as cluster, user and context.
///
/// # Errors
/// It is not such a file: what is missing.
pub fn adapted(own: &Json, name: &str, server: &str) -> Result<Json, String> {
    let first = |list: &str, key: &str| {
        let found = own.get(list).and_then(|list| list.get(0)).and_then(|entry| entry.get(key));
        found.cloned().ok_or_else(|| format!("the server's kubeconfig has no `{list}[0].{key}`"))
    };
    let mut cluster = first("clusters", "cluster")?;
    let user = first("users", "user")?;
    match cluster.as_object_mut() {
        Some(cluster) => cluster.insert("server".to_owned(), server.into()),
        None => return Err("the server's kubeconfig has a cluster that is no mapping".to_owned()),
    };
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": cluster }],
        "users": [{ "name": name, "user": user }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
        "preferences": {},
    }))
}

/// `existing` with the entries of `new`, which take the place of those with the same names. The
/// current context becomes that of `new` when `switch` says so or there is none.
///
/// # Errors
/// `existing` is no kubeconfig.
pub fn merged(existing: &Json, new: &Json, switch: bool) -> Result<Json, String> {
    let mut result = match existing {
        Json::Null => Map::from_iter([
            ("apiVersion".to_owned(), "v1".into()),
            ("kind".to_owned(), "Config".into()),
        ]),
        Json::Object(map) => map.clone(),
        _ => return Err("it is no mapping".to_owned()),
    };
    if result.get("kind").and_then(Json::as_str).is_some_and(|kind| kind != "Config") {
        return Err("its `kind` is not `Config`".to_owned());
    }
    for list in LISTS {
        let own = result.entry(list).or_insert(Json::Null);
        if own.is_null() {
            *own = Json::Array(Vec::new());
        }
        let Some(own) = own.as_array_mut() else { return Err(format!("`{list}` is no list")) };
        for entry in new.get(list).and_then(Json::as_array).into_iter().flatten() {
            match own.iter_mut().find(|known| known.get("name") == entry.get("name")) {
                Some(known) => known.clone_from(entry),
                None => own.push(entry.clone()),
            }
        }
    }
    let current = result.get("current-context").and_then(Json::as_str).unwrap_or_default();
    if (switch || current.is_empty())
        && let Some(context) = new.get("current-context")
    {
        result.insert("current-context".to_owned(), context.clone());
    }
    Ok(Json::Object(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Json {
        json!({
            "apiVersion": "v1",
            "clusters": [{ "name": "default", "cluster": {
                "certificate-authority-data": "Q0E=", "server": "https://127.0.0.1:6443" } }],
            "contexts": [{ "name": "default", "context": { "cluster": "default", "user": "default" } }],
            "current-context": "default",
            "kind": "Config",
            "users": [{ "name": "default", "user": { "client-key-data": "S0VZ" } }],
        })
    }

    #[test]
    fn a_servers_own_file_is_made_fit_for_elsewhere() {
        let adapted = adapted(&own(), "prod", "https://lb:6443").unwrap();
        assert_eq!(adapted["clusters"][0]["cluster"]["server"], "https://lb:6443");
        assert_eq!(adapted["clusters"][0]["cluster"]["certificate-authority-data"], "Q0E=");
        assert_eq!(
            adapted["contexts"][0],
            json!({ "name": "prod", "context": { "cluster": "prod",
            "user": "prod" } })
        );
        assert_eq!(adapted["users"][0]["user"]["client-key-data"], "S0VZ");
        assert!(super::adapted(&json!({}), "x", "y").unwrap_err().contains("clusters[0].cluster"));
    }

    #[test]
    fn merging_replaces_what_has_the_name_and_keeps_the_rest() {
        let new = adapted(&own(), "prod", "https://lb:6443").unwrap();
        let mine = json!({
            "kind": "Config",
            "clusters": [{ "name": "mine", "cluster": { "server": "https://a" } },
                         { "name": "prod", "cluster": { "server": "https://old" } }],
            "users": null,
            "current-context": "mine",
            "extensions": ["kept"],
        });
        let merged = super::merged(&mine, &new, false).unwrap();
        assert_eq!(merged["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(merged["clusters"][0]["name"], "mine");
        assert_eq!(merged["clusters"][1]["cluster"]["server"], "https://lb:6443");
        assert_eq!(merged["users"][0]["name"], "prod");
        assert_eq!(merged["current-context"], "mine");
        assert_eq!(merged["extensions"], json!(["kept"]));
        assert_eq!(super::merged(&mine, &new, true).unwrap()["current-context"], "prod");
        assert_eq!(super::merged(&merged, &new, false).unwrap(), merged, "again is the same");
    }

    #[test]
    fn nothing_there_or_something_else_there() {
        let new = adapted(&own(), "prod", "https://lb:6443").unwrap();
        assert_eq!(merged(&Json::Null, &new, false).unwrap()["current-context"], "prod");
        assert!(merged(&json!([1]), &new, false).is_err());
        assert!(merged(&json!({ "kind": "Pod" }), &new, false).unwrap_err().contains("kind"));
        assert!(merged(&json!({ "users": 3 }), &new, false).unwrap_err().contains("users"));
    }
}
