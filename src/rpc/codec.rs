//! How messages lie in memory on their way: as prost writes them, in buffers of their size. tonic's own begin with
//! 8 KiB for each direction of each call, and double until a message fits.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// What a buffer has at first: most requests and answers are smaller.
const BUFFER_BYTES: usize = 512;

/// From so many bytes on what was encoded is handed on, though more is there to encode (tonic's own).
const YIELD_BYTES: usize = 32 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// prost's codec, of little memory.
pub(crate) struct Lean<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Lean<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Lean<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Exact<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Exact<T> {
        Exact(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstCodec::<T, U>::raw_decoder(buffers())
    }
}

/// Makes room for a message before it is encoded.
pub(crate) struct Exact<T>(PhantomData<T>);

impl<T: Message> Encoder for Exact<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        item.encode(buf).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::TryStreamExt as _;
    use http_body_util::BodyExt as _;
    use tonic::codec::Streaming;

    use super::super::pb::etcdserverpb::{PutRequest, RangeResponse};
    use super::super::pb::mvccpb::KeyValue;
    use super::*;

    /// What comes out of messages that were sent one after another.
    async fn there_and_back<T>(messages: Vec<T>) -> Vec<T>
    where
        T: Message + Default + Clone + 'static,
    {
        let mut codec = Lean::<T, T>::default();
        let source = tokio_stream::iter(messages.into_iter().map(Ok));
        let sent = tonic::codec::EncodeBody::new_client(codec.encoder(), source, None, None);
        let bytes = sent.collect().await.unwrap().to_bytes();
        let body = http_body_util::Full::new(bytes);
        let streaming = Streaming::new_request(codec.decoder(), body, None, Some(usize::MAX));
        streaming.try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn messages_of_every_size_arrive() {
        let put = |bytes: usize| PutRequest {
            key: Bytes::from_static(b"key"),
            value: vec![b'v'; bytes].into(),
            ..PutRequest::default()
        };
        let puts = [0, 1, 500, 507, 512, 8192, 32 * 1024, 3_000_000].map(put).to_vec();
        assert_eq!(there_and_back(puts.clone()).await, puts);
        let kv = |number: usize| KeyValue {
            key: format!("key{number}").into(),
            value: vec![b'v'; 256].into(),
            ..KeyValue::default()
        };
        let range = RangeResponse { kvs: (0..500).map(kv).collect(), ..RangeResponse::default() };
        assert_eq!(there_and_back(vec![range.clone()]).await, [range]);
    }
}
