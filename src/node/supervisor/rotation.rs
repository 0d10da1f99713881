//! Certificates, the token and the CAs are replaced while the server runs.
//!
//! A CA roll-over has three stages, and each server takes each of them when it is asked to, one after
//! another: it believes the new CAs beside the old ones (`trust`), it signs and shows certificates
//! of the new ones (`sign`), it believes the old ones no longer (`drop`). No server takes a stage
//! before all others have taken the one before, so at every moment each believes every other. A
//! stage that was taken is taken again without a change, so who leads may die and begin anew.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::super::context::Context;
use super::super::keys::{KeysError, Standing};
use super::super::records::RecordError;
use super::super::secrets;
use super::super::wire::{Sent, SentAuthorities};
use super::routes::Refusal;
use crate::error::chain;
use crate::pki::Token;
use crate::pki::tree::Authorities;

/// A new token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct TokenRotate {
    /// The token: its secret, or the full form for this cluster.
    pub(in super::super) new_token: Sent,
}

/// A stage of a CA roll-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Believe the new CAs beside the old ones.
    Trust,
    /// Sign with the new ones.
    Sign,
    /// Believe the old ones no longer.
    Drop,
}

/// Which stage to take.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in super::super) struct CaStep {
    /// The stage.
    pub(in super::super) stage: Stage,
}

/// Makes all certificates of this server anew.
pub(super) async fn certificates(context: &Context) -> Result<(), Refusal> {
    let keys = std::sync::Arc::clone(&context.keys);
    blocking(move || keys.rotate()).await
}

/// Takes a new token for the cluster, and keeps it in this server's file. Again with the same token
/// it only looks after the file.
pub(super) async fn token(context: &Context, request: TokenRotate) -> Result<(), Refusal> {
    let bad = |error: crate::pki::TokenError| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the new token: {error}"))
    };
    let token = Token::parse(request.new_token.0.expose()).map_err(bad)?;
    if token.ca_hash.is_some() {
        token.check_ca(context.keys.authorities().server.certificate()).map_err(bad)?;
    }
    context.consensus.read_barrier().await.map_err(|error| unwritten(&error.into()))?;
    let Some(seen) = context.records.settings() else {
        let message = "the cluster has not written its settings yet";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let (known, password) = (seen.server_secret.clone(), token.password.clone());
    let hashed = tokio::task::spawn_blocking(move || {
        if secrets::matches(&known, &password) {
            Ok(None)
        } else {
            secrets::hash(&password).map(Some)
        }
    });
    let hashed = hashed.await.map_err(|error| broken(error.to_string()))?.map_err(bad)?;
    if let Some(server_secret) = hashed {
        let mut settings = seen.clone();
        settings.server_secret = server_secret;
        context
            .records
            .replace_settings(&settings, &seen)
            .await
            .map_err(|error| unwritten(&error))?;
        tracing::warn!("the cluster's token was replaced");
    }
    let keys = std::sync::Arc::clone(&context.keys);
    blocking(move || keys.keep_token(&token.password)).await
}

/// How far a roll-over is here.
pub(super) fn standing(context: &Context) -> Result<Standing, Refusal> {
    context.keys.standing().map_err(|error| broken(chain(&error)))
}

/// The CAs that this server has and another may not have yet.
pub(super) fn upcoming(context: &Context) -> Result<SentAuthorities, Refusal> {
    let tree = context.keys.tree();
    let next = tree.next().map_err(|error| broken(chain(&error)))?;
    let signed = tree.previous().map_err(|error| broken(chain(&error)))?.is_some();
    match next {
        Some(next) => Ok((&next).into()),
        None if signed => Ok((&*context.keys.authorities()).into()),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "no CA roll-over is under way")),
    }
}

/// Takes a stage.
pub(super) async fn step(context: &Context, stage: Stage) -> Result<Standing, Refusal> {
    let others = others(context).await?;
    let mine = standing(context)?;
    let keys = std::sync::Arc::clone(&context.keys);
    match todo(stage, &mine, &others)? {
        Todo::Nothing => {}
        Todo::Believe { from } => {
            let given = match from {
                Some(server) => Some(fetch(context, &server).await?),
                None => None,
            };
            blocking(move || keys.believe_next(given.as_ref())).await?;
        }
        Todo::Sign => blocking(move || keys.sign_with_next()).await?,
        Todo::Forget => blocking(move || keys.forget_previous()).await?,
    }
    standing(context)
}

/// What a stage means for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Todo {
    Nothing,
    /// Believe new CAs: those of the server `from`, or some to be made.
    Believe {
        from: Option<String>,
    },
    Sign,
    Forget,
}

/// Decides from how far it is here and on all other servers. Pure.
fn todo(stage: Stage, mine: &Standing, others: &[(String, Standing)]) -> Result<Todo, Refusal> {
    let refuse = |message: String| Err(Refusal::new(StatusCode::CONFLICT, message));
    // It was done here, and others have yet to forget.
    let done = others.iter().any(|(_, other)| {
        other.previous.is_some() && other.signing == mine.signing && mine.next.is_none()
    });
    match stage {
        Stage::Trust | Stage::Sign if mine.previous.is_some() || done => Ok(Todo::Nothing),
        Stage::Trust if mine.next.is_some() => Ok(Todo::Believe { from: None }),
        Stage::Trust => {
            let ahead =
                |(_, other): &&(String, Standing)| other.next.is_some() || other.previous.is_some();
            Ok(Todo::Believe { from: others.iter().find(ahead).map(|(server, _)| server.clone()) })
        }
        Stage::Sign => {
            let Some(next) = &mine.next else {
                return refuse(
                    "there are no new CAs yet: the stage `trust` comes first".to_owned(),
                );
            };
            match others.iter().find(|(_, other)| !other.believes(next)) {
                Some((server, _)) => refuse(format!("{server} does not believe the new CAs yet")),
                None => Ok(Todo::Sign),
            }
        }
        Stage::Drop if mine.next.is_some() => {
            refuse("this server does not sign with the new CAs yet".to_owned())
        }
        Stage::Drop if mine.previous.is_none() => Ok(Todo::Nothing),
        Stage::Drop => match others.iter().find(|(_, other)| other.signing != mine.signing) {
            Some((server, _)) => refuse(format!("{server} does not sign with the new CAs yet")),
            None => Ok(Todo::Forget),
        },
    }
}

/// How far it is on all other servers; all must answer.
async fn others(context: &Context) -> Result<Vec<(String, Standing)>, Refusal> {
    let mut found = Vec::new();
    for (name, node) in context.records.nodes() {
        let Some(authority) = node.supervisor_url.strip_prefix("https://") else { continue };
        if name == context.node_name {
            continue;
        }
        let silent = |why: String| {
            let message = format!("{name} ({authority}) does not answer: {why}; all servers must");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        };
        let asked = context.peers.ask(authority, "GET", "/v1-k3sup/ca", None, b"").await;
        let answer = asked.map_err(|error| silent(error.to_string()))?;
        let standing = answer.json().map_err(|error| silent(error.to_string()))?;
        found.push((authority.to_owned(), standing));
    }
    Ok(found)
}

async fn fetch(context: &Context, server: &str) -> Result<Authorities, Refusal> {
    let asked = context.peers.ask(server, "GET", "/v1-k3sup/ca-next", None, b"").await;
    let sent = asked.and_then(|answer| answer.json::<SentAuthorities>());
    let sent = sent.map_err(|error| {
        let message = format!("{server} does not give the new CAs: {error}");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    sent.try_into().map_err(|error: crate::pki::PkiError| broken(chain(&error)))
}

async fn blocking(
    work: impl FnOnce() -> Result<(), KeysError> + Send + 'static,
) -> Result<(), Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(broken(chain(&error))),
        Err(error) => Err(broken(error.to_string())),
    }
}

fn broken(message: String) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

fn unwritten(error: &RecordError) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(signing: &str, next: Option<&str>, previous: Option<&str>) -> Standing {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Standing { signing: signing.to_owned(), next: text(next), previous: text(previous) }
    }

    /// Three servers take the stages, who leads dies after any number of steps, and begins anew.
    #[test]
    fn however_often_it_is_begun_anew_each_believes_every_other() {
        for died_after in 0..9 {
            let mut servers = [(); 3].map(|()| standing("old", None, None));
            let mut steps = 0;
            let mut made = 0;
            for attempt in 0..2 {
                'attempt: for stage in [Stage::Trust, Stage::Sign, Stage::Drop] {
                    for index in 0..3 {
                        if attempt == 0 && steps == died_after {
                            break 'attempt;
                        }
                        steps += 1;
                        let others: Vec<_> = (0..3)
                            .filter(|other| *other != index)
                            .map(|other| (other.to_string(), servers[other].clone()))
                            .collect();
                        let todo = todo(stage, &servers[index], &others).unwrap();
                        let server = &mut servers[index];
                        match todo {
                            Todo::Nothing => {}
                            Todo::Believe { from: None } if server.next.is_some() => {}
                            Todo::Believe { from: None } => {
                                made += 1;
                                server.next = Some(format!("new{made}"));
                            }
                            Todo::Believe { from: Some(from) } => {
                                let other = &others.iter().find(|(n, _)| *n == from).unwrap().1;
                                let signing = Some(other.signing.clone());
                                server.next = other.next.clone().or(signing);
                            }
                            Todo::Sign => {
                                let next = server.next.take().unwrap();
                                let old = std::mem::replace(&mut server.signing, next);
                                server.previous = Some(old);
                            }
                            Todo::Forget => server.previous = None,
                        }
                        for one in &servers {
                            for other in &servers {
                                assert!(one.believes(&other.signing), "{servers:?}");
                            }
                        }
                    }
                }
            }
            let expected = standing("new1", None, None);
            // A whole roll-over before it died: the second attempt is one more.
            let done = died_after >= 9;
            assert!(done || servers.iter().all(|server| *server == expected), "{servers:?}");
        }
    }

    #[test]
    fn a_stage_before_its_time_is_refused() {
        let old = standing("old", None, None);
        let ready = standing("old", Some("new"), None);
        let signed = standing("new", None, Some("old"));
        let other = |standing: &Standing| vec![("server2".to_owned(), standing.clone())];
        for (stage, mine, others) in [
            (Stage::Sign, &old, other(&old)),
            (Stage::Sign, &ready, other(&old)),
            (Stage::Drop, &ready, other(&signed)),
            (Stage::Drop, &signed, other(&ready)),
        ] {
            assert!(todo(stage, mine, &others).is_err(), "{stage:?} {mine:?} {others:?}");
        }
        assert_eq!(todo(Stage::Sign, &ready, &other(&signed)), Ok(Todo::Sign));
        assert_eq!(todo(Stage::Drop, &old, &other(&old)), Ok(Todo::Nothing));
    }
}
