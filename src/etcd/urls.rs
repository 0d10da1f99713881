//! URLs of members as etcd takes them: a scheme, a host and a port, and no more
//! (etcd `client/pkg/types/urls.go`, `server/embed/config.go`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A URL of a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// As it was given.
    pub text: String,
    /// Whether it is https.
    pub tls: bool,
    /// The host without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, in etcd's words where it has some.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("URL scheme must be http or https: {text}"))?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            "unix" | "unixs" => return Err(format!("sockets of files are not served: {text}")),
            _ => return Err(format!("URL scheme must be http or https: {text}")),
        };
        let (address, path) = match rest.split_once('/') {
            Some((address, path)) => (address, path),
            None => (rest, ""),
        };
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        let form = || format!("URL address does not have the form \"host:port\": {text}");
        let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() || (bare == host && host.contains(':')) {
            return Err(form());
        }
        let port = port.parse().map_err(|_| form())?;
        Ok(Self { text: format!("{scheme}://{address}"), tls, host: bare.to_owned(), port })
    }

    /// `host:port`, as a peer is dialled.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Reads a list of URLs; they come back sorted, as etcd sorts them.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>, String> {
        let mut urls = texts.iter().map(|text| Self::parse(text)).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        Ok(urls)
    }

    /// Where to listen for it.
    ///
    /// # Errors
    /// The host is a name other than `localhost`.
    pub fn bind(&self) -> Result<SocketAddr, String> {
        let ip = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host
                .parse()
                .map_err(|_| format!("expected IP in URL for binding ({})", self.text))?,
        };
        Ok(SocketAddr::new(ip, self.port))
    }
}

/// The texts of URLs.
pub(crate) fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.text.clone()).collect()
}
