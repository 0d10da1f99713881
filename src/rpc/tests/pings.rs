//! Clients that ping too often, byte by byte.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Fixture, PATIENCE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0k3sup-rs";

/// Everything that comes until the server closes, as kind and payload of each frame.
async fn frames(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let all = stream.read_to_end(&mut bytes);
    tokio::time::timeout(PATIENCE, all).await.unwrap().unwrap();
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        frames.push((*kind, payload[..length].to_vec()));
        rest = &payload[length..];
    }
    assert_eq!(rest, b"", "whole frames");
    frames
}

#[tokio::test]
async fn a_client_that_pings_too_often_is_told_so_and_sent_away() {
    let fixture = Fixture::new().await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    for _ in 0..3 {
        stream.write_all(PING).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What comes with the one too many is dropped.
    stream.write_all(&PING.repeat(20)).await.unwrap();
    let frames = frames(&mut stream).await;
    let pongs: Vec<_> = frames.iter().filter(|(kind, _)| *kind == 6).collect();
    assert_eq!(pongs.len(), 3, "{frames:?}");
    let (kind, farewell) = frames.last().unwrap();
    assert_eq!(*kind, 7, "{frames:?}");
    assert_eq!(farewell, b"\0\0\0\0\0\0\0\x0btoo_many_pings");
    // Others are served as before.
    fixture.put("a", "1").await;
}
