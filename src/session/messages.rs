//! Messages on a stream.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Messages in both directions: a `Stream` of [`BytesMut`](tokio_util::bytes::BytesMut) and a `Sink` of [`Bytes`](tokio_util::bytes::Bytes).
pub type Messages<T> = Framed<T, LengthDelimitedCodec>;

/// Puts messages on a stream: each is preceded by its length, 4 bytes, big-endian, and is of `max` bytes at most in both directions. Memory for a longer one is never asked for.
///
/// ```no_run
/// # async fn example(session: claviger::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use claviger::session::{Bytes, messages};
/// use futures::{SinkExt as _, StreamExt as _};
///
/// let mut messages = messages(session.open(&"watch".parse()?).await?, 1 << 20);
/// messages.send(Bytes::from("since block 840000")).await?;
/// while let Some(event) = messages.next().await {
///     println!("{} bytes", event?.len());
/// }
/// # Ok(()) }
/// ```
pub fn messages<T: AsyncRead + AsyncWrite>(stream: T, max: u32) -> Messages<T> {
    LengthDelimitedCodec::builder().length_field_length(4).max_frame_length(max as usize).new_framed(stream)
}
