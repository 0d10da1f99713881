//! How a watch response is encoded: the fields before the events as any message, then the events,
//! each of which was encoded once for all watchers that it goes to.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use crate::rpc::convert;
use crate::rpc::pb::etcdserverpb::{WatchRequest, WatchResponse};
use crate::store::types::Event;
use crate::store::watch::SharedEvent;

/// The number of `WatchResponse.events`.
const EVENTS_FIELD: u32 = 11;

/// A watch response whose events are in wire form.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// All but the events.
    pub(crate) head: WatchResponse,
    /// The events, each with the field's tag and length in front.
    pub(crate) events: Vec<Bytes>,
}

impl From<WatchResponse> for Reply {
    fn from(head: WatchResponse) -> Self {
        Self { head, events: Vec::new() }
    }
}

impl Reply {
    /// The same as one message.
    pub(crate) fn message(self) -> Result<WatchResponse, Status> {
        let mut message = self.head;
        for event in self.events {
            message.merge(event).map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(message)
    }

    /// How many bytes it takes.
    pub(crate) fn encoded_len(&self) -> usize {
        self.head.encoded_len() + self.events.iter().map(Bytes::len).sum::<usize>()
    }
}

/// An event as it stands in a response, with or without the pair before it.
pub(crate) fn encode(event: &Arc<SharedEvent>, prev_kv: bool) -> Bytes {
    event.encoded(prev_kv, |event, prev_kv| {
        let prev_kv = event.prev_kv.as_ref().filter(|_| prev_kv).cloned();
        let event = Event { kind: event.kind, kv: event.kv.clone(), prev_kv };
        let event = convert::event(event);
        let mut buffer = BytesMut::with_capacity(message::encoded_len(EVENTS_FIELD, &event));
        message::encode(EVENTS_FIELD, &event, &mut buffer);
        buffer.freeze()
    })
}

/// prost's codec, but for the replies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = Reply;
    type Decode = WatchRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<WatchRequest>;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for WatchCodec {
    type Item = Reply;
    type Error = Status;

    fn encode(&mut self, reply: Reply, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(reply.encoded_len());
        let tooshort = |error: prost::EncodeError| Status::internal(error.to_string());
        reply.head.encode(buffer).map_err(tooshort)?;
        for event in &reply.events {
            buffer.put_slice(event);
        }
        Ok(())
    }
}
