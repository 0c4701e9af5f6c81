//! Reader and writer against the plain model: frames sealed and opened one by one by `Sealer` and `Opener`.

use super::bare::Reader;
use super::*;
use crate::identity::Suite;
use crate::secret::CipherKey;
use crate::wire::{FRAME_HEADER, MAX_RECORD_PLAINTEXT};
use futures::task::noop_waker_ref;
use proptest::prelude::*;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

fn key() -> CipherKey {
    CipherKey::new([5; 32])
}

fn sealer() -> Sealer {
    Sealer::new(Suite::ChaChaPolyBlake2s, &key()).unwrap()
}

fn opener() -> Opener {
    Opener::new(Suite::ChaChaPolyBlake2s, &key()).unwrap()
}

fn cx() -> Context<'static> {
    Context::from_waker(noop_waker_ref())
}

fn kind(error: io::Error) -> ErrorKind {
    crate::session::error_of(error).kind()
}

/// Gives and takes so many bytes at each call, 0 for `Pending`, over and over.
#[derive(Clone)]
struct Steps {
    steps: Vec<usize>,
    at: usize,
}

impl Steps {
    fn new(steps: &[usize]) -> Self {
        Self { steps: steps.to_vec(), at: 0 }
    }

    fn next(&mut self) -> Option<usize> {
        let step = self.steps[self.at % self.steps.len()];
        self.at += 1;
        (step > 0).then_some(step)
    }
}

/// A pipe that gives `bytes`, and then ends.
struct From {
    bytes: Vec<u8>,
    at: usize,
    steps: Steps,
}

impl AsyncRead for From {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        assert!(out.remaining() > 0);
        let Some(step) = self.steps.next() else { return Poll::Pending };
        let count = step.min(out.remaining()).min(self.bytes.len() - self.at);
        out.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

/// A pipe that keeps what it takes.
struct Into {
    bytes: Arc<Mutex<Vec<u8>>>,
    steps: Steps,
}

impl AsyncWrite for Into {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        assert!(!data.is_empty());
        let Some(step) = self.steps.next() else { return Poll::Pending };
        let count = step.min(data.len());
        self.bytes.lock().unwrap().extend_from_slice(&data[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn reader(bytes: Vec<u8>, steps: &[usize]) -> RecordReader {
    RecordReader::new(Box::new(From { bytes, at: 0, steps: Steps::new(steps) }), opener())
}

fn writer(steps: &[usize]) -> (RecordWriter, Arc<Mutex<Vec<u8>>>) {
    let bytes = Arc::default();
    (RecordWriter::new(Box::new(Into { bytes: Arc::clone(&bytes), steps: Steps::new(steps) }), sealer()), bytes)
}

/// Said by one end, or heard by the other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Streams(Vec<u8>),
    Control(Vec<u8>),
    Empty,
    /// Said only.
    Flush,
}

/// What the other end hears of `words`: bytes of the streams join, everything else is as it was said.
fn heard(words: &[Word]) -> Vec<Word> {
    let mut heard = Vec::new();
    for word in words {
        match (word, heard.last_mut()) {
            (Word::Streams(more), Some(Word::Streams(bytes))) => bytes.extend_from_slice(more),
            (Word::Streams(bytes), _) if bytes.is_empty() => {}
            (Word::Flush, _) => {}
            _ => heard.push(word.clone()),
        }
    }
    heard
}

fn word(bytes: &[u8]) -> Word {
    match bytes.split_first() {
        None => Word::Empty,
        Some((&STREAMS, rest)) => Word::Streams(rest.to_vec()),
        Some((&CONTROL, rest)) => Word::Control(rest.to_vec()),
        Some((kind, _)) => panic!("kind {kind}"),
    }
}

/// The model: one frame after the other.
fn plain(mut wire: &[u8]) -> Vec<Word> {
    let mut opener = opener();
    let mut words = Vec::new();
    while let Some((header, rest)) = wire.split_first_chunk::<FRAME_HEADER>() {
        let (record, rest) = rest.split_at(usize::from(u16::from_be_bytes(*header)));
        words.push(word(opener.open(&mut record.to_vec()).unwrap()));
        wire = rest;
    }
    words
}

/// Frames of the words, the streams' in as many as it takes.
fn sealed(words: &[Word]) -> Vec<u8> {
    let (mut sealer, mut wire) = (sealer(), Vec::new());
    for word in words {
        let (kind, bytes) = match word {
            Word::Streams(bytes) => (STREAMS, bytes.as_slice()),
            Word::Control(bytes) => (CONTROL, bytes.as_slice()),
            Word::Empty | Word::Flush => {
                sealer.seal(&[], &mut wire).unwrap();
                continue;
            }
        };
        let (first, rest) = bytes.split_at(bytes.len().min(MAX_RECORD_PLAINTEXT - 1));
        sealer.seal(&[&[kind], first].concat(), &mut wire).unwrap();
        for bytes in rest.chunks(MAX_RECORD_PLAINTEXT - 1) {
            sealer.seal(&[&[kind], bytes].concat(), &mut wire).unwrap();
        }
    }
    wire
}

/// Says all words, however often it takes.
fn say(writer: &mut RecordWriter, words: &[Word]) {
    let mut cx = cx();
    for word in words {
        match word {
            Word::Streams(bytes) => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    if let Poll::Ready(count) = writer.poll_streams(&mut cx, rest) {
                        rest = &rest[count.unwrap()..];
                    }
                }
            }
            Word::Control(bytes) => writer.control(bytes).unwrap(),
            Word::Empty => writer.empty().unwrap(),
            Word::Flush => assert!(!matches!(writer.poll_flush(&mut cx), Poll::Ready(Err(_)))),
        }
    }
    while writer.poll_flush(&mut cx).map(Result::unwrap).is_pending() {}
}

/// Everything up to the error that ends it.
fn hear(reader: &mut RecordReader, gulp: usize) -> (Vec<Word>, io::Error) {
    let mut words = Vec::new();
    loop {
        let kind = match reader.poll_record(&mut cx()) {
            Poll::Pending => continue,
            Poll::Ready(Err(error)) => return (words, error),
            Poll::Ready(Ok(kind)) => kind,
        };
        let mut bytes = Vec::new();
        while !reader.bytes().is_empty() {
            // Asking again gives the same record until it is consumed.
            assert!(matches!(reader.poll_record(&mut cx()), Poll::Ready(Ok(again)) if again == kind));
            let count = reader.bytes().len().min(gulp);
            bytes.extend_from_slice(&reader.bytes()[..count]);
            reader.consume(count);
        }
        words.push(match kind {
            Kind::Streams => Word::Streams(bytes),
            Kind::Control => Word::Control(bytes),
            Kind::Empty => Word::Empty,
        });
    }
}

fn words() -> impl Strategy<Value = Vec<Word>> {
    let len = prop_oneof![0..40_usize, 16_300..16_400_usize, 0..70_000_usize];
    let bytes = (len, any::<u8>()).prop_map(|(len, first)| (0..len).map(|i| first.wrapping_add(i as u8)).collect());
    let word = (0..8, bytes).prop_map(|(which, bytes): (i32, Vec<u8>)| match which {
        0 => Word::Empty,
        1 => Word::Flush,
        2 => Word::Control(bytes[..bytes.len().min(MAX_RECORD_PLAINTEXT - 1)].to_vec()),
        _ => Word::Streams(bytes),
    });
    prop::collection::vec(word, 0..12)
}

fn steps() -> impl Strategy<Value = Vec<usize>> {
    let step = prop_oneof![2 => Just(0_usize), 1 => Just(1), 3 => 1..5000_usize, 3 => Just(1 << 20)];
    prop::collection::vec(step, 1..12).prop_filter("progress", |steps| steps.iter().any(|step| *step > 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_is_the_model(words in words(), steps in steps()) {
        let (mut writer, wire) = writer(&steps);
        say(&mut writer, &words);
        let wire = wire.lock().unwrap();
        prop_assert_eq!(heard(&plain(&wire)), heard(&words));
        prop_assert_eq!((writer.bytes_written(), writer.pending()), (wire.len() as u64, 0));
        prop_assert!(writer.holds_nothing());
    }

    #[test]
    fn what_is_read_is_the_model(words in words(), steps in steps(), gulp in 1..20_000_usize) {
        let wire = sealed(&words);
        let mut reader = reader(wire.clone(), &steps);
        let (read, error) = hear(&mut reader, gulp);
        prop_assert_eq!((reader.records(), reader.bytes_read()), (read.len() as u64, wire.len() as u64));
        prop_assert_eq!(read, plain(&wire));
        prop_assert_eq!(kind(error), ErrorKind::SessionTruncated);
    }

    #[test]
    fn bare_records_are_a_byte_stream(words in words(), steps in steps(), room in 1..100_000_usize) {
        let mut said: Vec<u8> = Vec::new();
        let words: Vec<_> = words.into_iter().filter(|word| matches!(word, Word::Streams(_))).collect();
        for word in &words {
            if let Word::Streams(bytes) = word { said.extend(bytes) }
        }
        let wire = sealed(&[words.as_slice(), &[Word::Empty]].concat());
        let mut reader = Reader::of(reader(wire, &steps));
        let (mut got, mut room) = (Vec::new(), vec![0; room]);
        loop {
            let mut out = ReadBuf::new(&mut room);
            if let Poll::Ready(result) = Pin::new(&mut reader).poll_read(&mut cx(), &mut out) {
                result.unwrap();
                if out.filled().is_empty() { break }
                got.extend_from_slice(out.filled());
            }
        }
        prop_assert!(got == said);
    }
}

/// Small records of every kind.
fn conversation() -> Vec<Word> {
    vec![
        Word::Empty,
        Word::Streams(b"sign this".into()),
        Word::Control(b"ping".into()),
        Word::Streams(vec![]),
        Word::Empty,
    ]
}

#[test]
fn each_cut_is_told_and_nothing_before_it_is_lost() {
    let (words, wire) = (conversation(), sealed(&conversation()));
    let ends: Vec<_> = (1..=words.len()).map(|count| sealed(&words[..count]).len()).collect();
    for at in 0..=wire.len() {
        let mut reader = reader(wire[..at].to_vec(), &[1]);
        let (read, error) = hear(&mut reader, 3);
        assert_eq!(
            (read.as_slice(), kind(error)),
            (&words[..ends.iter().filter(|end| **end <= at).count()], ErrorKind::SessionTruncated)
        );
        assert!(matches!(reader.poll_record(&mut cx()), Poll::Ready(Err(_))), "after an error there is nothing");
    }
}

#[test]
fn each_changed_bit_ends_it_there() {
    let (words, wire) = (conversation(), sealed(&conversation()));
    for bit in 0..wire.len() * 8 {
        let mut bad = wire.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (read, error) = hear(&mut reader(bad, &[1 << 20]), 3);
        assert!(words.starts_with(&read) && read.len() < words.len(), "bit {bit}");
        // A longer length waits for what never comes.
        assert!([ErrorKind::RecordInvalid, ErrorKind::SessionTruncated].contains(&kind(error)), "bit {bit}");
    }
}

#[test]
fn swapped_repeated_and_left_out_records_are_found() {
    let word = |text: &[u8]| Word::Streams(text.to_vec());
    let wire = sealed(&[word(b"one"), word(b"two"), word(b"six")]);
    let frames: Vec<_> = wire.chunks(wire.len() / 3).collect();
    for order in [&[1, 0, 2][..], &[0, 0, 1, 2], &[0, 2], &[1, 2]] {
        let changed: Vec<u8> = order.iter().flat_map(|at| frames[*at]).copied().collect();
        let (read, error) = hear(&mut reader(changed, &[1 << 20]), 3);
        assert_eq!(kind(error), ErrorKind::RecordInvalid, "{order:?}");
        assert!(read.len() < 2);
    }
}

#[test]
fn other_kinds_end_it() {
    let mut wire = Vec::new();
    sealer().seal(&[2, 0], &mut wire).unwrap();
    let (read, error) = hear(&mut reader(wire, &[1 << 20]), 3);
    assert_eq!((read, kind(error)), (vec![], ErrorKind::SessionProtocol));
}

#[test]
fn where_an_empty_record_is_due_a_longer_one_is_not_waited_for() {
    let wire = sealed(&[Word::Streams(vec![0; 1000])]);
    let mut reader = reader(wire[..FRAME_HEADER].to_vec(), &[1 << 20]);
    let Poll::Ready(Err(error)) = reader.poll_empty(&mut cx()) else { panic!("it waits") };
    assert_eq!(kind(error), ErrorKind::RecordInvalid);
}

#[test]
fn streams_wait_for_a_pipe_that_takes_nothing_and_control_does_not() {
    let (mut writer, wire) = writer(&[0]);
    let mut taken = 0;
    while let Poll::Ready(count) = writer.poll_streams(&mut cx(), &[7; 10_000]) {
        taken += count.unwrap();
        assert!(taken < 1 << 20, "no limit");
    }
    assert!(writer.pending() < 300 * 1024);
    for _ in 0..100 {
        writer.control(b"ping").unwrap();
    }
    assert!(writer.poll_flush(&mut cx()).is_pending() && wire.lock().unwrap().is_empty());
    assert!(kind(writer.control(&[0; MAX_RECORD_PLAINTEXT]).unwrap_err()) == ErrorKind::Internal);
}

#[test]
fn an_idle_session_holds_no_buffer() {
    let wire = sealed(&[Word::Streams(b"x".into())]);
    let mut reader = reader(wire, &[1 << 20, 0]);
    assert!(reader.holds_nothing());
    assert!(matches!(reader.poll_record(&mut cx()), Poll::Ready(Ok(Kind::Streams))));
    assert!(!reader.holds_nothing());
    reader.consume(1);
    assert!(reader.poll_record(&mut cx()).is_pending() && reader.holds_nothing());
}

#[test]
fn a_failed_pipe_goes_on_saying_so() {
    struct Broken;
    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let mut writer = RecordWriter::new(Box::new(Broken), sealer());
    writer.empty().unwrap();
    for _ in 0..2 {
        let Poll::Ready(Err(error)) = writer.poll_flush(&mut cx()) else { panic!("no error") };
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
